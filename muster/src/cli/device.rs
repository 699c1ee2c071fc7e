//! `muster device …`, `muster group …`, `muster network …`: what is in the registry.

use super::humane;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `muster device …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Make a device: thing, certificate, policy, groups, in one step
    Create(DeviceCreate),
    /// Make a device of a certificate that a registered authority has issued; its key stays where it is
    Import(DeviceImport),
    /// List devices
    List,
    /// Show one device
    Show {
        /// The device
        name: String,
    },
    /// List the devices that a query fits: thingName:lamp* AND attributes.site:bonn AND NOT connectivity.connected:true
    Search {
        /// The query, as AWS IoT's fleet index takes it
        query: String,
    },
    /// Revoke certificates, for ever; live sessions end at once
    Revoke {
        /// Whose
        #[command(flatten)]
        whose: Whose,
        /// Why, as RFC 5280 names it (keyCompromise, cessationOfOperation, superseded, …)
        #[arg(long)]
        reason: Option<String>,
    },
    /// Make certificates INACTIVE: live sessions end at once, what they left waits for them, and `device activate` takes
    /// it back
    Deactivate {
        /// Whose
        #[command(flatten)]
        whose: Whose,
    },
    /// Make INACTIVE certificates ACTIVE again; what is revoked stays revoked, what was renewed away stays retired
    Activate {
        /// Whose
        #[command(flatten)]
        whose: Whose,
    },
    /// Make a one-time password with which a device enrols itself by EST; its key never leaves it, and with it the answer
    /// is given again for an hour
    EnrolPassword {
        /// The device: a new one, or one that gets a new certificate in its old one's place
        name: String,
        /// Policy of its certificate [default: device-default]
        #[arg(long, value_name = "P")]
        policy: Option<String>,
        /// Group it joins
        #[arg(long, value_name = "G")]
        group: Option<String>,
        /// Attribute, may be repeated
        #[arg(long = "attribute", value_name = "K=V", value_parser = attribute)]
        attributes: Vec<(String, String)>,
        /// How long it is good for, e.g. 15m, 24h, 168h
        #[arg(long, value_name = "D", default_value = "24h", value_parser = humane)]
        valid: std::time::Duration,
        /// Take back the one that was made and not used
        #[arg(long, conflicts_with_all = ["policy", "group", "attributes"])]
        withdraw: bool,
    },
    /// Give it a new certificate and revoke the old one; groups, jobs and history stay
    Replace {
        /// The device
        name: String,
        /// Certificate signing request of the new board
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        /// Where to write the new files [default: ./NAME]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Set it apart, or take it back in: policies ask for it by muster:Quarantined
    Quarantine {
        /// The device
        name: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Take it back in
        #[arg(long, conflicts_with = "reason")]
        lift: bool,
    },
    /// Pass on your verifier's word that it has proven what it runs, or take it back: policies ask for it by muster:Attested
    Attest(Attest),
    /// Note that it did what no sound device does, as your monitor saw it: policies ask for it by muster:LastViolationAge
    Violation {
        /// The device
        name: String,
        /// What it did
        #[arg(long, value_name = "WORDS")]
        reason: String,
        /// When, such as 2026-01-31T23:59:59Z [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Revoke its certificates and forget it
    Delete {
        /// The device
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster device attest`.
#[derive(Debug, Args)]
pub(crate) struct Attest {
    /// The device
    pub(crate) name: String,
    /// The certificate whose key signed the evidence; it counts for no other [default: its one active one]
    #[arg(long, value_name = "ID")]
    pub(crate) certificate: Option<String>,
    /// When it ends, such as 2026-01-31T23:59:59Z
    #[arg(long, value_name = "TIME", conflicts_with = "valid")]
    pub(crate) until: Option<String>,
    /// How long it counts, e.g. 15m or 24h [default: what the server's configuration says; 24h]
    #[arg(long = "for", id = "valid", value_name = "D", value_parser = humane)]
    pub(crate) valid: Option<std::time::Duration>,
    /// Who verified what
    #[arg(long, value_name = "WORDS")]
    pub(crate) by: Option<String>,
    /// Take it back
    #[arg(long, conflicts_with_all = ["certificate", "until", "valid", "by"])]
    pub(crate) withdraw: bool,
}

