//! `muster fleet …`: which device runs which version.

use super::{client, output};
use crate::{
    cli::{Fleet, FleetOf, Global},
    client::encode,
};
use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::ExitCode};

const DEVICES: &str = "/muster/v1/fleet/devices?maxResults=250";

pub(super) fn run(global: &Global, verb: Fleet) -> anyhow::Result<ExitCode> {
    let client = client(global)?;
    match verb {
        Fleet::Versions { which, at, days } => {
            let mut path =
                "/muster/v1/fleet/versions?".to_owned() + which.query().trim_start_matches('&');
            if let Some(at) = at {
                path += &format!("&at={}", seconds(&at)?);
            }
            if let Some(days) = days {
                path += &format!("&days={days}");
            }
            let counted = client.call(Method::GET, &path, None)?;
            output::answer(global, &counted, versions)?;
        }
        Fleet::Devices {
            which,
            firmware_version,
            drift,
        } => {
            let mut path = DEVICES.to_owned() + &which.query();
            if let Some(version) = firmware_version {
                path += &format!("&version={}", encode(&version));
            }
            if drift {
                path += "&drift=true";
            }
            let found = client.pages(&path, "devices")?;
            output::answer(global, &json!({ "devices": found }), |_| devices(&found))?;
        }
        Fleet::History { device } => {
            let path = format!("{DEVICES}&thing={}", encode(&device));
            let found = client.pages(&path, "devices")?;
            output::answer(global, &json!({ "devices": found }), |_| history(&found))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl FleetOf {
    fn query(&self) -> String {
        let fields = [
            ("name", &self.firmware),
            ("group", &self.group),
            ("hardware", &self.hardware),
        ];
        let said = fields.iter().filter_map(|(name, value)| {
            let value = value.as_ref()?;
            Some(format!("&{name}={}", encode(value)))
        });
        said.collect()
    }
}

fn seconds(text: &str) -> anyhow::Result<u64> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let moment: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("--at {text:?}: write it as 2027-01-31T12:00:00Z"))?;
    u64::try_from(moment.as_second()).with_context(|| format!("--at {text:?} lies before 1970"))
}

fn time(value: &Value, key: &str) -> String {
    let seconds = value.get(key).and_then(Value::as_i64);
    let moment = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    moment.map(|moment| moment.to_string()).unwrap_or_default()
}

/// One moment as a table; several with a column for each.
fn versions(counted: &Value) -> String {
    let moments = output::items(counted, "moments");
    let mut rows: BTreeMap<[&str; 3], Vec<u64>> = BTreeMap::new();
    let mut drifted = 0;
    for (index, moment) in moments.iter().enumerate() {
        for share in output::items(moment, "versions") {
            let kind = ["name", "version", "hardware"].map(|key| output::field(share, key));
            let counts = rows.entry(kind).or_insert_with(|| vec![0; moments.len()]);
            let number = |key: &str| share.get(key).and_then(Value::as_u64).unwrap_or(0);
            if let Some(count) = counts.get_mut(index) {
                *count = number("count");
            }
            if index + 1 == moments.len() {
                drifted += number("drifted");
            }
        }
    }
    let mut heads = ["firmware", "version", "hardware"]
        .map(str::to_owned)
        .to_vec();
    match moments {
        [_] => heads.push("devices".to_owned()),
        many => heads.extend(many.iter().map(|moment| {
            let at = time(moment, "at");
            at.get(..10).unwrap_or_default().to_owned()
        })),
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(kind, counts)| {
            let kind = kind.map(str::to_owned).into_iter();
            kind.chain(counts.iter().map(u64::to_string)).collect()
        })
        .collect();
    let table = output::table(&heads, &rows);
    match drifted {
        0 => table,
        some => format!(
            "{table}\n{some} say they run another version than they were brought to: `muster fleet devices --drift`"
        ),
    }
}

fn devices(found: &[Value]) -> String {
    let mut heads = vec![
        "device", "firmware", "version", "says", "since", "rollout", "hardware",
    ];
    // What devices have refused of another server's is seldom there.
    let refusals = |device: &Value| match output::items(device, "refused") {
        [] => String::new(),
        [.., last] => format!(
            "{}: {}",
            output::field(last, "job"),
            output::field(last, "reason")
        ),
    };
    let any_refused = found.iter().any(|device| !refusals(device).is_empty());
    heads.extend(any_refused.then_some("refused, of jobs not known here"));
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|device| {
            let text = |key: &str| output::field(device, key).to_owned();
            let mut row = vec![
                text("thing"),
                text("name"),
                text("version"),
                text("reported"),
                time(device, "since"),
                text("rollout"),
                text("hardware"),
            ];
            row.extend(any_refused.then(|| refusals(device)));
            row
        })
        .collect();
    output::table(&heads, &rows)
}

fn history(found: &[Value]) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .flat_map(|device| {
            let name = output::field(device, "name");
            output::items(device, "history").iter().map(move |ran| {
                let said = ran.get("reported").and_then(Value::as_bool) == Some(true);
                let how = if said {
                    "said by the device"
                } else {
                    "installed by a job"
                };
                vec![
                    time(ran, "since"),
                    name.to_owned(),
                    output::field(ran, "version").to_owned(),
                    how.to_owned(),
                ]
            })
        })
        .collect();
    output::table(&["since", "firmware", "version", "how it is known"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_over_time_stand_side_by_side() {
        let share = |version: &str, count: u64, drifted: u64| json!({"name": "lamp", "version": version, "hardware": null, "count": count, "drifted": drifted});
        let counted = json!({"moments": [
            {"at": 0, "versions": [share("1.0", 3, 0)]},
            {"at": 86_400, "versions": [share("1.0", 1, 1), share("2.0", 2, 0)]},
        ]});
        assert_eq!(
            versions(&counted),
            "firmware  version  hardware  1970-01-01  1970-01-02\n\
             lamp      1.0                3           1\n\
             lamp      2.0                0           2\n\
             1 say they run another version than they were brought to: `muster fleet devices --drift`"
        );
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        assert_eq!(seconds("1970-01-02T00:00:00Z").unwrap(), 86_400);
        assert_eq!(seconds("12").unwrap(), 12);
        assert!(seconds("yesterday").is_err());
    }
}
