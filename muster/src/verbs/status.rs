//! `muster status`: does the server answer?

use super::{client, output};
use crate::cli::Global;
use http::Method;
use std::process::ExitCode;

pub(super) fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let answer = client(global)?.call(Method::GET, "/muster/v1/status", None)?;
    output::answer(global, &answer, |_| "running".to_owned())?;
    Ok(ExitCode::SUCCESS)
}
