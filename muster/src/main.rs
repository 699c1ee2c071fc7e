//! The program. `muster serve` opens the rooms from the bottom up, wires them, says `ready` and drains them again.
//! Every other verb is the operator's command line: a client of the HTTPS API that `control` answers and of nothing
//! else, or, where no server is needed, a call into the pure halves of `policy` and `ota`.
//! Top of the house: it may use every room below it, and nothing uses it. What devices ask on reserved topics
//! it hands from `broker` to `ota`, since neither may know the other's job.

mod cli;
mod client;
mod config;
mod credentials;
mod printable;
mod secret;
mod serve;
mod shell;
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
        let _ = writeln!(
            std::io::stderr(),
            "muster: {}",
            printable::error(&format!("{error:#}"))
        );
        ExitCode::FAILURE
    })
}
