//! `muster policy …`: made, attached, explained, simulated, proven.

use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

/// `muster policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Make a policy from a JSON document; warns of what `lint` finds in it
    Create {
        /// The policy
        name: String,
        /// The document
        file: PathBuf,
        /// Refuse it where it breaks a declared invariant
        #[arg(long)]
        keep_proofs: bool,
    },
    /// Replace what a policy says; live sessions feel it at their next message. Warns of what `lint` finds
    Update {
        /// The policy
        name: String,
        /// The document
        file: PathBuf,
        /// Refuse it where it breaks a declared invariant
        #[arg(long)]
        keep_proofs: bool,
    },
    /// List policies
    List,
    /// Print a policy's document
    Show {
        /// The policy
        name: String,
    },
    /// Delete a policy that is attached nowhere
    Delete {
        /// The policy
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Attach a policy to a device or group
    Attach(PolicyTarget),
    /// Detach a policy from a device or group
    Detach(PolicyTarget),
    /// Run a file of policy decisions as unit tests; needs no server
    Test {
        /// The test file
        file: PathBuf,
        /// What a Deny does whose variable has no value: open (as in AWS) or closed; wins over
        /// what the file says
        #[arg(long, value_name = "open|closed")]
        unresolved_deny: Option<String>,
    },
    /// Warn of what a policy says and its author seldom means; needs no server, but for --registered
    Lint {
        /// Policy documents
        #[arg(required_unless_present = "registered")]
        files: Vec<PathBuf>,
        /// Of the policies that a server has, with its account: those of the version that decides
        #[arg(long, conflicts_with_all = ["files", "account", "config"])]
        registered: bool,
        /// The server's account, to find ARNs of others
        #[arg(long, value_name = "ID")]
        account: Option<String>,
        /// The server's configuration file, for its bounds on documents [default: those of a server without one]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say why a device may or may not do something
    Explain(Box<Explain>),
    /// Tell which of the decisions that were made would come out otherwise
    ///
    /// What a message and its connection were (size, QoS, retain, address, listener, time of day, …) is not
    /// in the record. Decisions that change or not by such a thing are told apart from those that change
    /// for certain, with the keys they depend on. A device counts as what it is now, and so does the date.
    Simulate(Simulate),
    /// Write the least policy that allows all that devices were seen to do
    Suggest(Suggest),
    /// Prove or refute what is claimed of all devices, or show how it is broken (exit 0 or 1)
    ///
    /// Without a claim: those declared, else that dt/…, cmd/… and $aws/things/… are each device's own.
    Prove(PolicyClaim),
    /// What is to hold of all devices, for `prove` and --keep-proofs
    #[command(subcommand)]
    Invariant(Invariant),
}

/// What a policy is attached to.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true).args(["device", "group"]))]
pub(crate) struct PolicyTarget {
    /// The policy
    pub(crate) name: String,
    /// A device: each of its certificates
    #[arg(long, value_name = "D")]
    pub(crate) device: Option<String>,
    /// A group: every member
    #[arg(long, value_name = "G")]
    pub(crate) group: Option<String>,
    /// Refuse it where it breaks a declared invariant; of dynamic groups everybody counts as one who may come in or leave
    #[arg(long)]
    pub(crate) keep_proofs: bool,
}

/// `muster policy explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The device
    #[arg(
        long,
        value_name = "D",
        required_unless_present = "denial",
        requires = "action"
    )]
    pub(crate) device: Option<String>,
    /// connect, publish, subscribe, receive or retainpublish
    #[arg(long, value_name = "A")]
    pub(crate) action: Option<String>,
    /// Topic, or topic filter for subscribe; client id for connect [default: the device's name]
    #[arg(long, value_name = "T")]
    pub(crate) topic: Option<String>,
    /// The certificate it comes with, where it has several: the first digits of its id [default: an active one]
    #[arg(long, value_name = "ID")]
    pub(crate) certificate: Option<String>,
    /// The client id it is connected with [default: the device's name; none with --listener https]
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// The moment it is judged at, for conditions on time, such as 2026-01-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Where the device connects from
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) source_ip: Option<std::net::IpAddr>,
    /// Bytes of the message, or of the will
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<u64>,
    /// Quality of service of the message, or the one subscribed with
    #[arg(long, value_name = "QOS", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: Option<u8>,
    /// The message, or the will, has the retain flag, which needs RetainPublish too
    #[arg(long)]
    pub(crate) retain: bool,
    /// Where the device comes in: mqtt, wss or https
    #[arg(long, value_name = "WORD")]
    pub(crate) listener: Option<String>,
    /// The version of TLS it speaks: 1.2 or 1.3
    #[arg(long, value_name = "VERSION")]
    pub(crate) tls_version: Option<String>,
    /// The server name that it dials
    #[arg(long, value_name = "HOST")]
    pub(crate) domain_name: Option<String>,
    /// Its session outlives its connection
    #[arg(long)]
    pub(crate) persistent: bool,
    /// The topic of its will, which it must be allowed to publish to
    #[arg(long, value_name = "T")]
    pub(crate) will_topic: Option<String>,
    /// As if it were in quarantine, or not
    #[arg(long, value_name = "BOOL")]
    pub(crate) quarantined: Option<bool>,
    /// As if it were attested, or not
    #[arg(long, value_name = "BOOL")]
    pub(crate) attested: Option<bool>,
    /// As if it ran the firmware of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) firmware: Option<String>,
    /// As if its firmware had this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) firmware_version: Option<String>,
    /// As if its last violation were so many seconds ago
    #[arg(long, value_name = "SECONDS")]
    pub(crate) violation_age: Option<u32>,
    /// A denial from the server's log, explained as it was then
    #[arg(long, value_name = "ID", conflicts_with_all = ["device", "action", "topic", "certificate", "client_id", "at", "source_ip", "size", "qos", "retain", "listener", "tls_version", "domain_name", "persistent", "will_topic", "quarantined", "attested", "firmware", "firmware_version", "violation_age"])]
    pub(crate) denial: Option<String>,
}

