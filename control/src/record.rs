//! What operators do and try, on the record: with the change itself where the registry is changed, else before the answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use fleet::{Acting, Deed, Doer, Outcome, What};
use parking_lot::Mutex;
use serde_json::Value;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::auth::Caller;
use crate::call::Call;
use crate::peer::Peer;
use crate::rooms::Rooms;

/// Entries an hour about strangers who were denied: anybody can cause them, and old entries go for new ones.
const STRANGERS_PER_HOUR: u32 = 60;
/// Entries an hour about one operator who was denied or refused: what one has tried hides nothing of another.
const REFUSED_PER_HOUR: u32 = 600;
/// Characters of a target that are recorded.
const TARGET_MAX_CHARS: usize = 256;
/// Names of a list that are recorded.
const NAMED_ITEMS: usize = 5;

/// Fields of bodies, and headers, that say what an operation is about. Others are not recorded: there are documents,
/// attributes and secrets among them.
const NAMING: &[&str] = &[
    "attested",
    "caCertificateId",
    "certificateArn",
    "certificateId",
    "certificateIds",
    "command",
    "comment",
    "days",
    "defaultVersionId",
    "device",
    "dryRun",
    "enabled",
    "group",
    "groupName",
    "id",
    "indexName",
    "inputFileBucket",
    "inputFileKey",
    "jobId",
    "kind",
    "measure",
    "name",
    "number",
    "parentGroupName",
    "policyName",
    "quarantined",
    "queryString",
    "ranges",
    "reason",
    "resourceArn",
    "role",
    "root",
    "setAsActive",
    "setAsDefault",
    "status",
    "tagKeys",
    "target",
    "targets",
    "templateName",
    "thing",
    "thingArn",
    "thingGroupArn",
    "thingGroupName",
    "thingGroupsToAdd",
    "thingGroupsToRemove",
    "thingName",
    "thingTypeName",
    "topic",
    "uses",
    "validSeconds",
    "version",
];
/// Headers that name a principal or a policy.
const NAMING_HEADERS: &[(&str, &str)] = &[
    ("x-amzn-principal", "principal"),
    ("x-amzn-iot-principal", "principal"),
    ("x-amzn-iot-policy", "policyName"),
];

/// How many entries of a kind there may be in an hour about each whom they are of.
#[derive(Debug)]
pub(crate) struct Quota {
    per_hour: u32,
    of_each: Mutex<BTreeMap<String, Spent>>,
}

#[derive(Debug, Default)]
struct Spent {
    hour: u64,
    entries: u32,
    left_out: u64,
}

impl Quota {
    const fn new(per_hour: u32) -> Self {
        Self {
            per_hour,
            of_each: Mutex::new(BTreeMap::new()),
        }
    }

    /// One entry about somebody, with how many were left out before it; `None` where this one is.
    fn take(&self, whose: &str, now: SystemTime) -> Option<u64> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let hour = since.map_or(0, |since| since.as_secs() / 3600);
        let mut of_each = self.of_each.lock();
        if !of_each.contains_key(whose) {
            // Operators come and go: of who is quiet and was told of nothing is to be remembered.
            of_each.retain(|_, spent| spent.hour == hour || spent.left_out > 0);
        }
        let spent = of_each.entry(whose.to_owned()).or_default();
        if spent.hour != hour {
            spent.hour = hour;
            spent.entries = 0;
        }
        if spent.entries >= self.per_hour {
            spent.left_out += 1;
            return None;
        }
        spent.entries += 1;
        Some(std::mem::take(&mut spent.left_out))
    }
}

/// Bounds on entries that tell of no change.
#[derive(Debug)]
pub(crate) struct Quotas {
    strangers: Quota,
    refused: Quota,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            strangers: Quota::new(STRANGERS_PER_HOUR),
            refused: Quota::new(REFUSED_PER_HOUR),
        }
    }
}

/// Runs an operation as its caller's hand.
pub(crate) fn recorded(
    rooms: &Rooms,
    call: &Call,
    peer: &Peer,
    run: impl FnOnce(&Rooms) -> Result<Answer, ApiError>,
) -> Result<Answer, ApiError> {
    if !call.operation.changes() {
        return run(rooms);
    }
    let name = call.caller.operator.name.to_string();
    let acting = Acting::new(Doer::Operator, Some(name), call.operation.name, call.now)
        .from(peer.address.ip())
        .about(targets(call));
    let acting = Arc::new(acting);
    let theirs = Rooms {
        fleet: rooms.fleet.acting(Arc::clone(&acting)),
        ..rooms.clone()
    };
    settle(rooms, &acting, run(&theirs))
}

/// Records what came of an operation of a data plane, as its caller asked for it: blocks on the disk.
pub(crate) fn asked<T>(
    rooms: &Rooms,
    caller: &Caller,
    operation: &str,
    peer: &Peer,
    about: &[(String, String)],
    done: Result<T, ApiError>,
) -> Result<T, ApiError> {
    let shown = |text: &String| text.chars().take(TARGET_MAX_CHARS).collect();
    let about = about
        .iter()
        .map(|(name, value)| (name.clone(), shown(value)));
    let name = caller.operator.name.to_string();
    let acting = Acting::new(Doer::Operator, Some(name), operation, SystemTime::now())
        .from(peer.address.ip())
        .about(about.collect());
    settle(rooms, &acting, done)
}

