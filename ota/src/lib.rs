//! Updates devices: firmware that only offline release keys can make acceptable, AWS IoT jobs that carry
//! it, and rollouts that move in waves and undo themselves.
//! The pure half (always built) holds documents, keys, packages, job messages and the rollout planner: no
//! sockets, no clock, no disk. `agent` and the offline signer use it.
//! The `server` half keeps firmware and jobs in `store` and asks `fleet` who is in a group. `muster` hands
//! it what devices ask on reserved topics and takes its answers to `broker`; `control` is its API.

mod canonical;
pub mod delta;
mod digest;
mod error;
pub mod image;
pub mod job;
mod keys;
pub mod manifest;
mod names;
#[cfg(feature = "server")]
mod newest;
pub mod package;
pub mod rollout;
#[cfg(feature = "server")]
pub mod server;
mod signed;
pub mod targets;
pub mod trust;
pub mod tuf;

pub use digest::{Hasher, Sha256, sha256};
pub use error::Error;
pub use image::{Content, ImageCheck, ImageFacts};
pub use job::{ExecutionStatus, InstallDocument};
pub use keys::{KeyId, PublicKey, ReleaseKey, Signer};
pub use manifest::{Components, DeltaSource, Manifest};
pub use names::{
    FirmwareName, FirmwareVersion, HardwareId, JobId, MAX_NAME_BYTES, RoleName, RolloutId,
};
#[cfg(feature = "server")]
pub use server::{DeviceRequest, Message, Ota, Publish};
pub use signed::{MAX_SIGNATURES, co_sign};
pub use targets::{Targets, TargetsSpec};
pub use trust::{Root, RootDraft, RootSpec};