/// `muster policy simulate`.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The document
    pub(crate) file: PathBuf,
    /// The policy that it becomes the new version of, for all who have it
    #[arg(long = "as", value_name = "P", required_unless_present_any = ["group", "device"])]
    pub(crate) name: Option<String>,
    /// The group that it is attached to, with those below it
    #[arg(long = "attach-to", value_name = "G", conflicts_with = "device")]
    pub(crate) group: Option<String>,
    /// The device that it is attached to
    #[arg(long, value_name = "D")]
    pub(crate) device: Option<String>,
    /// They then have no other policy
    #[arg(long)]
    pub(crate) alone: bool,
    /// Only what was done in the last N days
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u32>,
}

/// `muster policy suggest`.
#[derive(Debug, Args)]
pub(crate) struct Suggest {
    /// The group whose devices, and those of the groups below it, it is for [default: all devices]
    #[arg(long, value_name = "G", conflicts_with = "device")]
    pub(crate) group: Option<String>,
    /// The device that it is for
    #[arg(long, value_name = "D")]
    pub(crate) device: Option<String>,
    /// Only what was done in the last N days
    #[arg(long, value_name = "N")]
    pub(crate) days: Option<u32>,
}

/// `muster policy prove`.
#[derive(Debug, Args)]
pub(crate) struct PolicyClaim {
    /// No device reaches another's part of this namespace, such as 'dt/${thing}/#'; may be repeated
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) owned: Vec<String>,
    /// No device reaches this topic filter; may be repeated
    #[arg(long = "topic", value_name = "FILTER")]
    pub(crate) topics: Vec<String>,
    /// But for the members of this group
    #[arg(long, value_name = "G", requires = "topics")]
    pub(crate) only_group: Option<String>,
    /// What reaching is: publish, subscribe, receive, getretainedmessage, retainpublish; may be repeated [default: the first four]
    #[arg(long = "action", value_name = "A")]
    pub(crate) actions: Vec<String>,
}

/// `muster policy invariant …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Invariant {
    /// Declare a claim
    Set {
        /// Its name
        name: String,
        /// No device reaches another's part of this namespace, such as 'dt/${thing}/#'
        #[arg(
            long,
            value_name = "NAMESPACE",
            conflicts_with = "topic",
            required_unless_present = "topic"
        )]
        owned: Option<String>,
        /// No device reaches this topic filter
        #[arg(long, value_name = "FILTER")]
        topic: Option<String>,
        /// But for the members of this group
        #[arg(long, value_name = "G", requires = "topic")]
        only_group: Option<String>,
        /// What reaching is: publish, subscribe, receive, getretainedmessage, retainpublish; may be repeated [default: the first four]
        #[arg(long = "action", value_name = "A")]
        actions: Vec<String>,
    },
    /// List the claims
    List,
    /// Forget a claim
    Delete {
        /// Its name
        name: String,
    },
}
