use std::io;
use std::path::PathBuf;

/// Why the HTTPS face cannot start or keep its operators.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file of the operators cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The operators' registry is not what this program wrote. It is not guessed at.
    #[error(
        "{path} is not an operators' registry this version reads ({reason}); restore it from a backup, or move it away to have a new admin made"
    )]
    Registry {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An operator's name is not usable.
    #[error(
        "operator name \"{0}\" is not usable: 1 to 32 of a-z, 0-9 and hyphen, beginning with a letter"
    )]
    Name(String),
    /// A role is not known.
    #[error("role \"{0}\" is not known: viewer, operator, release-engineer or admin")]
    Role(String),
    /// There is an operator of this name.
    #[error("operator {0} exists already")]
    Exists(crate::OperatorName),
    /// There is no operator of this name.
    #[error("operator {0} does not exist")]
    Unknown(crate::OperatorName),
    /// The last admin cannot be removed: nobody could make another.
    #[error("operator {0} is the last admin: make another one first")]
    LastAdmin(crate::OperatorName),
    /// Too many operators.
    #[error("there are {0} operators already, and no more are kept")]
    TooMany(usize),
    /// A file of the operators cannot be put in its place.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The registry cannot be changed.
    #[error(transparent)]
    Fleet(#[from] fleet::FleetError),
    /// The authority would not issue the operator's certificate.
    #[error(transparent)]
    Authority(#[from] ca::CaError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A listener, a thread or the runtime cannot be had.
    #[error("cannot {what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
}
