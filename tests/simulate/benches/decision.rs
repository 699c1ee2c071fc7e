//! What a decision costs a message whose topic its connection knows: `cargo bench -p muster-simulate --bench decision`
//!
//! A publisher's is found with the receivers of its topic, a receiver's by itself. Neither allocates (`tests/warm.rs`).

#![allow(missing_docs, reason = "criterion's macros write functions")]

#[path = "../tests/warm/device.rs"]
mod device;

use criterion::{Criterion, criterion_group, criterion_main};

fn decision(criterion: &mut Criterion) {
    let (_runtime, mut warm) = device::warm();
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
