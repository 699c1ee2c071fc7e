use super::*;
use crate::topic::{self, TopicFilter, TopicName};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn found(tree: &TopicTree<()>, topic: &str) -> Vec<u64> {
    let mut owners = Vec::new();
    tree.matches(topic, &mut |entry| owners.push(entry.owner));
    owners.sort_unstable();
    owners
}

#[test]
fn wildcards_below_a_plain_head_match() {
    let tree = TopicTree::new();
    tree.insert("dt/+/light", 1, ());
    tree.insert("dt/sensor-1/light", 2, ());
    tree.insert("dt/sensor-1/#", 3, ());
    tree.insert("#", 4, ());
    assert_eq!(found(&tree, "dt/sensor-1/light"), [1, 2, 3, 4]);
    assert_eq!(found(&tree, "dt/sensor-1"), [3, 4]);
    assert_eq!(found(&tree, "$aws/sensor-1"), Vec::<u64>::new());
}

#[test]
fn without_parents_the_long_wildcard_needs_a_level() {
    let tree = TopicTree::with_parents(false);
    for (owner, filter) in [(1, "a/#"), (2, "a/b/#"), (3, "+/#"), (4, "#")] {
        tree.insert(filter, owner, ());
    }
    assert_eq!(found(&tree, "a"), [4]);
    assert_eq!(found(&tree, "a/b"), [1, 3, 4]);
    assert_eq!(found(&tree, "a/b/c"), [1, 2, 3, 4]);
}

#[test]
fn a_stamp_lasts_until_something_that_matters_changes() {
    let tree = TopicTree::new();
    tree.insert("cmd/lamp-1/on", 1, ());
    let stamp = tree.matches("cmd/lamp-1/on", &mut |_| {});
    assert!(tree.is_current(&stamp));
    tree.insert("cmd/lamp-1/off", 2, ());
    assert!(!tree.is_current(&stamp));
    let stamp = tree.matches("cmd/lamp-1/on", &mut |_| {});
    tree.insert("+/lamp-1/on", 3, ());
    assert!(!tree.is_current(&stamp));
    let stamp = tree.matches("cmd/lamp-1/on", &mut |_| {});
    assert!(!tree.remove("cmd/lamp-1/on", 9), "nothing to remove");
    assert!(tree.is_current(&stamp));
    assert!(tree.remove("cmd/lamp-1/on", 1));
    assert!(!tree.is_current(&stamp));
}

#[test]
fn a_search_ends_with_its_work_and_goes_on_behind_that_whatever_changes() {
    let tree = TopicTree::new();
    for owner in 0..1_u64 << 10 {
        let level = |at: u32| if owner & (1 << at) == 0 { "a" } else { "+" };
        let filter: Vec<&str> = (0..10).map(level).collect();
        tree.insert(&filter.join("/"), owner, ());
    }
    let topic = "a/a/a/a/a/a/a/a/a/a";
    let mut search = Search::default();
    let mut found = BTreeSet::new();
    let mut portions = 0;
    while !search.is_done() {
        let before = found.len();
        tree.search(&mut search, topic, &mut Work::of(100), &mut |entry| {
            assert!(found.insert(entry.owner), "{} twice", entry.owner);
        });
        assert!(
            found.len() - before <= 34,
            "{} in one portion",
            found.len() - before
        );
        portions += 1;
        if portions == 20 {
            tree.insert("#", 10_000, ());
            let seen = *found.first().unwrap();
            let level = |at: u32| if seen & (1 << at) == 0 { "a" } else { "+" };
            let filter: Vec<&str> = (0..10).map(level).collect();
            assert!(tree.remove(&filter.join("/"), seen));
        }
    }
    assert!(portions > 40);
    // Half of them lie in the one shard, half in the wide one.
    assert!(
        (1 << 10..=(1 << 10) + 1).contains(&found.len()),
        "{}",
        found.len()
    );
    assert!(!tree.is_current(&search.stamp()));
}

