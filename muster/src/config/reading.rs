//! Reads the configuration file, whole or not at all, and says of a value that is not taken which it is, where, and what
//! is.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use toml::de::{DeTable, DeValue};

use super::file::File;

/// The longest value that is said again.
const SHOWN_CHARS: usize = 80;

/// What stands there.
pub(super) fn read(path: &Path) -> anyhow::Result<File> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("read configuration file {}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(at);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        anyhow!(
            "configuration file {}, line {line} (byte {at}): not UTF-8; save the file as UTF-8",
            path.display()
        )
    })?;
    toml::from_str(&text).map_err(|error| {
        let file = path.display();
        match explained(&text, &error) {
            Some(said) => anyhow!("configuration file {file}, {said}"),
            None => anyhow!("configuration file {file}: {error}"),
        }
    })
}

/// The line, the key, the value and the mend; `None` for what is not TOML at all, of which the parser says more.
fn explained(text: &str, error: &toml::de::Error) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let span = error.span()?;
    let line = text.get(..span.start)?.matches('\n').count() + 1;
    let (mut key, is_value) = key_at(document.get_ref(), &span).unwrap_or_default();
    let mend = mend(&key, error.message());
    let value = text
        .get(span)
        .filter(|value| is_value && !value.contains('\n') && value.chars().count() <= SHOWN_CHARS);
    if let Some(value) = value {
        key = format!("{key} = {value}");
    }
    let colon = if key.is_empty() { "" } else { ": " };
    Some(format!("line {line}: {key}{colon}{mend}"))
}

/// The key in whose value the place is, with the tables it is in; and whether the place is a value, not a table's name.
fn key_at(table: &DeTable<'_>, place: &Range<usize>) -> Option<(String, bool)> {
    let inside = |outer: Range<usize>| outer.start <= place.start && place.end <= outer.end;
    for (key, value) in table {
        let name = key.get_ref();
        if let DeValue::Table(inner) = value.get_ref() {
            if let Some((rest, is_value)) = key_at(inner, place) {
                return Some((format!("{name}.{rest}"), is_value));
            }
            // Of a table the span is its header's, and what is unknown in it stands below.
            let unknown = inner.keys().any(|key| inside(key.span()));
            if unknown || inside(value.span()) {
                return Some((name.to_string(), false));
            }
        } else if inside(value.span()) {
            return Some((name.to_string(), true));
        }
    }
    None
}

/// What the parser says, in words that are not the program's own.
fn mend(key: &str, message: &str) -> String {
    let least = usize::from(key.starts_with("limits."));
    let expected = message
        .rsplit_once("expected ")
        .map(|(_, expected)| expected);
    match expected {
        Some("u16") => format!("write a whole number, {least} to {}", u16::MAX),
        Some("u32" | "u64" | "usize") => format!("write a whole number, {least} or more"),
        Some("a boolean") => "write true or false".to_owned(),
        Some("a sequence") => "write a list: [\"one\", \"another\"]".to_owned(),
        Some("a string") => "write text in quotes".to_owned(),
        Some("path string") => "write a path in quotes".to_owned(),
        Some("socket address") => address(),
        Some(expected) if expected.starts_with("struct ") || expected == "a map" => {
            format!("write a table: [{key}], and its keys below")
        }
        _ if message == "invalid socket address syntax" => address(),
        _ => message.to_owned(),
    }
}

fn address() -> String {
    "write an address and a port in quotes: \"127.0.0.1:8883\", \"[::]:8883\"; a port is 0 (any that is free) to 65535"
        .to_owned()
}
