//! The HTTPS face from outside: every request goes through TLS, authentication and routing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests and what they share may fail loudly"
)]

mod access;
mod devices;
mod firmware;
mod house;
mod registry;
