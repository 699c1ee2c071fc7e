//! The command line, declared once: help, errors and completions come from here.

mod bench;
mod ca;
mod device;
mod firmware;
mod fleet;
mod log;
mod operator;
mod policy;
mod provisioning;

use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

pub(crate) use bench::{
    Bench, BenchConnect, BenchHow, BenchIdle, BenchLatency, BenchMessages, BenchTarget,
};
pub(crate) use ca::{
    Ca, Ceremony, CrossSign, DeactivateAuthority, PassphraseSource, RegisterAuthority,
    RegisteredAuthority, RetireRoot, RevokeIssuing, RootListFlags, RotateAtStart, RotateIssuing,
    SignRootList, SucceedRoot, TakeRootOffline,
};
pub(crate) use device::{Attest, Device, DeviceCreate, DeviceImport, Group, Network, Whose};
pub(crate) use firmware::{
    Firmware, FirmwareDelegate, FirmwareIndex, FirmwareRoot, FirmwareSign, FirmwareTargets,
    Rollout, RolloutStart,
};
pub(crate) use fleet::{Fleet, FleetOf};
pub(crate) use log::{Log, LogShow};
pub(crate) use operator::Operator;
pub(crate) use policy::{Explain, Invariant, Policy, PolicyClaim, PolicyTarget, Simulate, Suggest};
pub(crate) use provisioning::{
    Claim, ClaimCreate, Template, TemplateCreate, TemplateHook, TemplateUpdate,
};

/// Zero-trust identity, messaging and firmware for fleets of devices.
///
/// Without a verb it does what `muster serve` does.
#[derive(Debug, Parser)]
#[command(name = "muster", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What every verb takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags of every verb, before or after it.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Data directory of the server: its own for `serve`, where to find it and its credentials for other verbs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "./muster-data"
    )]
    pub(crate) data: PathBuf,
    /// Server elsewhere: https://HOST:PORT (with --credentials; default: the one its credentials file names)
    #[arg(long, global = true, value_name = "URL", requires = "credentials")]
    pub(crate) server: Option<String>,
    /// Operator's credentials file for a server elsewhere
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Serve),
    /// An operator's verb
    #[command(flatten)]
    Verb(Verb),
}

/// What an operator can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say whether the server answers (exit 0 or 1)
    Status,
    /// Devices: create, list, show, revoke, replace, delete
    #[command(subcommand)]
    Device(Device),
    /// Thing groups
    #[command(subcommand)]
    Group(Group),
    /// Networks under names, for policies to speak of where devices are
    #[command(subcommand)]
    Network(Network),
    /// Policies: create, attach, test, explain
    #[command(subcommand)]
    Policy(Policy),
    /// Provisioning templates: what a device with a claim becomes
    #[command(subcommand)]
    Template(Template),
    /// Claim certificates: what devices are born with to get their own
    #[command(subcommand)]
    Claim(Claim),
    /// Firmware: keys, trust, signing (offline) and the server's repository
    #[command(subcommand)]
    Firmware(Firmware),
    /// Rollouts of firmware in waves
    #[command(subcommand)]
    Rollout(Rollout),
    /// Operators: who may use the API, and how far
    #[command(subcommand)]
    Operator(Operator),
    /// The authority: its root, its issuing certificates
    #[command(subcommand)]
    Ca(Ca),
    /// What runs where: versions by device, hardware, group and time
    #[command(subcommand)]
    Fleet(Fleet),
    /// Audit: checks over the whole registry
    #[command(subcommand)]
    Audit(Audit),
    /// Who did what: operators, and every certificate that was issued or revoked
    #[command(subcommand)]
    Log(Log),
    /// Put load on any MQTT broker under mutual TLS and measure it (needs no server of Muster's)
    #[command(subcommand)]
    Bench(Bench),
}

/// `muster audit …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Run checks now; exit code 3 where something is found
    Run {
        /// A check; may be repeated [default: all]
        #[arg(long = "check", value_name = "NAME")]
        checks: Vec<String>,
    },
    /// List the checks there are
    List,
}

/// `muster serve`.
#[derive(Debug, Default, Args)]
pub(crate) struct Serve {
    /// MQTT over mutual TLS [default: [::]:8883]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) mqtt: Option<SocketAddr>,
    /// MQTT in WebSocket frames over mutual TLS [default: [::]:8884]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) wss: Option<SocketAddr>,
    /// API and firmware over TLS [default: [::]:8443]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) https: Option<SocketAddr>,
    /// Certificate revocation lists, OCSP and issuer certificates, plain HTTP [default: [::]:8880]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) http: Option<SocketAddr>,
    /// Where the plain HTTP listener is seen from outside, as written into certificates [default: http://NAME:PORT]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// A name or address that devices dial; stands in the server's certificate; may be repeated
    /// [default: localhost and this host's name]
    #[arg(long = "name", value_name = "HOST")]
    pub(crate) names: Vec<String>,
    /// Account in ARNs, 12 digits; data stays of the one of its first start [default: 000000000000]
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// Region in ARNs [default: local]
    #[arg(long, value_name = "R")]
    pub(crate) region: Option<String>,
    /// Configuration file; a flag wins over it
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) rotation: RotateAtStart,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an IP address and a port, as 0.0.0.0:8883, 192.0.2.7:8883 or [::]:8883; a host's name is none (--name is for those)".to_owned()
    })
}

/// A whole percentage in `range`.
fn percent(text: &str, range: std::ops::RangeInclusive<u8>) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    number
        .ok()
        .filter(|share| range.contains(share))
        .ok_or_else(|| {
            format!(
                "a whole percentage from {} to {}",
                range.start(),
                range.end()
            )
        })
}

fn humane(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|span| std::time::Duration::try_from(span).ok())
        .ok_or_else(|| format!("{text:?} is no time to wait: write it as 15m or 24h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn declarations_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_answered_with_flag_value_and_mend() {
        let start = ["muster", "rollout", "start", "lamp", "1.0", "--group", "g"];
        for (flag, value, mend) in [
            ("--abort-failed", "abc", "percentage from 0 to 100"),
            ("--success", "0", "percentage from 1 to 100"),
            ("--alarm", "50", "percentage from 1 to 49"),
        ] {
            let said = Cli::try_parse_from(start.into_iter().chain([flag, value]))
                .unwrap_err()
                .to_string();
            for word in [flag, value, mend] {
                assert!(said.contains(word), "{said}");
            }
        }
        for given in [
            ["--abort-failed", "20%"],
            ["--abort-failed", "0"],
            ["--alarm", "49"],
            ["--soak", "-1h"],
        ] {
            assert!(Cli::try_parse_from(start.into_iter().chain(given)).is_ok());
        }
        for (flag, value) in [("--mqtt", "foo"), ("--https", "localhost:8443")] {
            let said = Cli::try_parse_from(["muster", "serve", flag, value])
                .unwrap_err()
                .to_string();
            for word in [flag, value, "0.0.0.0:8883"] {
                assert!(said.contains(word), "{said}");
            }
        }
    }

    #[test]
    fn global_flags_stand_before_or_after_the_verb() {
        for line in [
            ["muster", "--data", "d", "--json", "device", "list"],
            ["muster", "device", "list", "--json", "--data", "d"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.data, PathBuf::from("d"));
        }
    }

    #[test]
    fn firmware_sign_takes_version_as_its_own_flag() {
        let line = "muster firmware sign f --name n --version 1.2 --hardware h --key k --out p";
        Cli::try_parse_from(line.split(' ')).unwrap();
    }
}
