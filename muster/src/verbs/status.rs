//! `muster status`: does the server answer, and whose messages does it have to drop?

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
        let lines: Vec<String> = std::iter::once("running".to_owned()).chain(full).collect();
        lines.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}
