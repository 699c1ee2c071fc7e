//! What a QoS 0 message allocates in steady state on its whole way: read, decoded, authorised, matched, put into
//! mailboxes, authorised for each receiver, encoded, written. The broker is the real one from a connection's first
//! packet on; only TLS and the socket are left out, and the streams that stand for them allocate nothing once warm.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod pipe;
#[path = "pipe/world.rs"]
mod world;

use pipe::{Link, packet, properties, text, turns_until};
use world::{World, took};

const TOPIC: &str = "dt/lamp-1/temperature";
const PAYLOAD_BYTES: usize = 128;
/// Messages before the count begins, and in it.
const WARM_UP: usize = 2_000;
const COUNTED: usize = 2_000;

/// Sends so many messages, `batch` in one read, and sees each come to every receiver.
async fn relay(world: &World, publisher: &Link, receivers: &[Link], messages: usize, batch: usize) {
    let mut body = text(TOPIC);
    body.extend(properties(world.version));
    body.extend([0x55; PAYLOAD_BYTES]);
    let publish = packet(0x30, &body).repeat(batch);
    for _ in 0..messages / batch {
        publisher.say(&publish);
        let mut left = receivers;
        turns_until(|| {
            while let Some((first, rest)) = left.split_first()
                && took(first, publish.len())
            {
                left = rest;
            }
            left.is_empty()
        })
        .await;
    }
}

/// Allocations of one message.
fn allocations(world: &World, receivers: usize, batch: usize) -> f64 {
    let publisher = world.connect("publisher");
    let receivers: Vec<Link> = (0..receivers)
        .map(|number| {
            let receiver = world.connect(&format!("receiver-{number}"));
            world.subscribe(&receiver, TOPIC);
            receiver
        })
        .collect();
    let count = |messages| {
        let relay = relay(world, &publisher, &receivers, messages, batch);
        allocation_counter::measure(|| world.runtime.block_on(relay)).count_total
    };
    count(WARM_UP);
    // What entering the runtime allocates is in both.
    (count(2 * COUNTED) - count(COUNTED)) as f64 / COUNTED as f64
}

/// What all receivers of a message share, its payload in it.
const SHARED: f64 = 1.0;
/// A receiver that finds many messages in its mailbox makes room for them anew each time, at once.
const ROOM_FOR_TWENTY: f64 = 1.0;

#[test]
fn a_message_allocates_what_its_receivers_share_and_nothing_else() {
    for version in [4, 5] {
        for (receivers, batch, room) in [
            (1, 1, 0.0),
            (8, 1, 0.0),
            (1, 20, ROOM_FOR_TWENTY),
            (8, 20, ROOM_FOR_TWENTY),
        ] {
            let allocations = allocations(&World::new(version), receivers, batch);
            let bound = SHARED + receivers as f64 * room / batch as f64;
            assert!(
                (SHARED..=bound).contains(&allocations),
                "version {version}, {receivers} receivers, {batch} in a read: {allocations}, the bound is {bound}"
            );
        }
    }
}
