//! A client of any TUF 1.0 repository: the workflow of the specification's section 5, step by step, over
//! a [`Repository`] that fetches and a [`Datastore`] that keeps. No sockets, no disk, no clock: who calls
//! brings them.
//!
//! Muster's own roots and manifests ([`crate::trust`], [`crate::manifest`]) are documents of the same frame
//! and stricter: one signature scheme, key ids that are hashes. Here the rules are the specification's, so
//! that the verifier can be held against every other TUF client.

mod client;
mod delegation;
mod error;
mod hashes;
mod key;
mod metadata;
mod target;
#[cfg(test)]
mod tests;

pub use client::{Client, Datastore, Repository, file_name, verify_root};
pub use error::TufError;
pub use target::{Target, TargetCheck};

/// Most successors of a root that are followed in one go (TUF 1.0 §5.3.3, its Y).
pub const MAX_ROOTS: u64 = 256;
/// Most delegated roles that are asked for one target (TUF 1.0 §5.6.7.1).
pub const MAX_ROLES: usize = 32;
/// Largest root metadata read (TUF 1.0 §5.3.3, its W).
pub const MAX_ROOT_BYTES: u64 = 512_000;
/// Largest timestamp metadata read (TUF 1.0 §5.4.1, its X).
pub const MAX_TIMESTAMP_BYTES: u64 = 16_384;
/// Largest snapshot metadata read, whatever the timestamp says of it (TUF 1.0 §5.5.1).
pub const MAX_SNAPSHOT_BYTES: u64 = 2_000_000;
/// Largest targets metadata read, whatever the snapshot says of it (TUF 1.0 §5.6.1).
pub const MAX_TARGETS_BYTES: u64 = 5_000_000;
