//! `muster firmware …` and `muster rollout …`: signed offline, rolled out in waves.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `muster firmware …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Firmware {
    /// Make a release key pair, offline
    Keygen {
        /// Where to write release.key and release.pub
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Make it in the PKCS #11 token of this label; release.key then only says where it is
        #[arg(long, value_name = "LABEL", requires = "module")]
        token: Option<String>,
        /// The token's library
        #[arg(long, value_name = "LIBRARY", requires = "token")]
        module: Option<PathBuf>,
        /// A file with the token's PIN [default: the variable MUSTER_PKCS11_PIN]
        #[arg(long, value_name = "FILE", requires = "token")]
        pin_file: Option<PathBuf>,
    },
    /// Make or succeed the signed trust root, offline
    Root(FirmwareRoot),
    /// Tell the server which trust root or targets document to believe
    Trust {
        /// The trust root, or what `firmware delegate` or `firmware index` made
        root: PathBuf,
        /// The delegate whose targets document it is
        #[arg(long, value_name = "DELEGATE")]
        role: Option<String>,
    },
    /// Leave images of some hardware or products to other keys, offline
    Delegate(FirmwareDelegate),
    /// List packages' images in a targets document, for other TUF clients, offline
    Index(FirmwareIndex),
    /// Sign an image into a package, offline
    Sign(FirmwareSign),
    /// Add signatures to a package, trust root, targets document or manifest that others have signed, offline
    Cosign {
        /// The package or document; it is rewritten
        document: PathBuf,
        /// Release key; may be repeated
        #[arg(long = "key", value_name = "K", required = true)]
        keys: Vec<PathBuf>,
    },
    /// Give a package to the server; a large one that broke off goes on from there when it is said again
    Add {
        /// The package
        package: PathBuf,
    },
    /// Show the repository's signed metadata: roles, keys, thresholds, expiries, delegations, images
    Repo {
        /// Print this role's document as it is served: root, targets, snapshot, timestamp or a delegate
        role: Option<String>,
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

/// `muster firmware delegate`.
#[derive(Debug, Args)]
pub(crate) struct FirmwareDelegate {
    /// What the delegate is called
    pub(crate) delegate: String,
    /// Public half of a key of the delegate; may be repeated
    #[arg(long = "pub", value_name = "P", required_unless_present = "withdraw")]
    pub(crate) publics: Vec<PathBuf>,
    /// How many of the delegate's keys must sign an image
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threshold: u32,
    /// Hardware it may sign for [default: any]; may be repeated
    #[arg(long, value_name = "H")]
    pub(crate) hardware: Vec<String>,
    /// Name of a firmware it may sign [default: any]; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) product: Vec<String>,
    /// Take the delegation back
    #[arg(long, requires = "previous", conflicts_with_all = ["publics", "hardware", "product"])]
    pub(crate) withdraw: bool,
    #[command(flatten)]
    pub(crate) signed: FirmwareTargets,
}

/// `muster firmware index`.
#[derive(Debug, Args)]
pub(crate) struct FirmwareIndex {
    /// Packages to list
    pub(crate) packages: Vec<PathBuf>,
    /// A version to list no longer; may be repeated
    #[arg(long = "drop", value_name = "NAME/VERSION")]
    pub(crate) dropped: Vec<String>,
    /// List them as this delegate, whose keys sign
    #[arg(long = "as", value_name = "DELEGATE", requires = "delegations")]
    pub(crate) delegate: Option<String>,
    /// The release team's targets document that delegates to it
    #[arg(long, value_name = "TARGETS.json", requires = "delegate")]
    pub(crate) delegations: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) signed: FirmwareTargets,
}