#[test]
fn a_search_breaks_off_among_the_many_of_one_filter_too() {
    for filter in ["all", "#", "+", "all/#"] {
        let tree = TopicTree::new();
        for owner in 0..1_000 {
            tree.insert(filter, 2 * owner, ());
        }
        tree.insert("all", 5_000, ());
        let (mut search, mut found) = (Search::default(), Vec::new());
        let mut portions = 0;
        while !search.is_done() {
            let before = found.len();
            tree.search(&mut search, "all", &mut Work::of(100), &mut |entry| {
                found.push(entry.owner);
            });
            assert!(found.len() - before <= 50, "{filter}");
            portions += 1;
            // One comes before where it is, and the next goes.
            let last = found.last().copied().unwrap_or(0);
            tree.insert(filter, last.saturating_sub(1) | 1, ());
            tree.remove(filter, last + 2);
        }
        assert!(portions >= 20, "{filter}");
        let mut once = found.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), found.len(), "{filter}: one was found twice");
        let stayed = found.iter().filter(|owner| *owner % 2 == 0).count();
        assert!(stayed >= 1_000 - portions, "{filter}: {stayed}");
    }
}

#[test]
fn what_is_empty_is_given_back() {
    let tree = TopicTree::new();
    for filter in ["a/b/c/d", "a/+/c/#", "#"] {
        assert!(!tree.insert(filter, 1, ()));
        assert!(tree.insert(filter, 1, ()), "replaced");
        assert!(tree.remove(filter, 1));
        assert!(!tree.remove(filter, 1));
    }
    assert!(tree.wide.root.read().is_empty());
    assert!(tree.narrow.iter().all(|shard| shard.root.read().is_empty()));
}

/// Below the roots, and whether each has a reason to be: subscriptions, or ways that part there.
fn nodes(tree: &TopicTree<()>) -> usize {
    let shards = tree.narrow.iter().chain([&tree.wide]);
    shards.map(|shard| shard.root.read().nodes_below()).sum()
}

#[test]
fn a_filter_costs_two_nodes_at_most_however_many_levels_it_has() {
    let tree = TopicTree::new();
    let tails = ["/a".repeat(126), "/+".repeat(126), "/+/a".repeat(63)];
    let filters: Vec<String> = (0..300)
        .map(|n| format!("own/{n:x}{}", tails[n % 3]))
        .chain((0..300).map(|n| format!("own/t{}/{n:x}{}", "/a".repeat(60), "/b".repeat(60))))
        .collect();
    for (at, filter) in filters.iter().enumerate() {
        tree.insert(filter, 1, ());
        assert!(nodes(&tree) <= 2 * (at + 1), "{filter}");
        assert_eq!(found(&tree, &filter.replace('+', "x")), [1], "{filter}");
    }
    for (at, filter) in filters.iter().enumerate() {
        assert!(tree.remove(filter, 1), "{filter}");
        assert!(nodes(&tree) <= 2 * (filters.len() - at - 1), "{filter}");
    }
    assert_eq!(nodes(&tree), 0);
}

#[test]
fn room_for_many_is_given_back_with_them() {
    let tree = TopicTree::new();
    for n in 0..10_000 {
        tree.insert(&format!("own/t/{n}"), 1, ());
    }
    for n in 1..10_000 {
        tree.remove(&format!("own/t/{n}"), 1);
    }
    assert_eq!(found(&tree, "own/t/0"), [1]);
    for shard in &tree.narrow {
        assert!(shard.root.read().room() < 64);
    }
}

/// What a session does: subscribe, or unsubscribe.
fn changes(levels: usize) -> impl Strategy<Value = Vec<(bool, u64, String)>> {
    let filter = format!("((\\$?[ab]|\\+|){{1}}/){{0,{levels}}}([ab]|\\+|#)");
    let filter = prop::string::string_regex(&filter).unwrap();
    prop::collection::vec((prop::bool::weighted(0.6), 0..50_u64, filter), 0..80)
}

