//! The broker as clients meet it: over mutual TLS, with registry, policies and journal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod answers;
mod authorisation;
mod bounds;
mod client;
mod deliveries;
mod durable;
mod hostile;
mod house;
mod mosquitto;
mod refusals;
mod retained;
mod rumqtt;
mod sessions;
mod sharing;
mod standing;
mod websocket;
