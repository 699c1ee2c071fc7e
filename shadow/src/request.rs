//! What is asked of a shadow, read and held to AWS's bounds.

use serde_json::{Map, Value};

/// Longest request, in bytes.
pub const REQUEST_MAX_BYTES: usize = 32 * 1024;
/// Longest client token, in bytes.
const TOKEN_MAX_BYTES: usize = 64;
/// Most keys on the way to a value within `desired` or `reported`.
const LEVELS_MAX: usize = 6;
/// Of a request that is not looked at, the payload up to this is read for the token.
const TOKEN_READ_BYTES: usize = 1024;

/// Why a request is refused; with AWS's code and words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No JSON object.
    #[error("Invalid JSON")]
    Json,
    /// There is no `state`.
    #[error("Missing required node: state")]
    NoState,
    /// `state` is something else than an object or null.
    #[error("State node must be an object")]
    State,
    /// So is `desired`.
    #[error("Desired node must be an object")]
    Desired,
    /// So is `reported`.
    #[error("Reported node must be an object")]
    Reported,
    /// There is more in `state`.
    #[error("State contains an invalid node: '{0}'")]
    Node(String),
    /// In an array nothing can be deleted.
    #[error("State contains an invalid node: null in an array")]
    NullInArray,
    /// `version` is no number of an update.
    #[error("Invalid version")]
    Version,
    /// `clientToken` is no text of up to 64 bytes.
    #[error("Invalid clientToken")]
    Token,
    /// Too deep.
    #[error("JSON contains too many levels of nesting; maximum is {LEVELS_MAX}")]
    Depth,
    /// The thing has as many named shadows as it may.
    #[error("the thing has {0} named shadows, as many as it may: delete one")]
    Named(usize),
    /// Nobody may ask for it.
    #[error("Forbidden")]
    Forbidden,
    /// There is no such thing.
    #[error("Thing not found")]
    NoThing,
    /// There is no such shadow.
    #[error("No shadow exists with name: '{0}'")]
    NoShadow(String),
    /// It has changed since.
    #[error("Version conflict")]
    Conflict,
    /// The request, or what would come of it, is too long.
    #[error("The payload exceeds the maximum size allowed")]
    TooLarge,
    /// Not UTF-8.
    #[error("Unsupported documented encoding; supported encoding is UTF-8")]
    Encoding,
    /// Too many requests.
    #[error("{0}")]
    Throttled(String),
    /// The server's own fault.
    #[error("Internal service failure")]
    Internal,
}

impl Rejection {
    /// AWS's code: an HTTP status.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Json
            | Self::NoState
            | Self::State
            | Self::Desired
            | Self::Reported
            | Self::Node(_)
            | Self::NullInArray
            | Self::Version
            | Self::Token
            | Self::Depth
            | Self::Named(_) => 400,
            Self::Forbidden => 403,
            Self::NoThing | Self::NoShadow(_) => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Encoding => 415,
            Self::Throttled(_) => 429,
            Self::Internal => 500,
        }
    }
}

/// What is to become of a section.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Change {
    /// Nothing.
    #[default]
    None,
    /// It goes.
    Clear,
    /// This is merged into it.
    Merge(Map<String, Value>),
}

/// A change of a shadow.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    /// Whether the whole state goes, and nothing else is said.
    pub clear: bool,
    /// What is to become of `desired`.
    pub desired: Change,
    /// What is to become of `reported`.
    pub reported: Change,
    /// The version it must have for that.
    pub version: Option<u64>,
}

/// The object that a payload is, with its token; of one that is refused the token too, as far as it can be read.
fn object(payload: &[u8]) -> (Option<String>, Result<Map<String, Value>, Rejection>) {
    if payload.len() > REQUEST_MAX_BYTES {
        return (None, Err(Rejection::TooLarge));
    }
    let Ok(text) = std::str::from_utf8(payload) else {
        return (None, Err(Rejection::Encoding));
    };
    let Ok(Value::Object(object)) = serde_json::from_str(text) else {
        return (None, Err(Rejection::Json));
    };
    match object.get("clientToken") {
        None => (None, Ok(object)),
        Some(Value::String(token)) if token.len() <= TOKEN_MAX_BYTES => {
            (Some(token.clone()), Ok(object))
        }
        Some(_) => (None, Err(Rejection::Token)),
    }
}

/// The token of a request that is not looked at further.
#[must_use]
pub fn token(payload: &[u8]) -> Option<String> {
    if payload.len() > TOKEN_READ_BYTES {
        return None;
    }
    object(payload).0
}

/// Reads what asks for a shadow, or for its end: nothing, or an object with a token and, for its end, a version.
pub fn read_question(payload: &[u8]) -> (Option<String>, Result<Option<u64>, Rejection>) {
    if payload.is_empty() {
        return (None, Ok(None));
    }
    let (token, object) = object(payload);
    (token, object.and_then(|object| version(&object)))
}

/// Reads a change.
pub fn read_update(payload: &[u8]) -> (Option<String>, Result<Update, Rejection>) {
    let (token, object) = object(payload);
    (token, object.and_then(update))
}