/// The owners of the subscriptions that match, each as often as it has one that does.
fn expected(alive: &BTreeSet<(u64, String)>, topic: &str) -> Vec<u64> {
    let name: TopicName = topic.parse().unwrap();
    let matching = alive.iter().filter(|(_, filter)| {
        let filter: TopicFilter = filter.parse().unwrap();
        topic::matches(&filter, &name)
    });
    let mut owners: Vec<u64> = matching.map(|(owner, _)| *owner).collect();
    owners.sort_unstable();
    owners
}

fn change(
    tree: &TopicTree<()>,
    alive: &mut BTreeSet<(u64, String)>,
    (insert, owner, filter): &(bool, u64, String),
) {
    let one = (*owner, filter.clone());
    if *insert {
        assert_eq!(tree.insert(filter, *owner, ()), !alive.insert(one));
    } else {
        assert_eq!(tree.remove(filter, *owner), alive.remove(&one));
    }
}

proptest! {
    /// [MQTT-3.3.2-3, 4.7.2-1] [MQTT311-3.3.2-3, 4.7.2-1]
    #[test]
    fn finds_what_matching_one_by_one_finds(
        changes in changes(5),
        topics in prop::collection::vec("(\\$?[ab]?/){0,6}[ab]", 1..8),
        work in 1..9_usize,
    ) {
        let tree = TopicTree::new();
        let mut alive = BTreeSet::new();
        for one in &changes {
            change(&tree, &mut alive, one);
            prop_assert!(nodes(&tree) <= 2 * alive.len());
        }
        for topic in &topics {
            let expected = expected(&alive, topic);
            prop_assert_eq!(found(&tree, topic), &expected[..]);
            let (mut search, mut found) = (Search::default(), Vec::new());
            while !search.is_done() {
                let work = &mut Work::of(work);
                tree.search(&mut search, topic, work, &mut |entry| found.push(entry.owner));
            }
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
        for (owner, filter) in &alive {
            prop_assert!(tree.remove(filter, *owner));
        }
        prop_assert_eq!(nodes(&tree), 0);
    }

    /// Nodes are put in between and become one under a search.
    #[test]
    fn a_search_finds_once_what_stays_and_nothing_twice_whatever_changes(
        before in changes(5),
        meanwhile in changes(5),
        topic in "[ab]/([ab]/){2,5}[ab]",
    ) {
        let tree = TopicTree::new();
        // Each subscription has an owner of its own, so that what is found says which it was.
        let numbered = |changes: Vec<(bool, u64, String)>| changes.into_iter().map(|(insert, _, filter)| {
            let number = filter.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(257) + u64::from(byte));
            (insert, number, filter)
        }).collect::<Vec<_>>();
        let (before, mut meanwhile) = (numbered(before), numbered(meanwhile));
        let mut alive = BTreeSet::new();
        for one in &before {
            change(&tree, &mut alive, one);
        }
        // Half of what changes is what is there.
        let there = alive.iter().map(|(owner, filter)| (false, *owner, filter.clone()));
        let there: Vec<_> = there.step_by(2).collect();
        meanwhile.extend(there);
        let mut always = alive.clone();
        let mut ever = alive.clone();
        let (mut search, mut seen) = (Search::default(), Vec::new());
        while !search.is_done() {
            tree.search(&mut search, &topic, &mut Work::of(1), &mut |entry| seen.push(entry.owner));
            if let Some(one) = meanwhile.pop() {
                change(&tree, &mut alive, &one);
                always.retain(|kept| alive.contains(kept));
                ever.extend(alive.iter().cloned());
            }
        }
        let (always, ever) = (expected(&always, &topic), expected(&ever, &topic));
        prop_assert!(always.iter().all(|owner| seen.contains(owner)), "{seen:?} of {always:?}");
        prop_assert!(seen.iter().all(|owner| ever.contains(owner)));
        let mut once = seen.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), seen.len(), "{:?}", seen);
    }
}
