//! Who receives a message, among many subscriptions.

use std::hint::black_box;

use broker::bench::TopicTree;

use crate::Step;

const SUBSCRIPTIONS: u64 = 20_000;

pub(crate) fn exact() -> Step {
    matching("cmd/lamp-500/set")
}

pub(crate) fn wildcard() -> Step {
    matching("dt/x/floor-500/t")
}

fn matching(topic: &'static str) -> Step {
    let tree = TopicTree::new();
    for number in 0..SUBSCRIPTIONS {
        tree.insert(&format!("cmd/lamp-{number}/set"), number);
        if number % 10 == 0 {
            tree.insert(&format!("dt/+/floor-{number}/#"), number);
        }
    }
    Box::new(move || assert_eq!(tree.count(black_box(topic)), 1))
}
