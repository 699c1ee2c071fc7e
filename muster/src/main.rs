//! The program. `muster serve` wires the rooms together; every other verb is the operator's command line.

mod cli;
mod client;
mod config;
mod credentials;
mod serve;
mod verbs;

use clap::Parser as _;
use cli::{Cli, Command};
use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => serve::run(&cli.global, cli::Serve::default()),
        Some(Command::Serve(flags)) => serve::run(&cli.global, flags),
        Some(Command::Verb(verb)) => verbs::run(&cli.global, verb),
    };
    done.unwrap_or_else(|error| {
        // Nothing can be done where standard error itself is gone.
        let _ = writeln!(std::io::stderr(), "muster: {error:#}");
        ExitCode::FAILURE
    })
}
