//! A registry of many devices, each enrolled as an operator enrols one: key, signed certificate, thing with attributes,
//! policy and groups in one batch.

use crate::house;
use anyhow::Context as _;
use fleet::{DeviceKey, Enrolment, Fleet, FleetError, GroupChange, GroupName};
use policy::PolicyName;
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime},
};

/// Enrolments under way at once, so that they share commits.
const WORKERS: usize = 32;
/// Devices of one hall.
const HALL_ITEMS: u64 = 1_000;
/// The first so many are in the group `first` too.
pub(crate) const FIRST_ITEMS: u64 = 100_000;
/// A policy that no group has yet: for who measures what it takes to attach one.
const GROUP_POLICY: &str = "halls";

/// Makes devices until there are `things` of them; those that are there already stay.
pub(crate) fn fill(data: &Path, things: u64) -> anyhow::Result<serde_json::Value> {
    let (store, fleet) = house::open(data)?;
    let began = Instant::now();
    prepare(&fleet, things)?;
    let (next, made) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| scope.spawn(|| work(&fleet, things, &next, &made)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a worker has panicked"))
        })
    })?;
    let seconds = began.elapsed().as_secs_f64();
    store.close();
    let made = made.into_inner();
    Ok(serde_json::json!({ "made": made, "seconds": seconds }))
}

fn prepare(fleet: &Fleet, things: u64) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let document = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:*:*:topicfilter/hall/${iot:Connection.Thing.Attributes[site]}"}]}"#;
    let policy: PolicyName = GROUP_POLICY.parse()?;
    known(fleet.create_policy(&policy, document, now).map(drop))?;
    let halls = (0..things.div_ceil(HALL_ITEMS)).map(|hall| format!("hall-{hall:04}"));
    for name in halls.chain(["first".to_owned()]) {
        let group: GroupName = name.parse()?;
        let change = GroupChange::default();
        known(
            fleet
                .create_group(&group, None, &change, name, now)
                .map(drop),
        )?;
    }
    Ok(())
}

/// What is there already is as good as made.
fn known(done: Result<(), FleetError>) -> anyhow::Result<()> {
    match done {
        Ok(()) | Err(FleetError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn work(fleet: &Fleet, things: u64, next: &AtomicU64, made: &AtomicU64) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= things {
            return Ok(());
        }
        let mut groups: Vec<GroupName> = vec![format!("hall-{:04}", number / HALL_ITEMS).parse()?];
        if number < FIRST_ITEMS {
            groups.push("first".parse()?);
        }
        let enrolment = Enrolment {
            thing: house::device(number).parse()?,
            policies: vec![fleet::DEVICE_DEFAULT.parse()?],
            groups,
            attributes: [
                ("serial".to_owned(), format!("sn-{number:012}")),
                ("site".to_owned(), format!("site-{}", number % 97)),
            ]
            .into(),
            key: DeviceKey::Generate,
        };
        match fleet.enrol(&enrolment, SystemTime::now()) {
            Ok(_) => {
                made.fetch_add(1, Ordering::Relaxed);
            }
            Err(FleetError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error).with_context(|| house::device(number)),
        }
    }
}
