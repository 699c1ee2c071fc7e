//! `muster audit …`.

use super::{client, output};
use crate::cli::{Audit, Global};
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Exit code of a run that found something.
const FOUND: u8 = 3;

pub(super) fn run(global: &Global, verb: Audit) -> anyhow::Result<ExitCode> {
    match verb {
        Audit::List => {
            let checks = client(global)?.call(Method::GET, "/muster/v1/audit/checks", None)?;
            let rows: Vec<Vec<String>> = output::items(&checks, "checks")
                .iter()
                .map(|check| {
                    let field = |key| output::field(check, key).to_owned();
                    vec![field("name"), field("description")]
                })
                .collect();
            output::answer(global, &checks, |_| {
                output::table(&["check", "what it looks at"], &rows)
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Audit::Run { checks } => {
            let body = json!({ "checks": checks });
            let report = client(global)?.call(Method::POST, "/muster/v1/audit", Some(&body))?;
            output::answer(global, &report, described)?;
            let clean = output::items(&report, "checks")
                .iter()
                .all(|check| output::items(check, "findings").is_empty());
            Ok(if clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FOUND)
            })
        }
    }
}

fn described(report: &Value) -> String {
    let mut lines = Vec::new();
    for check in output::items(report, "checks") {
        let count = |key: &str| check.get(key).and_then(Value::as_u64).unwrap_or(0);
        let findings = output::items(check, "findings");
        let found = findings.len() as u64 + count("unlisted");
        lines.push(format!(
            "{}: {} examined, {}",
            output::field(check, "name"),
            count("examined"),
            if found == 0 {
                "no finding".to_owned()
            } else {
                format!("{found} findings")
            }
        ));
        for finding in findings {
            lines.push(format!(
                "  {} {}: {}; {}",
                output::field(finding, "severity"),
                output::field(finding, "resource"),
                output::field(finding, "reason"),
                output::field(finding, "mend")
            ));
        }
    }
    lines.join("\n")
}
