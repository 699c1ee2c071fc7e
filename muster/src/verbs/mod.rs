//! The operator's verbs: each a client of the server's API and of nothing else, but for those that say they need no
//! server.

mod audit;
mod bench;
mod ca;
mod ca_list;
mod ca_registered;
mod ca_root;
mod ceremony;
mod ceremony_files;
mod claim;
mod device;
mod device_bulk;
mod device_certificates;
mod device_files;
mod device_health;
mod device_rows;
mod firmware;
mod firmware_offline;
mod firmware_repo;
mod firmware_targets;
mod firmware_token;
mod fleet;
mod group;
mod least;
mod log;
mod network;
mod operator;
mod output;
mod passphrase;
mod policy;
mod prove;
mod release_files;
mod rollout;
mod rollout_file;
mod rollout_picture;
mod rollout_watch;
mod status;
mod template;

pub(crate) use ca::{read_text, secret, write_new};

use crate::{
    cli::{Global, Verb},
    client::Client,
};
use std::process::ExitCode;

/// Runs a verb. `serve` is not one of them.
pub(crate) fn run(global: &Global, command: Verb) -> anyhow::Result<ExitCode> {
    match command {
        Verb::Status => status::run(global),
        Verb::Device(verb) => device::run(global, verb),
        Verb::Group(verb) => group::run(global, verb),
        Verb::Network(verb) => network::run(global, verb),
        Verb::Policy(verb) => policy::run(global, verb),
        Verb::Template(verb) => template::run(global, verb),
        Verb::Claim(verb) => claim::run(global, verb),
        Verb::Fleet(verb) => fleet::run(global, verb),
        Verb::Firmware(verb) => firmware::run(global, verb),
        Verb::Operator(verb) => operator::run(global, verb),
        Verb::Ca(verb) => ca::run(global, verb),
        Verb::Audit(verb) => audit::run(global, verb),
        Verb::Log(verb) => log::run(global, verb),
        Verb::Bench(verb) => bench::run(global, verb),
        Verb::Rollout(verb) => rollout::run(global, verb),
    }
}

/// The server a verb speaks to: the one named by `--server` or `--credentials`, or the one on `--data`.
fn client(global: &Global) -> anyhow::Result<Client> {
    match &global.credentials {
        Some(credentials) => Client::remote(global.server.as_deref(), credentials),
        None => Client::local(&global.data),
    }
}
