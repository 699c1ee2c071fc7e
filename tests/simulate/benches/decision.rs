//! What a decision costs a message whose topic its connection knows: `cargo bench -p muster-simulate --bench decision`
//!
//! A publisher's is found with the receivers of its topic, a receiver's by itself. Neither allocates (`tests/warm.rs`).
//! Machines differ: beside them stands what one look into a hash map of the same names costs, in the same run.

#![allow(missing_docs, reason = "criterion's macros write functions")]

#[path = "../tests/warm/device.rs"]
mod device;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hashbrown::HashMap;

fn decision(criterion: &mut Criterion) {
    let (_runtime, mut warm) = device::warm();
    let known: HashMap<Box<str>, bool> = HashMap::from_iter([(device::PUBLISHED.into(), true)]);
    criterion.bench_function(
        "the measure: one look into a hash map of a topic",
        |bencher| {
            bencher.iter(|| assert!(known.get(black_box(device::PUBLISHED)) == Some(&true)));
        },
    );
    criterion.bench_function("a known topic: may be published", |bencher| {
        bencher.iter(|| assert!(black_box(&warm).is_decided()));
    });
    criterion.bench_function(
        "a known topic: may be published, and to whom it goes",
        |bencher| {
            bencher.iter(|| assert!(warm.may_publish()));
        },
    );
    criterion.bench_function("a known topic: may be received", |bencher| {
        bencher.iter(|| assert!(warm.may_receive()));
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);
