//! A fixed range of seeds, and proof that a seed is a run.

/// Enough to find every kind of fault the simulator knows, few enough for every test run.
const SEEDS: u64 = 10_000;

#[test]
fn no_seed_shows_the_broker_do_what_it_may_not() {
    let mut deliveries = 0;
    for seed in 0..SEEDS {
        match simulate::run(seed, false) {
            Ok(report) => deliveries += report.deliveries,
            Err(failure) => panic!(
                "{}\nreplay: cargo run --release -p muster-simulate -- --seed {seed}",
                failure.reason
            ),
        }
    }
    assert!(
        deliveries > SEEDS,
        "clients hear of each other: {deliveries}"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let runs = |seed| (simulate::run(seed, false), simulate::run(seed, true));
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let (Ok(first), Ok(second)) = runs(seed) else {
            panic!("seed {seed} fails");
        };
        assert_eq!(first, second, "seed {seed}");
        traces.insert(first.trace);
    }
    assert!(traces.len() > 250, "seeds differ: {}", traces.len());
}
