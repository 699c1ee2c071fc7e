//! A record of very many decisions: as if each of many devices had published to so many topics of its own.

use crate::{house, judged::enrol};
use fleet::{GroupChange, GroupName, Tally};
use serde_json::{Value, json};
use std::{path::Path, time::SystemTime};
use store::{Expect, Write};

/// Devices whose decisions are written at once.
const BATCH_ITEMS: usize = 20;

/// Writes `each` decisions of each of `things` new devices, all of one group, into the registry below `data`.
pub(crate) fn record(data: &Path, things: u64, each: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let group: GroupName = "recorded".parse()?;
    let (change, now) = (GroupChange::default(), SystemTime::now());
    fleet.create_group(&group, None, &change, group.to_string(), now)?;
    let devices = enrol(&fleet, things, &group)?;
    let second = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let tally = Tally {
        count: 3,
        first: second.saturating_sub(60),
        last: second,
        allowed: true,
        over_https: false,
    };
    let table = store.table("decisions")?;
    for devices in devices.chunks(BATCH_ITEMS) {
        let mut rows = Vec::new();
        for (thing, id) in devices {
            for topic in 0..each {
                // As `fleet` names them.
                let key = format!("decision/{id}/Publish/dt/{thing}/sensor-{topic:03}");
                rows.push(Write::put(key, &tally, Expect::Any)?);
            }
        }
        table.batch(&rows)?;
    }
    store.close();
    Ok(json!({ "devices": devices.len(), "decisions": things * each }))
}
