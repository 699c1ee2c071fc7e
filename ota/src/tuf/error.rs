//! What can be wrong with a TUF repository, each in its own words.

/// Why a repository, or a part of it, is not believed. What was verified before stays trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TufError {
    /// There is no trusted root to begin with.
    #[error("no root is trusted yet: begin with `init ROOT`")]
    NoRoot,
    /// Metadata that is not what it should be.
    #[error("{role} metadata cannot be read: {why}")]
    Malformed {
        /// Which role's.
        role: String,
        /// Where and why.
        why: String,
    },
    /// More bytes than are read.
    #[error("{what} is longer than the {bound} bytes that are read of it")]
    TooLarge {
        /// What was too large.
        what: String,
        /// The bound in bytes.
        bound: u64,
    },
    /// Two signatures under one key id (TUF 1.0 §4.2.1).
    #[error("{role} metadata carries two signatures under key id `{key}`")]
    RepeatedSignature {
        /// Which role's.
        role: String,
        /// The key id, cut.
        key: String,
    },
    /// Fewer signatures than the threshold.
    #[error(
        "{role} metadata is signed by {have} of the {need} trusted keys that {delegator} asks for"
    )]
    Threshold {
        /// Which role's.
        role: String,
        /// Who names the keys.
        delegator: String,
        /// Distinct trusted keys whose signature verifies.
        have: u32,
        /// The threshold.
        need: u32,
    },
    /// Another version than the one asked for.
    #[error("{role} metadata has version {version} where version {wanted} was announced")]
    WrongVersion {
        /// Which role's.
        role: String,
        /// The version it has.
        version: u64,
        /// The version it must have.
        wanted: u64,
    },
    /// A version below one seen before.
    #[error("{what} went back to version {version}; version {trusted} was trusted before")]
    Rollback {
        /// Whose version.
        what: String,
        /// The version offered.
        version: u64,
        /// The version trusted.
        trusted: u64,
    },
    /// A role that a snapshot listed and its successor does not.
    #[error("the new snapshot no longer lists `{file}`, which the trusted one did")]
    Withdrawn {
        /// The missing file's name.
        file: String,
    },
    /// A delegated role that the snapshot does not list.
    #[error("role `{role}` was delegated to but is not in the snapshot")]
    NotInSnapshot {
        /// The role.
        role: String,
    },
    /// Bytes that are not those signed for.
    #[error("{what} is not what was signed: {why}")]
    Content {
        /// What was read.
        what: String,
        /// Length or hash, expected and got.
        why: String,
    },
    /// Past its expiry.
    #[error("{role} metadata version {version} expired at {expires} (it is {now})")]
    Expired {
        /// Which role's.
        role: String,
        /// Its version.
        version: u64,
        /// When it expired.
        expires: String,
        /// The time it was judged at.
        now: String,
    },
    /// The repository does not have a file it must have.
    #[error("the repository has no `{file}`")]
    Missing {
        /// The file's name in the repository.
        file: String,
    },
    /// Nobody in the delegation tree knows the target.
    #[error("there is no target `{path}`")]
    NoTarget {
        /// The target's path.
        path: String,
    },
    /// The search for a target went through too many roles.
    #[error(
        "target `{path}` was not found in the first {most} delegated roles, and no more are asked"
    )]
    TooManyRoles {
        /// The target's path.
        path: String,
        /// How many roles are asked.
        most: usize,
    },
    /// The repository could not be asked.
    #[error("{why}")]
    Fetch {
        /// What the transport said.
        why: String,
    },
    /// The trusted files could not be read or kept.
    #[error("{why}")]
    Store {
        /// Which file, and what the system said.
        why: String,
    },
}
