//! `muster log …`.

use super::{client, output};
use crate::{
    cli::{Global, Log, LogShow},
    client::{Client, encode},
};
use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Exit code of a verification that found something.
const FOUND: u8 = 3;
/// The same where nothing can be said of the head that was noted.
const UNKNOWN: u8 = 4;
/// Most entries of a page.
const PAGE_ITEMS: usize = 250;

pub(super) fn run(global: &Global, verb: Log) -> anyhow::Result<ExitCode> {
    match verb {
        Log::Show(which) => {
            let entries = entries(&client(global)?, &which)?;
            let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
            output::answer(global, &json!({ "entries": entries }), |_| {
                output::table(
                    &[
                        "when",
                        "who",
                        "from",
                        "operation",
                        "what",
                        "device",
                        "details",
                    ],
                    &rows,
                )
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Log::Verify { head } => verify(global, head.as_deref()),
    }
}

fn entries(client: &Client, which: &LogShow) -> anyhow::Result<Vec<Value>> {
    let mut query = String::new();
    let fields = [
        ("operator", &which.operator),
        ("device", &which.device),
        ("certificate", &which.certificate),
        ("operation", &which.operation),
        ("outcome", &which.outcome),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    for (name, value) in [("since", &which.since), ("until", &which.until)] {
        if let Some(text) = value {
            let moment = moment(name, text)?;
            query.push_str(&format!("&{name}={}", encode(&moment.to_string())));
        }
    }
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let left = match which.limit {
            0 => PAGE_ITEMS,
            limit => (limit - all.len()).min(PAGE_ITEMS),
        };
        let token = next.map(|token| format!("&nextToken={}", encode(&token)));
        let path = format!(
            "/muster/v1/log?maxResults={left}{query}{}",
            token.unwrap_or_default()
        );
        let page = client.call(Method::GET, &path, None)?;
        all.extend(output::items(&page, "entries").iter().cloned());
        next = page
            .get("nextToken")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if next.is_none() || (which.limit > 0 && all.len() >= which.limit) {
            return Ok(all);
        }
    }
}

/// A moment, or one so long ago.
fn moment(flag: &str, text: &str) -> anyhow::Result<jiff::Timestamp> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let words =
        || format!("--{flag} {text:?}: write it as 2027-01-31T12:00:00Z, or how long ago, as 24h");
    let ago: jiff::SignedDuration = text.parse().with_context(words)?;
    jiff::Timestamp::now().checked_sub(ago).with_context(words)
}

fn row(entry: &Value) -> Vec<String> {
    let field = |key| output::field(entry, key);
    let at = entry.get("at").and_then(Value::as_f64).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, reason = "seconds of this era fit")]
    let at = jiff::Timestamp::from_second(at as i64);
    let who = match (field("by"), field("name")) {
        ("operator", name) => name.to_owned(),
        (by, "") => by.to_owned(),
        (by, name) => format!("{by} {}", short(name)),
    };
    let what = match field("outcome") {
        "done" => field("what").to_owned(),
        outcome => format!("{outcome} ({})", field("code")),
    };
    vec![
        at.map(|at| at.to_string()).unwrap_or_default(),
        who,
        field("address").to_owned(),
        field("operation").to_owned(),
        what,
        field("thingName").to_owned(),
        details(entry),
    ]
}

/// What else is to be told of an entry.
fn details(entry: &Value) -> String {
    let mut details = Vec::new();
    for (key, word) in [
        ("serialNumber", "serial"),
        ("reason", "reason"),
        ("way", "by"),
    ] {
        let value = output::field(entry, key);
        if !value.is_empty() {
            details.push(format!("{word} {value}"));
        }
    }
    let certificate = output::field(entry, "certificateId");
    if !certificate.is_empty() {
        details.push(format!("certificate {}", short(certificate)));
    }
    let targets = entry.get("targets").and_then(Value::as_object);
    for (name, value) in targets.into_iter().flatten() {
        let value = value.as_str().unwrap_or("");
        let told = [
            output::field(entry, "thingName"),
            certificate,
            output::field(entry, "reason"),
        ];
        if !told.contains(&value) {
            details.push(format!("{name} {value}"));
        }
    }
    let left_out = entry.get("leftOut").and_then(Value::as_u64).unwrap_or(0);
    if left_out > 0 {
        details.push(format!("and {left_out} before it that are not recorded"));
    }
    details.join(", ")
}

