use ::shadow::answer::{Versioned, delta, documents, got, updated};
use ::shadow::document::{Document, Section};
use ::shadow::request::{Change, Update, read_question, read_update};
use serde_json::{Map, Value};

/// Whatever is asked of a shadow is read or refused; what is read makes a document whose metadata has the shape of its
/// state, which has no null in it, which says what the change said, and whose difference is what is left to report.
///
/// The bytes: requests, each on a line, one after the other to one shadow.
pub fn shadow(bytes: &[u8]) {
    let mut document = Document::default();
    for (at, request) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let _ = ::shadow::topic::read(&String::from_utf8_lossy(request));
        let _ = read_question(request);
        let (token, Ok(update)) = read_update(request) else {
            continue;
        };
        let after = document.after(&update, at);
        for (section, before, change) in [
            (&after.desired, &document.desired, &update.desired),
            (&after.reported, &document.reported, &update.reported),
        ] {
            hold(section);
            said(section, before, change, update.clear);
        }
        assert_eq!(
            after.after(&update, at),
            after,
            "said again it changes nothing"
        );
        let mut done = after.clone();
        let rest = done.delta();
        hold(&rest);
        let report = Update {
            reported: Change::Merge(rest.state),
            ..Update::default()
        };
        done = done.after(&report, at);
        assert!(done.delta().state.is_empty());
        tell(&document, &after, &update, at, token.as_deref());
        if after.fits() {
            document = after;
        }
    }
}

fn tell(before: &Document, after: &Document, update: &Update, at: u64, token: Option<&str>) {
    let shadow = |document, version| Versioned { document, version };
    let now = shadow(after, at);
    let mut told = vec![
        got(now, at, token),
        updated(update, at, at, token),
        documents(Some(shadow(before, at - 1)), now, at, token),
    ];
    let different = delta(now, at, token);
    assert_eq!(different.is_some(), !after.delta().state.is_empty());
    told.extend(different);
    for text in told {
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value.get("clientToken").and_then(Value::as_str), token);
    }
}

fn said(section: &Section, before: &Section, change: &Change, cleared: bool) {
    match change {
        Change::None if cleared => assert_eq!(*section, Section::default()),
        Change::None => assert_eq!(section, before),
        Change::Clear => assert_eq!(*section, Section::default()),
        Change::Merge(patch) => assert!(says(&section.state, patch)),
    }
}

fn says(state: &Map<String, Value>, patch: &Map<String, Value>) -> bool {
    patch
        .iter()
        .all(|(name, wanted)| match (wanted, state.get(name)) {
            (Value::Null, is) => is.is_none(),
            (Value::Object(wanted), Some(Value::Object(is))) => says(is, wanted),
            // Nulls of objects within arrays are left out.
            (Value::Array(_), Some(Value::Array(_))) => true,
            (wanted, is) => is == Some(wanted),
        })
}

fn hold(section: &Section) {
    let state = Value::Object(section.state.clone());
    let metadata = Value::Object(section.metadata.clone());
    alike(&state, &metadata);
}

fn alike(state: &Value, metadata: &Value) {
    match (state, metadata) {
        (Value::Object(state), Value::Object(metadata)) => {
            assert_eq!(state.len(), metadata.len());
            for (name, value) in state {
                alike(value, &metadata[name]);
            }
        }
        (Value::Array(state), Value::Array(metadata)) => {
            assert_eq!(state.len(), metadata.len());
            for (value, metadata) in state.iter().zip(metadata) {
                alike(value, metadata);
            }
        }
        (value, stamp) => {
            assert!(
                !value.is_null() && stamp["timestamp"].is_u64(),
                "{value} {stamp}"
            );
        }
    }
}
