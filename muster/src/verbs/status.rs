//! `muster status`: does the server answer, whose messages does it have to drop, and what must somebody see to?

use super::{client, output};
use crate::cli::Global;
use http::Method;
use serde_json::Value;
use std::process::ExitCode;

pub(super) fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let answer = client(global)?.call(Method::GET, "/muster/v1/status", None)?;
    output::answer(global, &answer, |status| {
        let full = output::items(status, "fullQueues").iter().map(|queue| {
            let count = |key| queue.get(key).and_then(Value::as_u64).unwrap_or(0);
            format!(
                "queue of {} ({}) was full: {} messages dropped, {} wait",
                output::field(queue, "clientId"),
                output::field(queue, "owner"),
                count("dropped"),
                count("waiting")
            )
        });
        let trouble = output::field(status, "issuingKeyTrouble");
        let state = match trouble.is_empty() {
            true => "running".to_owned(),
            false => format!(
                "running, without its issuing key: {trouble}; no certificates are made, and no revocation lists and OCSP answers \
                 but those that are there"
            ),
        };
        let revoked = match output::field(status, "issuingRevoked") {
            "" => None,
            reason => Some(format!(
                "the issuing certificate is revoked ({reason}), and nothing is issued: muster ca rotate-issuing"
            )),
        };
        let mut lines: Vec<String> = std::iter::once(state).chain(revoked).chain(full).collect();
        for one in output::items(status, "ending") {
            let until = one.get("notAfter").and_then(Value::as_f64).unwrap_or(0.0);
            let until = jiff::Timestamp::from_second(until as i64);
            lines.push(format!(
                "{} ends {}: {}",
                output::field(one, "what"),
                until.map(|at| at.to_string()).unwrap_or_default(),
                output::field(one, "mend")
            ));
        }
        lines.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}