/// The beginning of a long identifier; `--json` has the whole.
fn short(id: &str) -> &str {
    let is_long = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_long {
        id.get(..12).unwrap_or(id)
    } else {
        id
    }
}

fn verify(global: &Global, head: Option<&str>) -> anyhow::Result<ExitCode> {
    let query = match head {
        None => String::new(),
        Some(head) => {
            let parts = head.split_once(':').filter(|(number, hash)| {
                number.parse::<u64>().is_ok()
                    && hash.len() == 64
                    && hash.bytes().all(|b| b.is_ascii_hexdigit())
            });
            let (number, hash) = parts.with_context(|| {
                format!("--head {head:?}: write it as `log verify` has printed it, NUMBER:HASH")
            })?;
            format!("?upto={number}&hash={}", hash.to_ascii_lowercase())
        }
    };
    let path = format!("/muster/v1/log/verification{query}");
    let found = client(global)?.call(Method::GET, &path, None)?;
    output::answer(global, &found, described)?;
    Ok(if !output::items(&found, "wrong").is_empty() {
        ExitCode::from(FOUND)
    } else if found.get("unknown").is_some() {
        ExitCode::from(UNKNOWN)
    } else {
        ExitCode::SUCCESS
    })
}

fn described(found: &Value) -> String {
    let number = |key: &str| found.get(key).and_then(Value::as_u64).unwrap_or(0);
    let wrong = output::items(found, "wrong");
    let mut lines: Vec<String> = wrong
        .iter()
        .filter_map(Value::as_str)
        .map(|text| format!("WRONG: {text}"))
        .collect();
    let unknown = output::field(found, "unknown");
    if !unknown.is_empty() {
        lines.push(format!("NOT KNOWN: {unknown}"));
    }
    if wrong.is_empty() {
        lines.push(format!(
            "{} entries, all as they were written",
            number("entries")
        ));
    }
    // The chain follows the entries by a second: until then nothing would tell that one was changed.
    match number("unchained") {
        0 => {}
        unchained => lines.push(format!(
            "{unchained} of them are not in the chain yet; say it again in a second"
        )),
    }
    let from = number("from");
    if from > 0 {
        lines.push(format!("those before number {from} were past what is kept"));
    }
    lines.push(format!(
        "head {}:{} (note it elsewhere, and say it with --head)",
        number("upto"),
        output::field(found, "hash")
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{described, moment, row};
    use serde_json::json;

    #[test]
    fn what_the_chain_does_not_hold_yet_is_said() {
        let verified = |unchained: u64| {
            described(&json!({
                "entries": 8, "wrong": [], "from": 0, "upto": 8 - unchained, "hash": "00", "unchained": unchained,
            }))
        };
        assert!(verified(3).contains("3 of them are not in the chain yet"));
        assert!(!verified(0).contains("not in the chain"));
    }

    #[test]
    fn a_moment_is_one_or_so_long_ago() {
        assert!(moment("since", "2027-01-31T12:00:00Z").is_ok());
        assert!(moment("since", "24h").unwrap() < jiff::Timestamp::now());
        let said = moment("since", "yesterday").unwrap_err().to_string();
        assert!(
            said.contains("--since \"yesterday\"") && said.contains("24h"),
            "{said}"
        );
    }

    #[test]
    fn an_entry_is_a_row() {
        let entry = json!({
            "at": 0.5, "by": "operator", "name": "admin", "address": "::1", "operation": "RevokeDevice",
            "what": "revoked", "outcome": "done", "thingName": "lamp", "serialNumber": "0a",
            "reason": "keyCompromise", "targets": {"thingName": "lamp", "reason": "keyCompromise", "x": "y"},
        });
        assert_eq!(
            row(&entry),
            [
                "1970-01-01T00:00:00Z",
                "admin",
                "::1",
                "RevokeDevice",
                "revoked",
                "lamp",
                "serial 0a, reason keyCompromise, x y",
            ]
        );
        let denied = json!({"by": "stranger", "outcome": "denied", "what": "changed", "code": "AccessDenied"});
        assert_eq!(row(&denied)[4], "denied (AccessDenied)");
    }
}