/// What is said of any targets document.
#[derive(Debug, Args)]
pub(crate) struct FirmwareTargets {
    /// The trust root that names the release keys
    #[arg(long, value_name = "ROOT.json")]
    pub(crate) root: PathBuf,
    /// Key that signs; may be repeated
    #[arg(long = "key", value_name = "K", required = true)]
    pub(crate) keys: Vec<PathBuf>,
    /// The targets document this one succeeds, which says the rest
    #[arg(long, value_name = "TARGETS.json")]
    pub(crate) previous: Option<PathBuf>,
    /// Last day it is believed, YYYY-MM-DD or RFC 3339 [default: in 90 days]
    #[arg(long, value_name = "D")]
    pub(crate) expires: Option<String>,
    /// Where to write it
    #[arg(long, value_name = "TARGETS.json")]
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
    /// Least version that may be updated to this one; with NAME=, least version of another firmware that the device must
    /// have beside it (`muster-agent --component`); may be repeated
    #[arg(long, value_name = "[NAME=]V")]
    pub(crate) requires: Vec<String>,
    /// For people: what is new, or to be known
    #[arg(long, value_name = "TEXT")]
    pub(crate) notes: Option<String>,
    /// Last day it may be installed, YYYY-MM-DD or RFC 3339 [default: in 90 days]
    #[arg(long, value_name = "D")]
    pub(crate) expires: Option<String>,
    /// Also make a delta from an earlier version's image, for devices that run it; may be repeated. It takes about 18
    /// times that image's size of memory; devices without it, and those that cannot use it, fetch the whole image
    #[arg(long = "delta-from", value_name = "VERSION=IMAGE")]
    pub(crate) deltas: Vec<String>,
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
    /// Follow a rollout until it ends: waves, pace, failures, the way back. Exits 0 where it succeeded, 1 where it was
    /// aborted or undone, 2 where that cannot be known; a server that is away is waited for
    Watch {
        /// The rollout
        id: String,
    },
    /// Print a rollout's executions as CSV
    Export {
        /// The rollout
        id: String,
    },
    /// Let no device begin until resumed, on the way back too; those at it go on
    Pause {
        /// The rollout
        id: String,
    },
    /// Go on; devices that were told before and have not begun are told again
    Resume {
        /// The rollout
        id: String,
    },
    /// Let the wave begin that waits for people
    Approve {
        /// The rollout
        id: String,
        /// The wave that is meant (`10%`), refused where another waits; usually the one that waits now
        #[arg(long, value_name = "WAVE")]
        wave: Option<String>,
    },
    /// Stop for good, the way back too; devices keep what they have
    Abort {
        /// The rollout
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Send the devices that took it back to the version each had, wave by wave; refused where nobody has it, or the signed
    /// manifests let none of them
    Rollback {
        /// The rollout
        id: String,
        /// The other way, once it is rolled back: send those that went back forward to its version again
        #[arg(long)]
        forward: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster rollout start`.
#[derive(Debug, Default, Args)]
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
    /// 02:00 on workdays. A download that is not done by its end goes on in the next window; an installation runs on
    #[arg(long, value_name = "CRON/DURATION")]
    pub(crate) window: Option<String>,
    /// The time zone of the window for devices that name none [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "window")]
    pub(crate) zone: Option<String>,
    /// Tell at most so many devices in any minute
    #[arg(long, value_name = "N/min")]
    pub(crate) rate: Option<String>,
    /// Leave a wave that is good alone for this long before the next one begins, as 10m or 24h
    #[arg(long, value_name = "D", allow_hyphen_values = true)]
    pub(crate) soak: Option<String>,
    /// A wave is good once this share of it has succeeded, and bad once that is out of reach; what stops the rollout
    /// goes on to do so, also when it has succeeded [default: all must finish]
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| super::percent(text, 1..=100))]
    pub(crate) success: Option<u8>,
    /// Stop and undo when this share of the finished in a wave has failed; 0 is the first failure
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| super::percent(text, 0..=100))]
    pub(crate) abort_failed: Option<u8>,
    /// … once this many have finished
    #[arg(long, value_name = "N")]
    pub(crate) abort_min: Option<u32>,
    /// The percentage of failures that is usual: stop and undo when there are more, and not by chance
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| super::percent(text, 1..=49))]
    pub(crate) alarm: Option<u8>,
    /// Compare updated devices with those not yet updated, and stop and undo where they do worse, and not by chance: in
    /// disconnects, reconnects, authorization-failures, silence or reported; may be repeated. It says where a wave is too
    /// small for them
    #[arg(long = "gate", value_name = "METRIC")]
    pub(crate) gates: Vec<String>,
    /// How long each device is looked at for that [default: 10m]
    #[arg(long, value_name = "D", requires = "gates")]
    pub(crate) watch: Option<String>,
    /// How long a device may be at it, in whole minutes, as 90m or 2h; then it counts as failed
    #[arg(long, value_name = "D")]
    pub(crate) timeout: Option<String>,
    /// Try a device that failed or timed out again, so many times
    #[arg(long, value_name = "N")]
    pub(crate) retry: Option<u32>,
    /// Wait for `rollout approve` before each wave after the first (a wave of a file may ask for itself, the first too)
    #[arg(long)]
    pub(crate) approve: bool,
    /// Only say who would get it, when, by wave, and what would not work: devices that would refuse it or could not go
    /// back, gates that can see nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Read all of this from a file, in which each wave may have rules of its own
    #[arg(long, value_name = "ROLLOUT.toml", conflicts_with_all = [
        "name", "version", "group", "waves", "start", "window", "zone", "rate", "soak", "success", "abort_failed", "alarm",
        "abort_min", "timeout", "retry", "approve", "gates", "watch",
    ])]
    pub(crate) file: Option<PathBuf>,
}
