//! The registry through its public face: durable, atomic, and felt by live standings before an operation returns.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod attachments;
mod enrolment;
mod house;
mod keys;
mod revocation;
mod rows;
mod sweeping;
