//! The registry at the size it is promised for: a program that fills a data directory with devices, and measures what
//! the rooms below the broker do with it. Every figure is printed as JSON; `tests/measure.py` judges.
//! Neighbours: `fleet` and what it stands on, with the code that the server runs.

mod authority;
mod bare;
mod client;
mod cpu;
mod felt;
mod fill;
mod house;
mod judged;
mod recorded;
mod registry;

use anyhow::{Context as _, bail};
use std::{io::Write as _, path::Path, process::ExitCode};

const USAGE: &str = "muster-scale fill DATA THINGS
muster-scale open DATA
muster-scale pack DATA
muster-scale lookup DATA THINGS COUNT
muster-scale pages DATA THINGS
muster-scale search DATA THINGS
muster-scale issue DATA COUNT AT_ONCE
muster-scale revoke DATA COUNT
muster-scale lists DATA THINGS
muster-scale ocsp DATA THINGS COUNT
muster-scale bare DATA
muster-scale felt DATA SESSIONS [WAY]
muster-scale judged DATA PRINCIPALS
muster-scale record DATA THINGS EACH";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments).and_then(|said| Ok(writeln!(std::io::stdout(), "{said}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "muster-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    match arguments {
        ["fill", data, things] => fill::fill(Path::new(data), number(things)?),
        ["open", data] => registry::open(Path::new(data)),
        ["pack", data] => registry::pack(Path::new(data)),
        ["lookup", data, things, count] => {
            registry::lookup(Path::new(data), number(things)?, number(count)?)
        }
        ["pages", data, things] => registry::pages(Path::new(data), number(things)?),
        ["search", data, things] => registry::search(Path::new(data), number(things)?),
        ["felt", data, sessions] => felt::felt(Path::new(data), number(sessions)?, None),
        ["felt", data, sessions, way] => felt::felt(Path::new(data), number(sessions)?, Some(way)),
        ["judged", data, principals] => judged::judged(Path::new(data), number(principals)?),
        ["record", data, things, each] => {
            recorded::record(Path::new(data), number(things)?, number(each)?)
        }
        ["issue", data, count, at_once] => {
            authority::issue(Path::new(data), number(count)?, number(at_once)?)
        }
        ["revoke", data, count] => authority::revoke(Path::new(data), number(count)?),
        ["lists", data, things] => authority::lists(Path::new(data), number(things)?),
        ["ocsp", data, things, count] => {
            authority::ocsp(Path::new(data), number(things)?, number(count)?)
        }
        ["bare", data] => bare::serve(Path::new(data)),
        _ => bail!("say one of:\n{USAGE}"),
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.parse()
        .with_context(|| format!("{text} is no whole number"))
}
