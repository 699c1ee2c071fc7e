//! Canonical JSON as TUF signs it (TUF 1.0 §4.1, [OLPC](http://wiki.laptop.org/go/Canonical_JSON)): one sequence of bytes for
//! each document.
//!
//! Not by olpc-cjson, which stood here: it puts keys in the order of their quoted forms, so that `lamp` comes after
//! `lamp 2`, and brings text into Unicode's form C. securesystemslib and go-tuf do neither; one such name in a repository and
//! nobody's signature over it verified.

use serde_json::Value;

use crate::Error;

/// The bytes that are signed.
///
/// # Errors
/// The document has a number that is none of 64 bits: canonical JSON has no fractions.
pub(crate) fn canonical(value: &Value) -> Result<Vec<u8>, Error> {
    let mut text = String::new();
    write(value, &mut text)?;
    Ok(text.into_bytes())
}

// As deep as the document is, and its reader takes 128 levels at most.
fn write(value: &Value, out: &mut String) -> Result<(), Error> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            out.push_str(&number.to_string());
        }
        Value::Number(number) => {
            return Err(Error::Canonical {
                why: format!("{number} is not an integer of 64 bits"),
            });
        }
        Value::String(text) => quote(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            // By their bytes, which in UTF-8 is by their code points.
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(key, out);
                out.push(':');
                write(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// All as it is, control characters too, but for the two that would end it.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(canonical(value).unwrap()).unwrap()
    }

    /// As securesystemslib's `encode_canonical` writes them.
    #[test]
    fn documents_are_written_as_others_write_them() {
        for (value, canonical) in [
            (
                json!({"lamp 2.bin": 1, "lamp": 2, "lamp!": 3}),
                r#"{"lamp":2,"lamp 2.bin":1,"lamp!":3}"#,
            ),
            (
                json!({"a\"b": 1, "a#b": 2, "a\\b": 3, "a]b": 4}),
                r#"{"a\"b":1,"a#b":2,"a\\b":3,"a]b":4}"#,
            ),
            (json!({"a\tb": 1, "a": 2}), "{\"a\":2,\"a\tb\":1}"),
            (
                json!({"\u{e9}": 1, "z": 2, "\u{1f680}": 3, "\u{ffff}": 4}),
                "{\"z\":2,\"\u{e9}\":1,\"\u{ffff}\":4,\"\u{1f680}\":3}",
            ),
            // Not brought into form C.
            (json!("e\u{301}"), "\"e\u{301}\""),
            (
                json!(["\u{0}\u{1f}\u{7f}\u{2028}/"]),
                "[\"\u{0}\u{1f}\u{7f}\u{2028}/\"]",
            ),
            (
                json!([-5, u64::MAX, i64::MIN, true, false, null, {}, []]),
                "[-5,18446744073709551615,-9223372036854775808,true,false,null,{},[]]",
            ),
        ] {
            assert_eq!(text(&value), canonical);
        }
    }

    #[test]
    fn what_is_no_integer_is_refused() {
        for value in [json!(1.5), json!({"a": [1e30]}), json!(1.0)] {
            assert!(matches!(canonical(&value), Err(Error::Canonical { .. })));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_tells_one_document(keys in proptest::collection::btree_map(".{0,6}", ".{0,6}", 0..6)) {
            // JSON has no raw control characters; all else that is written reads as what it was.
            let plain = |text: &str| !text.chars().any(|c| (c as u32) < 0x20);
            prop_assume!(keys.iter().all(|(key, value)| plain(key) && plain(value)));
            let value = json!(keys);
            let read: Value = serde_json::from_slice(&canonical(&value).unwrap()).unwrap();
            prop_assert_eq!(read, value);
        }
    }
}
