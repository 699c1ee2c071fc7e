//! The broker as clients meet it: over mutual TLS, with registry, policies and journal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod client;
mod house;
mod mosquitto;
