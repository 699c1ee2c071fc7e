//! A hundred pairs that each have a message in turn, so that every line of a connection comes from far: for cachegrind, with a
//! cache of its last level that holds less than they are.
//!
//!     cargo build --profile profiling -p muster-simulate --example spread
//!     valgrind --tool=cachegrind --cache-sim=yes --LL=131072,16,64 target/profiling/examples/spread ROUNDS
//!
//! The difference of two runs, by the messages between them, is what a message brings from far: `cg_diff`, `cg_annotate`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../tests/pipe/mod.rs"]
mod pipe;
#[path = "../tests/pipe/world.rs"]
mod world;

use pipe::{packet, properties, text, turns_until};
use world::{World, took};

const PAIRS: usize = 100;
const PAYLOAD_BYTES: usize = 128;

fn main() -> anyhow::Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(100), |n| n.parse())?;
    let world = World::new(4);
    let pairs: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let topic = format!("dt/lamp-{pair}/temperature");
            let publisher = world.connect(&format!("publisher-{pair}"));
            let receiver = world.connect(&format!("receiver-{pair}"));
            world.subscribe(&receiver, &topic);
            let mut body = text(&topic);
            body.extend(properties(world.version));
            body.extend([0x55; PAYLOAD_BYTES]);
            (publisher, receiver, packet(0x30, &body))
        })
        .collect();
    world.runtime.block_on(async {
        for _ in 0..rounds {
            for (publisher, receiver, publish) in &pairs {
                publisher.say(publish);
                turns_until(|| took(receiver, publish.len())).await;
            }
        }
    });
    println!("{} messages", rounds * PAIRS);
    Ok(())
}
