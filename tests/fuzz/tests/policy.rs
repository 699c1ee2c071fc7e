//! The compiled policy engine and the naive one decide alike on random cases.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may fail loudly, and names the case it failed at"
)]

use std::panic::catch_unwind;

/// Bytes for the choices of one case; nearly none makes so many.
const CHOICES: usize = 256;

fn hold(cases: std::ops::Range<u64>) {
    let (mut taken, mut all) = (0, 0);
    for seed in cases {
        let mut bytes = [0; CHOICES];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        let held = catch_unwind(|| fuzz::policy_case(&bytes));
        let (read, written) = held.unwrap_or_else(|_| panic!("case {seed}"));
        (taken, all) = (taken + read, all + written);
    }
    // The generator writes of the language: what the engine refuses tests nothing.
    assert!(
        taken * 3 > all,
        "{taken} of {all} documents are of the language"
    );
}

#[test]
fn both_decide_alike() {
    hold(0..20_000);
}

/// Minutes in a release build: `cargo test --release -p muster-fuzz --test policy -- --ignored`.
#[test]
#[ignore = "ten million cases"]
fn both_decide_alike_ten_million_times() {
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    std::thread::scope(|scope| {
        let share = 10_000_000 / threads + 1;
        for thread in 0..threads {
            scope.spawn(move || hold(thread * share..(thread + 1) * share));
        }
    });
}
