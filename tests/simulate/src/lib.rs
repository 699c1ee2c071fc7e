//! The deterministic simulation of the broker: one thread, one seed, the same run byte by byte.
//!
//! The own code of `broker` (connections, session machine, router, authorisation, recovery, janitor) and of the journal
//! in `store` runs in a runtime of one thread with a clock that moves when the simulator says so. The simulator is the
//! network, the disk, the clock, the operator and all clients ([`world`]); an independent [`model`] of the standards
//! judges every packet.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "test code: a wrong index is a wrong test, and says where"
)]

mod client;
mod link;
mod model;
mod plan;
#[cfg(test)]
mod scenes;
mod server;
mod wire;
mod world;

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use world::World;

thread_local! {
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether anything has panicked since the last question. A panic in a task of the broker would
/// otherwise be a lost connection.
pub(crate) fn panicked() -> bool {
    PANICKED.take()
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICKED.set(true);
            before(info);
        }));
    });
}

/// What a run showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Of every byte that clients received, and when.
    pub trace: u32,
    /// Messages that clients received.
    pub deliveries: u64,
    /// Times the server was started again.
    pub restarts: usize,
}

/// A run in which the broker did what it may not.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What the model expected.
    pub reason: String,
    /// What happened, line by line, where it was asked for.
    pub log: Vec<String>,
}

/// Runs a seed; `keep_log` tells what happened where it fails.
///
/// # Errors
/// [`Failure`].
pub fn run(seed: u64, keep_log: bool) -> Result<Report, Box<Failure>> {
    watch_panics();
    let failure = |reason: String, log: Option<Vec<String>>| {
        Box::new(Failure {
            seed,
            reason,
            log: log.unwrap_or_default(),
        })
    };
    let mut world = World::new(seed, keep_log).map_err(|reason| failure(reason, None))?;
    match world.run() {
        Ok(()) => Ok(Report {
            trace: world.trace(),
            deliveries: world.model.deliveries,
            restarts: world.model.crashes.len(),
        }),
        Err(reason) => Err(failure(reason, world.log.take())),
    }
}
