//! What runs on a device: connects with the device's own certificate, takes firmware jobs,
//! installs into the idle one of two slots, tries the image and keeps it or falls back.
//! `update` is the pure core (state and event in, next state and effects out); the other
//! modules do what it asks: MQTT, HTTPS, files, the health command.
//! Neighbours: only `ota`'s pure half (trust roots, manifests, job documents); no server room.

mod agent;
mod backoff;
mod cancel;
mod clock;
mod dial;
mod download;
mod enrol;
mod error;
mod files;
mod health;
mod hooks;
mod https;
mod identity;
mod install;
mod jobs;
mod link;
mod looks;
mod mark;
mod pace;
#[cfg(test)]
mod powercut;
mod rebuild;
mod recover;
mod renewal;
mod renewer;
mod roots;
mod slots;
mod sound;
pub mod state;
mod term;
#[cfg(test)]
mod testserver;
mod tls;
mod trust;
pub mod tuf;
pub mod update;

pub use agent::{Agent, HEALTH_EVERY_MIN, HEALTH_TIMEOUT_MAX, Settings};
pub use enrol::{EnrolError, Enrolment, Fingerprint, Trust, Way, enrol};
pub use error::AgentError;
pub use files::{Disk, Files};
pub use health::Health;
pub use hooks::{HOOK_DEADLINE, Hooks};
pub use identity::Identity;
pub use ota::{Components, HardwareId};
pub use slots::Devices;
pub use state::Status;
pub use update::Slot;