fn version(object: &Map<String, Value>) -> Result<Option<u64>, Rejection> {
    match object.get("version") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(Rejection::Version),
    }
}

fn update(mut object: Map<String, Value>) -> Result<Update, Rejection> {
    let version = version(&object)?;
    let state = match object.remove("state") {
        None => return Err(Rejection::NoState),
        Some(Value::Null) => {
            return Ok(Update {
                clear: true,
                version,
                ..Update::default()
            });
        }
        Some(Value::Object(state)) => state,
        Some(_) => return Err(Rejection::State),
    };
    let mut update = Update {
        version,
        ..Update::default()
    };
    for (name, section) in state {
        let (change, wrong) = match name.as_str() {
            "desired" => (&mut update.desired, Rejection::Desired),
            "reported" => (&mut update.reported, Rejection::Reported),
            _ => return Err(Rejection::Node(name.chars().take(64).collect())),
        };
        *change = match section {
            Value::Null => Change::Clear,
            Value::Object(section) => {
                check_object(&section, LEVELS_MAX)?;
                Change::Merge(section)
            }
            _ => return Err(wrong),
        };
    }
    Ok(update)
}

/// Whether no value lies deeper than so many keys, and no null in an array.
fn check(value: &Value, levels: usize, in_array: bool) -> Result<(), Rejection> {
    match value {
        Value::Null if in_array => Err(Rejection::NullInArray),
        Value::Object(object) => check_object(object, levels),
        Value::Array(array) => array.iter().try_for_each(|one| check(one, levels, true)),
        _ => Ok(()),
    }
}

fn check_object(object: &Map<String, Value>, levels: usize) -> Result<(), Rejection> {
    let within = || levels.checked_sub(1).ok_or(Rejection::Depth);
    object
        .values()
        .try_for_each(|one| check(one, within()?, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Update, Rejection> {
        read_update(value.to_string().as_bytes()).1
    }

    #[test]
    fn each_refusal_has_its_words() {
        let long = "x".repeat(65);
        let deep = json!({"1": {"2": {"3": {"4": {"5": {"6": {"7": 1}}}}}}});
        for (body, code, words) in [
            (json!([]), 400, "Invalid JSON"),
            (json!({}), 400, "Missing required node: state"),
            (json!({"state": 1}), 400, "State node must be an object"),
            (
                json!({"state": {"desired": []}}),
                400,
                "Desired node must be an object",
            ),
            (
                json!({"state": {"reported": "x"}}),
                400,
                "Reported node must be an object",
            ),
            (
                json!({"state": {"other": {}}}),
                400,
                "State contains an invalid node: 'other'",
            ),
            (json!({"state": {}, "version": "1"}), 400, "Invalid version"),
            (json!({"state": {}, "version": -1}), 400, "Invalid version"),
            (
                json!({"state": {}, "clientToken": long}),
                400,
                "Invalid clientToken",
            ),
            (
                json!({"state": {}, "clientToken": 1}),
                400,
                "Invalid clientToken",
            ),
            (
                json!({"state": {"desired": deep}}),
                400,
                "JSON contains too many levels of nesting; maximum is 6",
            ),
            (
                json!({"state": {"desired": {"a": [1, [null]]}}}),
                400,
                "State contains an invalid node: null in an array",
            ),
        ] {
            let refused = read(&body).unwrap_err();
            assert_eq!(
                (refused.code(), refused.to_string().as_str()),
                (code, words)
            );
        }
        let refused = |payload: &[u8]| read_update(payload).1.unwrap_err().code();
        assert_eq!(refused(b"{"), 400);
        assert_eq!(refused(b"\xff{}"), 415);
        assert_eq!(refused(&vec![b' '; REQUEST_MAX_BYTES + 1]), 413);
        assert_eq!(refused("[".repeat(20_000).as_bytes()), 400);
    }

    #[test]
    fn what_is_right_is_read() {
        let deep =
            json!({"1": {"2": {"3": {"4": {"5": {"6": {}}}}}}, "a": [{"b": [1]}], "n": null});
        let text = json!({"state": {"desired": deep, "reported": null}, "version": 7, "clientToken": "t", "more": 1});
        let (token, update) = read_update(text.to_string().as_bytes());
        let update = update.unwrap();
        assert_eq!((token.as_deref(), update.version), (Some("t"), Some(7)));
        assert_eq!(update.reported, Change::Clear);
        assert_eq!(
            update.desired,
            Change::Merge(deep.as_object().unwrap().clone())
        );
        assert!(read(&json!({"state": null})).unwrap().clear);
        assert_eq!(read_question(b""), (None, Ok(None)));
        assert_eq!(
            read_question(br#"{"clientToken":"t","version":3}"#),
            (Some("t".into()), Ok(Some(3)))
        );
        assert_eq!(read_question(b"[]").1, Err(Rejection::Json));
        // Of what is refused the token is told, too.
        let (token, update) = read_update(br#"{"clientToken":"t"}"#);
        assert_eq!(
            (token.as_deref(), update),
            (Some("t"), Err(Rejection::NoState))
        );
        assert_eq!(
            super::token(br#"{"clientToken":"t"}"#).as_deref(),
            Some("t")
        );
    }
}
