//! What can be wrong with how the agent was started, each in a sentence that mends it.

use std::path::PathBuf;
use std::time::Duration;

/// Why the agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file of the identity is missing or cannot be read.
    #[error("identity: cannot read {}: {why} (--identity must name the directory that `muster device create` wrote)", path.display())]
    IdentityFile {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        why: std::io::Error,
    },
    /// The identity directory holds no certificate, or several.
    #[error("identity: {} holds {found}; it must hold one NAME.crt beside root.crt, as `muster device create` wrote it", dir.display())]
    IdentityNames {
        /// Which directory.
        dir: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A file of the identity is not what it should be.
    #[error("identity: {}: {what}", path.display())]
    IdentityContent {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        what: String,
    },
    /// The key is not the certificate's.
    #[error("identity: {} is not the key of {}: put the key back that was made with this certificate, or give the device a new one with `muster device replace`", key.display(), certificate.display())]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// `--server` is not a name that can be dialled.
    #[error("--server {server:?}: {what}")]
    Server {
        /// As given.
        server: String,
        /// What is wrong with it.
        what: String,
    },
    /// The trust root file cannot be used.
    #[error("trust root {}: {what}", path.display())]
    TrustRoot {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A TUF repository that is not believed, or cannot be asked.
    #[error(transparent)]
    Tuf(#[from] ota::tuf::TufError),
    /// The device has no certificate of its own, and gets none.
    #[error(transparent)]
    Enrol(#[from] crate::enrol::EnrolError),
    /// An option that a verb cannot do without.
    #[error("`{verb}` needs {option}")]
    Option {
        /// What was asked for.
        verb: &'static str,
        /// What it lacks.
        option: &'static str,
    },
    /// Another agent runs on the state directory.
    #[error("state: {} is in use by another muster-agent: stop that one, or give this one its own --state directory", dir.display())]
    StateInUse {
        /// Which directory.
        dir: PathBuf,
    },
    /// The state cannot be read or kept.
    #[error("state: {}: {what}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The state file cannot be understood.
    #[error("state: {}: {what}", path.display())]
    StateTorn {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A device that cannot be a slot.
    #[error("--slot-{slot} {}: {what}", path.display())]
    SlotDevice {
        /// `a` or `b`.
        slot: &'static str,
        /// As given.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        what: String,
    },
    /// The operating system refused something the agent cannot do without.
    #[error("{what}: {why}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        why: std::io::Error,
    },
    /// The worker thread is gone.
    #[error("the worker thread ended; start the agent again, the update goes on where it was")]
    WorkerGone,
    /// The health deadline is out of range.
    #[error("--health-timeout {given:?}: must be between 1 second and {most:?}")]
    HealthTimeout {
        /// As given.
        given: Duration,
        /// The longest allowed.
        most: Duration,
    },
    /// The time between two looks is out of range.
    #[error("--health-every {given:?}: must be between {least:?} and {most:?}, or 0 for never")]
    HealthEvery {
        /// As given.
        given: Duration,
        /// The shortest allowed.
        least: Duration,
        /// The longest allowed.
        most: Duration,
    },
}
