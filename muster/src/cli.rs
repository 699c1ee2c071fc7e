//! The command line, declared once: help, errors and completions come from here.

use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

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
    /// Audit: checks over the whole registry
    #[command(subcommand)]
    Audit(Audit),
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
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) mqtt: Option<SocketAddr>,
    /// MQTT in WebSocket frames over mutual TLS [default: [::]:8884]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) wss: Option<SocketAddr>,
    /// API and firmware over TLS [default: [::]:8443]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) https: Option<SocketAddr>,
    /// Certificate revocation lists, OCSP and issuer certificates, plain HTTP [default: [::]:8880]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// Where the plain HTTP listener is seen from outside, as written into certificates [default: http://NAME:PORT]
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// A name or address that devices dial; stands in the server's certificate; may be repeated
    /// [default: localhost and this host's name]
    #[arg(long = "name", value_name = "HOST")]
    pub(crate) names: Vec<String>,
    /// Account in ARNs, 12 digits [default: 000000000000]
    #[arg(long, value_name = "ID")]
    pub(crate) account: Option<String>,
    /// Region in ARNs [default: local]
    #[arg(long, value_name = "R")]
    pub(crate) region: Option<String>,
    /// Configuration file; a flag wins over it
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
}

/// `muster device …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Make a device: thing, certificate, policy, groups, in one step
    Create(DeviceCreate),
    /// List devices
    List,
    /// Show one device
    Show {
        /// The device
        name: String,
    },
    /// Revoke its certificates; its live sessions end at once
    Revoke {
        /// The device
        name: String,
        /// Why, as RFC 5280 names it (keyCompromise, cessationOfOperation, superseded, …)
        #[arg(long)]
        reason: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Make a one-time password with which a device enrols itself by EST; its key never leaves it
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
    /// Revoke its certificates and forget it
    Delete {
        /// The device
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster device create`.
#[derive(Debug, Args)]
pub(crate) struct DeviceCreate {
    /// Its name and client id: letters, digits, '-', '_' and ':'
    pub(crate) name: String,
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
    /// Where to write NAME.crt, NAME.key and root.crt [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
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
    },
    /// Take a device out of a group
    Remove {
        /// The group
        name: String,
        /// The device
        device: String,
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

/// `muster policy …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Make a policy from a JSON document
    Create {
        /// The policy
        name: String,
        /// The document
        file: PathBuf,
        /// Refuse it where it breaks a declared invariant
        #[arg(long)]
        keep_proofs: bool,
    },
    /// Replace what a policy says; live sessions feel it at their next message
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
    /// Warn of what a policy says and its author seldom means; needs no server
    Lint {
        /// Policy documents
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say why a device may or may not do something
    Explain(Explain),
    /// Tell which of the decisions that were made would come out otherwise
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
    /// The client id it is connected with [default: the device's name]
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// The moment it is judged at, for conditions on time, such as 2026-01-31T23:59:59Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Where the device connects from
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) source_ip: Option<std::net::IpAddr>,
    /// Bytes of the message
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<u64>,
    /// Quality of service of the message, or the one subscribed with
    #[arg(long, value_name = "QOS", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: Option<u8>,
    /// The message has the retain flag
    #[arg(long)]
    pub(crate) retain: bool,
    /// A denial from the server's log, explained as it was then
    #[arg(long, value_name = "ID", conflicts_with_all = ["device", "action", "topic", "client_id", "at", "source_ip", "size", "qos", "retain"])]
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
    /// The group that it is attached to
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
    /// The group whose devices it is for [default: all devices]
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
    /// What reaching is: publish, subscribe, receive, retainpublish; may be repeated [default: the first three]
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
        /// What reaching is: publish, subscribe, receive, retainpublish; may be repeated [default: the first three]
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

/// What a policy is attached to.
#[derive(Debug, Args)]
pub(crate) struct PolicyTarget {
    /// The policy
    pub(crate) name: String,
    /// A device: each of its certificates
    #[arg(long, required_unless_present = "group", conflicts_with = "group")]
    pub(crate) device: Option<String>,
    /// A group: every member
    #[arg(long)]
    pub(crate) group: Option<String>,
}

/// `muster template …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// Make a provisioning template from a JSON document, as AWS IoT writes them
    Create(TemplateCreate),
    /// List templates
    List,
    /// Show a template
    Show {
        /// The template
        name: String,
    },
    /// Change a template: a new document becomes the version devices get
    Update(TemplateUpdate),
    /// Let more devices provision by a template with an allow list
    Allow {
        /// The template
        name: String,
        /// One value (serial number) a line
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take devices off a template's allow list
    Disallow {
        /// The template
        name: String,
        /// One value (serial number) a line
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Delete a template; its claims can do nothing any more
    Delete {
        /// The template
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster template create`.
#[derive(Debug, Args)]
pub(crate) struct TemplateCreate {
    /// Its name: letters, digits, '-' and '_'
    pub(crate) name: String,
    /// The document
    pub(crate) file: PathBuf,
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Make it without letting devices use it yet
    #[arg(long)]
    pub(crate) disabled: bool,
    /// Who else is asked
    #[command(flatten)]
    pub(crate) hook: TemplateHook,
}

/// Who else is asked before a device is provisioned.
#[derive(Debug, Args)]
pub(crate) struct TemplateHook {
    /// HTTPS service that is asked before each device, and must say yes within 5 seconds
    #[arg(long, value_name = "URL", conflicts_with = "allow_parameter")]
    pub(crate) hook: Option<String>,
    /// What the hook's certificate is trusted by, PEM [default: this server's own root]
    #[arg(long, value_name = "FILE", requires = "hook")]
    pub(crate) hook_root: Option<PathBuf>,
    /// Only devices whose parameter of this name stands on the template's allow list
    #[arg(long, value_name = "PARAMETER")]
    pub(crate) allow_parameter: Option<String>,
    /// What stands on the allow list, one value a line; more with `template allow`
    #[arg(long, value_name = "FILE", requires = "allow_parameter")]
    pub(crate) allow_list: Option<PathBuf>,
}

/// `muster template update`.
#[derive(Debug, Args)]
pub(crate) struct TemplateUpdate {
    /// The template
    pub(crate) name: String,
    /// The new document
    pub(crate) file: Option<PathBuf>,
    /// Let devices use it
    #[arg(long, conflicts_with = "disable")]
    pub(crate) enable: bool,
    /// Let no device use it
    #[arg(long)]
    pub(crate) disable: bool,
    /// Ask nobody else any more
    #[arg(long, conflicts_with_all = ["hook", "allow_parameter"])]
    pub(crate) no_hook: bool,
    /// Who else is asked
    #[command(flatten)]
    pub(crate) hook: TemplateHook,
}

/// `muster claim …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Claim {
    /// Make a claim certificate for a template
    Create(ClaimCreate),
    /// List claims
    List,
    /// Show a claim
    Show {
        /// Its certificate id
        id: String,
    },
    /// Revoke a claim; devices that got their own certificate keep it
    Revoke {
        /// Its certificate id
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster claim create`.
#[derive(Debug, Args)]
pub(crate) struct ClaimCreate {
    /// The template its devices are provisioned by
    #[arg(long, value_name = "NAME")]
    pub(crate) template: String,
    /// Most devices it may provision
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// Most devices in any minute
    #[arg(long, value_name = "N/min", default_value = "60/min")]
    pub(crate) rate: String,
    /// Network it may be used from, as 10.0.0.0/8; may be repeated [default: any]
    #[arg(long = "source", value_name = "CIDR")]
    pub(crate) sources: Vec<String>,
    /// How long it lives, as 30d or 12h
    #[arg(long, value_name = "D", default_value = "30d")]
    pub(crate) lifetime: String,
    /// Certificate signing request: the private key stays where it is
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: Option<PathBuf>,
    /// Where to write claim.crt, claim.key and root.crt [default: ./claim]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// `muster firmware …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Firmware {
    /// Make a release key pair, offline
    Keygen {
        /// Where to write release.key and release.pub
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make or succeed the signed trust root, offline
    Root(FirmwareRoot),
    /// Tell the server which trust root to believe
    Trust {
        /// The trust root
        root: PathBuf,
    },
    /// Sign an image into a package, offline
    Sign(FirmwareSign),
    /// Add signatures to a trust root or manifest that others have signed, offline
    Cosign {
        /// The document; it is rewritten
        document: PathBuf,
        /// Release key; may be repeated
        #[arg(long = "key", value_name = "K", required = true)]
        keys: Vec<PathBuf>,
    },
    /// Give a package to the server
    Add {
        /// The package
        package: PathBuf,
    },
    /// List firmware
    List,
    /// Show a firmware's versions, or one version's manifest
    Show {
        /// The firmware
        name: String,
        /// The version
        version: Option<String>,
    },
}

/// `muster firmware root`.
#[derive(Debug, Args)]
pub(crate) struct FirmwareRoot {
    /// Release key that signs; may be repeated
    #[arg(long = "key", value_name = "K", required = true)]
    pub(crate) keys: Vec<PathBuf>,
    /// Public half of a release key that belongs to the root but does not sign here; may be repeated
    #[arg(long = "pub", value_name = "P")]
    pub(crate) publics: Vec<PathBuf>,
    /// Release key of the previous root that signs this one and does not belong to it any more; may be repeated
    #[arg(long, value_name = "K", requires = "previous")]
    pub(crate) retire: Vec<PathBuf>,
    /// Last day it is believed, YYYY-MM-DD or RFC 3339 [default: in a year]
    #[arg(long, value_name = "D")]
    pub(crate) expires: Option<String>,
    /// How many release keys must sign an image and the next root
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threshold: u32,
    /// The server's online key (DIR/firmware/online.pub), which only says what is newest
    #[arg(long, value_name = "PUB")]
    pub(crate) online: Option<PathBuf>,
    /// The root this one succeeds
    #[arg(long, value_name = "ROOT.json")]
    pub(crate) previous: Option<PathBuf>,
    /// Where to write it
    #[arg(long, value_name = "ROOT.json")]
    pub(crate) out: PathBuf,
}

/// `muster firmware sign`.
#[derive(Debug, Args)]
pub(crate) struct FirmwareSign {
    /// The image
    pub(crate) file: PathBuf,
    /// Name of the firmware
    #[arg(long)]
    pub(crate) name: String,
    /// Its version
    #[arg(long = "version", value_name = "V")]
    pub(crate) firmware_version: String,
    /// Hardware it runs on; may be repeated
    #[arg(long, value_name = "H", required = true)]
    pub(crate) hardware: Vec<String>,
    /// Security counter: a device never goes below the one it has confirmed
    #[arg(long, value_name = "C", default_value_t = 0)]
    pub(crate) counter: u64,
    /// Least version that may be updated to this one
    #[arg(long, value_name = "V")]
    pub(crate) requires: Option<String>,
    /// Last day it may be installed, YYYY-MM-DD or RFC 3339 [default: in 90 days]
    #[arg(long, value_name = "D")]
    pub(crate) expires: Option<String>,
    /// Release key; may be repeated
    #[arg(long = "key", value_name = "K", required = true)]
    pub(crate) keys: Vec<PathBuf>,
    /// Where to write the package
    #[arg(long, value_name = "PACKAGE")]
    pub(crate) out: PathBuf,
}

/// `muster rollout …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Roll a firmware version out to a group, in waves
    Start(Box<RolloutStart>),
    /// List rollouts
    List,
    /// Show a rollout: waves and executions
    Show {
        /// The rollout
        id: String,
    },
    /// Follow a rollout until it ends
    Watch {
        /// The rollout
        id: String,
    },
    /// Print a rollout's executions as CSV
    Export {
        /// The rollout
        id: String,
    },
    /// Start nothing new until resumed
    Pause {
        /// The rollout
        id: String,
    },
    /// Go on
    Resume {
        /// The rollout
        id: String,
    },
    /// Let the wave begin that waits for people
    Approve {
        /// The rollout
        id: String,
    },
    /// Stop for good; devices that took it keep it
    Abort {
        /// The rollout
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Send the devices that took it back to the version each had
    Rollback {
        /// The rollout
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster rollout start`.
#[derive(Debug, Args)]
pub(crate) struct RolloutStart {
    /// The firmware
    #[arg(required_unless_present = "file")]
    pub(crate) name: Option<String>,
    /// Its version
    #[arg(required_unless_present = "file")]
    pub(crate) version: Option<String>,
    /// Who gets it
    #[arg(long, required_unless_present = "file")]
    pub(crate) group: Option<String>,
    /// A wave: 10% or 5 (cumulative over the group) or group:NAME; may be repeated [default: 100%]
    #[arg(long = "wave", value_name = "SPEC")]
    pub(crate) waves: Vec<String>,
    /// Not before this moment, RFC 3339 [default: at once]
    #[arg(long, value_name = "TIME")]
    pub(crate) start: Option<String>,
    /// When devices may begin, on the clock of each one's attribute `timezone`: '0 2 * * 1-5/3h' is three hours from
    /// 02:00 on workdays
    #[arg(long, value_name = "CRON/DURATION")]
    pub(crate) window: Option<String>,
    /// The time zone of the window for devices that name none [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "window")]
    pub(crate) zone: Option<String>,
    /// Tell at most so many devices in any minute
    #[arg(long, value_name = "N/min")]
    pub(crate) rate: Option<String>,
    /// Leave a wave that is good alone for this long before the next one begins, as 10m or 24h
    #[arg(long, value_name = "D")]
    pub(crate) soak: Option<String>,
    /// A wave is good once this share of it has succeeded, and bad once that is out of reach [default: all must finish]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) success: Option<u8>,
    /// Stop and undo when this share of the finished in a wave has failed
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) abort_failed: Option<u8>,
    /// … once this many have finished
    #[arg(long, value_name = "N")]
    pub(crate) abort_min: Option<u32>,
    /// The percentage of failures that is usual: stop and undo when there are more, and not by chance
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=49))]
    pub(crate) alarm: Option<u8>,
    /// How long a device may be at it, in whole minutes, as 90m or 2h; then it counts as failed
    #[arg(long, value_name = "D")]
    pub(crate) timeout: Option<String>,
    /// Try a device that failed or timed out again, so many times
    #[arg(long, value_name = "N")]
    pub(crate) retry: Option<u32>,
    /// Wait for `rollout approve` before each wave after the first
    #[arg(long)]
    pub(crate) approve: bool,
    /// Only say who would get it, when, by wave
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Read all of this from a file, in which each wave may have rules of its own
    #[arg(long, value_name = "ROLLOUT.toml", conflicts_with_all = [
        "name", "version", "group", "waves", "start", "window", "zone", "rate", "soak", "success", "abort_failed", "alarm",
        "abort_min", "timeout", "retry", "approve",
    ])]
    pub(crate) file: Option<PathBuf>,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
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
