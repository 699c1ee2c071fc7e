//! What to give `explain` so that it says of a counter-example what was found: one value for each key that is open.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::condition::Condition;
use crate::key::Key;
use crate::operator::Family;
use crate::own::Own;

/// A value by which a condition comes out as a counter-example takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Given {
    /// The condition key, as in `muster:MessageSize`.
    pub key: String,
    /// A value of it.
    pub value: String,
}

/// Values that meet all conditions of an Allow, and of each Deny leave one unmet; none for what need not be given, and
/// for keys of which no value is found.
pub(super) fn given(
    allow: &[&Condition],
    denies: &[Vec<&Condition>],
    now: Option<i64>,
) -> Vec<Given> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for condition in allow {
        let key = condition.key.to_string();
        let of_key = || allow.iter().filter(|one| one.key == condition.key);
        if values.contains_key(&key) || of_key().any(|one| one.operator.family == Family::Null) {
            continue;
        }
        let mut tried = of_key().flat_map(|one| candidates(one, now));
        if let Some(value) = tried.find(|value| of_key().all(|one| one.takes(value))) {
            values.insert(key, value);
        }
    }
    for deny in denies {
        let is_silent = |one: &&Condition| match values.get(&one.key.to_string()) {
            Some(value) => !one.takes(value),
            None if one.operator.family == Family::Null => one.asks_for_presence(),
            None => {
                let operator = one.operator;
                // Some are known without being given.
                let is_known = matches!(
                    one.key,
                    Key::CurrentTime | Key::EpochTime | Key::Own(Own::Quarantined | Own::Attested)
                );
                !operator.negated && !operator.if_exists && !is_known
            }
        };
        if deny.iter().any(is_silent) {
            continue;
        }
        let evaded = deny.iter().find_map(|one| {
            let key = one.key.to_string();
            let mut tried = candidates(one, now).into_iter();
            let value = tried.find(|value| !one.takes(value))?;
            (!values.contains_key(&key)).then_some((key, value))
        });
        values.extend(evaded);
    }
    let values = values.into_iter();
    let given = values.map(|(key, value)| match key.as_str() {
        "aws:EpochTime" => Given {
            key: Key::CurrentTime.to_string(),
            value: value.parse().ok().and_then(moment).unwrap_or(value),
        },
        _ => Given { key, value },
    });
    given.collect()
}

/// Values by which a condition may come out either way.
fn candidates(condition: &Condition, now: Option<i64>) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    match &condition.key {
        Key::Own(Own::Listener) => words(&["mqtt", "wss", "https"]),
        Key::Own(Own::TlsVersion) => words(&["1.3", "1.2"]),
        Key::Own(Own::Qos) => words(&["0", "1", "2"]),
        Key::Own(Own::Retain | Own::Quarantined | Own::Attested) => words(&["false", "true"]),
        Key::Own(Own::MessageSize | Own::LastViolationAge) => {
            let counts = condition.probes().unwrap_or_default().into_iter();
            let is_count = |value: &String| value.bytes().all(|b| b.is_ascii_digit());
            counts.filter(is_count).collect()
        }
        Key::Own(Own::FirmwareName | Own::FirmwareVersion)
        | Key::DomainName
        | Key::ConnectAttributes => {
            let mut written = condition.plain_words();
            written.push("x".to_owned());
            written
        }
        Key::SourceIp => {
            let mut addresses = condition.plain_words();
            addresses.extend(["192.0.2.1", "10.0.0.1", "2001:db8::1"].map(str::to_owned));
            addresses
        }
        Key::CurrentTime => {
            let around = condition.seconds_around().into_iter();
            now.into_iter().chain(around).filter_map(moment).collect()
        }
        Key::EpochTime => {
            let around = condition.seconds_around().into_iter();
            let seconds = now.into_iter().chain(around);
            seconds.map(|second| second.to_string()).collect()
        }
        _ => Vec::new(),
    }
}

fn moment(second: i64) -> Option<String> {
    let moment = jiff::Timestamp::from_second(second).ok()?;
    Some(moment.to_string())
}
