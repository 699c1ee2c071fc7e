//! What a match costs, by the number of subscriptions held: it should not matter.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use broker::bench::TopicTree;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic_tree");
    for subscriptions in [1_000_u64, 100_000, 1_000_000] {
        let tree = TopicTree::new();
        for n in 0..subscriptions {
            tree.insert(&format!("cmd/lamp-{n}/set"), n);
            if n % 10 == 0 {
                tree.insert(&format!("dt/+/floor-{n}/#"), n);
            }
        }
        for (name, topic) in [
            ("exact", "cmd/lamp-500/set"),
            ("wildcard", "dt/x/floor-500/t"),
        ] {
            group.bench_function(BenchmarkId::new(name, subscriptions), |bencher| {
                bencher.iter(|| assert_eq!(tree.count(black_box(topic)), 1));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, matching);
criterion_main!(benches);