/// Whose certificates.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Whose {
    /// The device
    #[arg(required_unless_present_any = ["certificates", "group", "ca", "query"])]
    pub(crate) name: Option<String>,
    /// A certificate by its id, may be repeated
    #[arg(long = "certificate", value_name = "ID", conflicts_with_all = ["name", "group", "ca", "query"])]
    pub(crate) certificates: Vec<String>,
    /// All devices of a group and of the groups below it
    #[arg(long, value_name = "G", conflicts_with_all = ["name", "ca", "query"])]
    pub(crate) group: Option<String>,
    /// All certificates that a registered authority signed
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "query"])]
    pub(crate) ca: Option<String>,
    /// All devices that a query fits
    #[arg(long, value_name = "QUERY", conflicts_with = "name")]
    pub(crate) query: Option<String>,
    /// Say what would be done and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `muster device create`.
#[derive(Debug, Args)]
pub(crate) struct DeviceCreate {
    /// Its name and client id: letters, digits, '-', '_' and ':'
    #[arg(required_unless_present = "from")]
    pub(crate) name: Option<String>,
    /// Make many: a CSV file with the columns name and, if you like, policy, group and attribute.KEY. Saying the same
    /// again goes on where it was
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["name", "csr"], requires = "out")]
    pub(crate) from: Option<PathBuf>,
    /// Policy of its certificate
    #[arg(long, value_name = "P", default_value = policy::DEVICE_DEFAULT)]
    pub(crate) policy: String,
    /// Group it joins
    #[arg(long, value_name = "G")]
    pub(crate) group: Option<String>,
    /// Attribute, may be repeated
    #[arg(long = "attribute", value_name = "K=V", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
    /// Certificate signing request: the private key stays where it is
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: Option<PathBuf>,
    /// Where to write NAME.crt, NAME.key and root.crt [default: ./NAME]; with --from a directory for each device
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `muster device import`.
#[derive(Debug, Args)]
pub(crate) struct DeviceImport {
    /// Its name and client id: letters, digits, '-', '_' and ':'
    pub(crate) name: String,
    /// Its certificate, PEM, issued by an authority that is registered and active (RegisterCACertificate)
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: PathBuf,
    /// Policy of its certificate
    #[arg(long, value_name = "P", default_value = policy::DEVICE_DEFAULT)]
    pub(crate) policy: String,
    /// Group it joins
    #[arg(long, value_name = "G")]
    pub(crate) group: Option<String>,
    /// Attribute, may be repeated
    #[arg(long = "attribute", value_name = "K=V", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
}

/// `muster group …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Make a group
    Create {
        /// The group
        name: String,
        /// The group it is below, for good: policies of that one count for its things too
        #[arg(long, value_name = "G")]
        parent: Option<String>,
        /// Let a query say which devices are in it, now and from now on
        #[arg(long, value_name = "QUERY", conflicts_with = "parent")]
        query: Option<String>,
    },
    /// List groups
    List,
    /// Show a group's members
    Show {
        /// The group
        name: String,
    },
    /// Delete a group; its members stay
    Delete {
        /// The group
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Put a device into a group
    Add {
        /// The group
        name: String,
        /// The device
        device: String,
        /// Refuse it where it breaks a declared invariant
        #[arg(long)]
        keep_proofs: bool,
    },
    /// Take a device out of a group
    Remove {
        /// The group
        name: String,
        /// The device
        device: String,
        /// Refuse it where it breaks a declared invariant
        #[arg(long)]
        keep_proofs: bool,
    },
}

/// `muster network …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Say what a network's name stands for; conditions on muster:SourceNetwork follow at once
    Set {
        /// The network
        name: String,
        /// Address or CIDR such as 10.1.0.0/16; may be repeated
        #[arg(required = true)]
        ranges: Vec<String>,
    },
    /// List networks
    List,
    /// Forget a network
    Delete {
        /// The network
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
}