/// Notes what is not on the record yet.
fn settle<T>(rooms: &Rooms, acting: &Acting, done: Result<T, ApiError>) -> Result<T, ApiError> {
    match done {
        Ok(answer) if acting.is_recorded() => Ok(answer),
        Ok(answer) => {
            let deed = acting.deed(What::Changed, Outcome::Done);
            rooms.fleet.note_deed(&deed).map(|()| answer).map_err(|error| {
                tracing::error!(%error, operation = deed.operation, "what was done is not on the record");
                ApiError::unavailable("It was done, and could not be recorded: the server's log says why.")
            })
        }
        Err(refusal) => {
            let deed = acting.deed(What::Changed, Outcome::Refused);
            let whose = deed.name.as_deref().unwrap_or_default();
            if let Some(left_out) = rooms.quotas.refused.take(whose, deed.moment()) {
                let code = Some(refusal.code.to_owned());
                note(
                    rooms,
                    Deed {
                        code,
                        left_out,
                        ..deed
                    },
                );
            }
            Err(refusal)
        }
    }
}

/// Records that somebody may not do what they asked for: an operator, or whoever has not shown to be one.
pub(crate) fn denied(
    rooms: &Rooms,
    operator: Option<String>,
    operation: &str,
    peer: &Peer,
    code: &str,
) {
    let now = SystemTime::now();
    let (by, quota) = match operator {
        Some(_) => (Doer::Operator, &rooms.quotas.refused),
        None => (Doer::Stranger, &rooms.quotas.strangers),
    };
    if let Some(left_out) = quota.take(operator.as_deref().unwrap_or_default(), now) {
        let acting = Acting::new(by, operator, operation, now).from(peer.address.ip());
        note(
            rooms,
            Deed {
                code: Some(code.to_owned()),
                left_out,
                ..acting.deed(What::Changed, Outcome::Denied)
            },
        );
    }
}

/// Nothing has changed, so nothing that was acknowledged is lost where this fails.
fn note(rooms: &Rooms, deed: Deed) {
    if let Err(error) = rooms.fleet.note_deed(&deed) {
        tracing::error!(%error, operation = deed.operation, "a refusal is not on the record");
    }
}

/// What a request is about.
fn targets(call: &Call) -> BTreeMap<String, String> {
    let mut targets = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        let shown: String = value.chars().take(TARGET_MAX_CHARS).collect();
        targets.insert(name.to_owned(), shown);
    };
    if let Ok(Value::Object(fields)) = serde_json::from_slice(&call.body) {
        for (name, value) in fields.iter().filter(|(name, _)| is_naming(name)) {
            if let Some(text) = text_of(value) {
                put(name, &text);
            }
        }
    }
    for (header, name) in NAMING_HEADERS {
        if let Some(value) = call.headers.get(*header).and_then(|v| v.to_str().ok()) {
            put(name, value);
        }
    }
    // Bounded by what the operation declares, and none of it is secret: it stands in access logs elsewhere, too.
    for (name, value) in call.query.iter().chain(&call.path) {
        put(name, value);
    }
    targets
}

fn is_naming(field: &str) -> bool {
    NAMING.binary_search(&field).is_ok()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            let mut names: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            let all = names.len();
            names.truncate(NAMED_ITEMS);
            let rest = if all > NAMED_ITEMS {
                format!(" and {} more", all - NAMED_ITEMS)
            } else {
                String::new()
            };
            (!names.is_empty()).then(|| format!("{}{rest}", names.join(", ")))
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::{NAMING, Quota, is_naming, text_of};

    #[test]
    fn what_could_be_secret_names_nothing() {
        assert!(NAMING.is_sorted());
        for field in ["thingName", "reason", "certificateIds"] {
            assert!(is_naming(field));
        }
        for field in [
            "passphrase",
            "password",
            "privateKey",
            "issuingKey",
            "policyDocument",
            "certificateSigningRequest",
            "attributes",
            "templateBody",
        ] {
            assert!(!is_naming(field), "{field}");
        }
    }

    #[test]
    fn long_lists_are_told_by_their_first_names() {
        assert_eq!(text_of(&json!(["a", "b"])).unwrap(), "a, b");
        let many = json!(["1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(text_of(&many).unwrap(), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!(text_of(&json!(true)).unwrap(), "true");
        assert_eq!(text_of(&json!({"a": 1})), None);
    }

    #[test]
    fn what_is_left_out_is_told_with_the_next_entry() {
        let quota = Quota::new(2);
        let at = |hour: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600);
        assert_eq!(quota.take("vi", at(5)), Some(0));
        assert_eq!(quota.take("vi", at(5)), Some(0));
        assert_eq!(quota.take("vi", at(5)), None);
        assert_eq!(quota.take("vi", at(5)), None);
        assert_eq!(quota.take("eve", at(5)), Some(0));
        assert_eq!(quota.take("ann", at(6)), Some(0));
        assert_eq!(quota.take("vi", at(6)), Some(2));
        assert_eq!(quota.take("vi", at(6)), Some(0));
    }
}
