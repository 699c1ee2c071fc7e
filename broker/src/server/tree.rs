//! The topic tree: which subscriptions match a topic name.
//!
//! Read-mostly and shared by all cores. Matching costs what the topic's depth and the matches
//! cost, whatever the number of subscriptions held. The tree is cut into shards by the first two
//! levels, each with a generation of its own, so that a session subscribing under `cmd/lamp-1/…`
//! does not spoil what connections remember of `dt/lamp-2/…`; filters with a wildcard in those two
//! levels live in one wide shard which every match visits too.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::work::{LOOK, Work};

/// Shards for filters whose first two levels are plain. A power of two.
const SHARDS: usize = 64;

/// Subscriptions by topic filter. `T` is what a subscriber is; `owner` numbers tell sessions apart.
pub(crate) struct TopicTree<T> {
    /// Whether `a/#` matches `a`, as the standard has it and AWS IoT has not.
    parents: bool,
    narrow: Box<[Shard<T>]>,
    wide: Shard<T>,
}

/// What a match was true of: compare with [`TopicTree::is_current`] before using it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    shard: usize,
    narrow: u64,
    wide: u64,
}

/// A search for the subscriptions that match a topic, and how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Search {
    at: Option<Place>,
    /// The way to the last node that was looked at.
    way: Option<Vec<Step>>,
    stamp: Stamp,
}

impl Search {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.at, Some(Place::End))
    }

    /// What it was true of when it began.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Narrow,
    Wide,
    End,
}

/// From a node to the next level of a topic.
#[derive(Debug, Clone, Copy)]
enum Step {
    Plus,
    Name,
}

/// What is the same for all nodes of a portion.
struct Pass<'p, V> {
    parents: bool,
    work: &'p mut Work,
    /// Where it breaks off, the way back from there.
    way: Vec<Step>,
    visit: &'p mut V,
}

impl<V> Pass<'_, V> {
    fn look<T>(&mut self, below: &[Entry<T>], here: &[Entry<T>]) -> ControlFlow<()>
    where
        V: FnMut(&Entry<T>),
    {
        below.iter().for_each(&mut *self.visit);
        here.iter().for_each(&mut *self.visit);
        self.work
            .spend(LOOK + 2 * LOOK * (below.len() + here.len()));
        match self.work.is_spent() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// One subscription in the tree.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// The session's number.
    pub(crate) owner: u64,
    /// What the session asked for.
    pub(crate) value: T,
}

struct Shard<T> {
    // Held for reading during one match, for writing during one change; never across an await.
    root: RwLock<Node<T>>,
    // Raised inside the write lock, so that a generation read under the read lock names exactly
    // the tree that was matched.
    generation: AtomicU64,
}

struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    plus: Option<Box<Node<T>>>,
    here: Vec<Entry<T>>,
    below: Vec<Entry<T>>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            children: HashMap::new(),
            plus: None,
            here: Vec::new(),
            below: Vec::new(),
        }
    }
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        Self {
            root: RwLock::new(Node::default()),
            generation: AtomicU64::new(0),
        }
    }
}

impl<T> Default for TopicTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TopicTree<T> {
    /// An empty tree.
    pub(crate) fn new() -> Self {
        Self::with_parents(true)
    }

    /// An empty tree; whether `a/#` matches `a` in it.
    pub(crate) fn with_parents(parents: bool) -> Self {
        Self {
            parents,
            narrow: (0..SHARDS).map(|_| Shard::default()).collect(),
            wide: Shard::default(),
        }
    }

    /// Adds a subscription, or replaces the one the owner has under the same filter.
    /// Returns whether there was one [MQTT-3.8.4-3].
    pub(crate) fn insert(&self, filter: &str, owner: u64, value: T) -> bool {
        let shard = self.home(filter);
        let mut root = shard.root.write();
        let entries = root.descend(filter);
        let replaced = match entries.iter_mut().find(|entry| entry.owner == owner) {
            Some(entry) => {
                entry.value = value;
                true
            }
            None => {
                if entries.is_empty() {
                    // Most filters have one subscriber, and there are as many of them as devices.
                    entries.reserve_exact(1);
                }
                entries.push(Entry { owner, value });
                false
            }
        };
        shard.generation.fetch_add(1, Ordering::Release);
        replaced
    }

    /// Removes the owner's subscription under the filter; returns whether there was one.
    pub(crate) fn remove(&self, filter: &str, owner: u64) -> bool {
        let shard = self.home(filter);
        let mut root = shard.root.write();
        let removed = root.remove(&mut filter.split('/'), owner);
        if removed {
            shard.generation.fetch_add(1, Ordering::Release);
        }
        removed
    }

    /// Shows `visit` every subscription that matches `topic`, and no other [MQTT-3.3.2-3] [MQTT311-3.3.2-3], and returns
    /// what the match was true of.
    pub(crate) fn matches(&self, topic: &str, visit: &mut impl FnMut(&Entry<T>)) -> Stamp {
        let mut search = Search::default();
        self.search(&mut search, topic, &mut Work::unbounded(), visit);
        search.stamp
    }

    /// Goes on with a search for the subscriptions that match `topic`: to its end, or until the work is spent. Overlapping
    /// wildcards can make the nodes to be looked at twice as many at each level, whether they match in the end or not. What
    /// has been subscribed meanwhile may be left out, and what has been unsubscribed may be found.
    pub(crate) fn search(
        &self,
        search: &mut Search,
        topic: &str,
        work: &mut Work,
        visit: &mut impl FnMut(&Entry<T>),
    ) {
        // [MQTT-4.7.2-1] [MQTT311-4.7.2-1]: a filter that begins with a wildcard does not match a `$` topic.
        let plain = !topic.starts_with('$');
        let at = match search.at {
            Some(at) => at,
            None => {
                let shard = self.shard_of(topic);
                search.stamp.shard = shard;
                search.stamp.narrow = self.generation(shard);
                search.stamp.wide = self.wide.generation.load(Ordering::Acquire);
                Place::Narrow
            }
        };
        let places = match at {
            Place::Narrow => &[Place::Narrow, Place::Wide][..],
            Place::Wide => &[Place::Wide],
            Place::End => &[],
        };
        for place in places {
            let shard = match place {
                Place::Narrow => self.narrow.get(search.stamp.shard),
                Place::Wide | Place::End => Some(&self.wide),
            };
            let Some(shard) = shard else { continue };
            let resumed = search.way.take();
            let mut pass = Pass {
                parents: self.parents,
                work,
                way: Vec::new(),
                visit,
            };
            let root = shard.root.read();
            let looked = root.visit(Some(topic), plain, resumed.as_deref(), &mut pass);
            if looked.is_break() {
                pass.way.reverse();
                search.way = Some(pass.way);
                search.at = Some(*place);
                return;
            }
        }
        search.at = Some(Place::End);
    }

    /// Whether a match with this stamp would still give the same subscriptions.
    pub(crate) fn is_current(&self, stamp: &Stamp) -> bool {
        self.wide.generation.load(Ordering::Acquire) == stamp.wide
            && self.generation(stamp.shard) == stamp.narrow
    }

    fn generation(&self, shard: usize) -> u64 {
        let shard = self.narrow.get(shard);
        shard.map_or(0, |shard| shard.generation.load(Ordering::Acquire))
    }

    fn home(&self, filter: &str) -> &Shard<T> {
        if first_two(filter).any(|level| level == "+" || level == "#") {
            return &self.wide;
        }
        self.narrow.get(self.shard_of(filter)).unwrap_or(&self.wide)
    }

    fn shard_of(&self, name: &str) -> usize {
        let head = name
            .match_indices('/')
            .nth(1)
            .and_then(|(at, _)| name.get(..at))
            .unwrap_or(name);
        spread(head.as_bytes()) % SHARDS
    }
}

/// The same number for the same bytes in every run, so that a simulated run can be run again: which filters share a shard
/// decides which searches a change makes begin anew. Who chooses names that share one makes its own work dearer.
fn spread(bytes: &[u8]) -> usize {
    const ODD: u64 = 0x517c_c1b7_2722_0a95;
    let mixed = bytes.iter().fold(0_u64, |hash, byte| {
        (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(ODD)
    });
    // Truncation is meant: the high bits are mixed best.
    (mixed >> 40) as usize
}

fn first_two(name: &str) -> impl Iterator<Item = &str> {
    // `a/#` also matches `a`, and `a/b/#` matches `a/b`, which has the shard of `a/b`.
    name.split('/').take(2)
}

impl<T> Node<T> {
    fn descend(&mut self, filter: &str) -> &mut Vec<Entry<T>> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return &mut node.below,
                "+" => node.plus.get_or_insert_default(),
                _ => node.children.entry_ref(level).or_default(),
            };
        }
        &mut node.here
    }

    fn remove<'a>(&mut self, levels: &mut impl Iterator<Item = &'a str>, owner: u64) -> bool {
        match levels.next() {
            None => take(&mut self.here, owner),
            Some("#") => take(&mut self.below, owner),
            Some("+") => {
                let Some(next) = self.plus.as_mut() else {
                    return false;
                };
                let removed = next.remove(levels, owner);
                if next.is_empty() {
                    self.plus = None;
                }
                removed
            }
            Some(level) => {
                let Some(next) = self.children.get_mut(level) else {
                    return false;
                };
                let removed = next.remove(levels, owner);
                if next.is_empty() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.below.is_empty()
            && self.plus.is_none()
            && self.children.is_empty()
    }

    /// `rest` is what of the topic lies below this node; `None` when the topic ends here. `resumed` is where an earlier
    /// portion broke off in this node's tree; it has looked at the node itself then.
    /// As deep as the topic has levels, which `Limits::topic_levels` bounds.
    fn visit<V: FnMut(&Entry<T>)>(
        &self,
        rest: Option<&str>,
        wildcards: bool,
        resumed: Option<&[Step]>,
        pass: &mut Pass<'_, V>,
    ) -> ControlFlow<()> {
        let way = match resumed {
            Some(way) => way.split_first(),
            None => {
                let below = wildcards && (pass.parents || rest.is_some());
                let below = if below { &self.below[..] } else { &[] };
                let here = if rest.is_none() { &self.here[..] } else { &[] };
                pass.look(below, here)?;
                None
            }
        };
        let Some(rest) = rest else {
            return ControlFlow::Continue(());
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let (plus, name) = match way {
            Some((Step::Name, way)) => (None, Some(way)),
            Some((Step::Plus, way)) => (Some(way), None),
            None => (None, None),
        };
        if wildcards
            && !matches!(way, Some((Step::Name, _)))
            && let Some(next) = &self.plus
            && next.visit(rest, true, plus, pass).is_break()
        {
            pass.way.push(Step::Plus);
            return ControlFlow::Break(());
        }
        if let Some(next) = self.children.get(level)
            && next.visit(rest, true, name, pass).is_break()
        {
            pass.way.push(Step::Name);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

fn take<T>(entries: &mut Vec<Entry<T>>, owner: u64) -> bool {
    let Some(at) = entries.iter().position(|entry| entry.owner == owner) else {
        return false;
    };
    entries.swap_remove(at);
    if entries.is_empty() {
        entries.shrink_to_fit();
    }
    true
}

#[cfg(test)]
mod tests {
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

    proptest! {
        /// [MQTT-3.3.2-3, 4.7.2-1] [MQTT311-3.3.2-3, 4.7.2-1]
        #[test]
        fn finds_what_matching_one_by_one_finds(
            filters in prop::collection::vec("((\\$?[ab]|\\+|)/){0,3}([ab]|\\+|#)", 0..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            topics in prop::collection::vec("(\\$?[ab]?/){0,4}[ab]", 1..8),
            work in 1..9_usize,
        ) {
            let tree = TopicTree::new();
            let mut alive: BTreeSet<(u64, String)> = BTreeSet::new();
            for (owner, filter) in filters.iter().enumerate() {
                let owner = owner as u64 % 5;
                let replaced = tree.insert(filter, owner, ());
                prop_assert_eq!(replaced, !alive.insert((owner, filter.clone())));
            }
            for at in removed {
                if alive.is_empty() { break; }
                let gone = alive.iter().nth(at.index(alive.len())).unwrap().clone();
                prop_assert!(tree.remove(&gone.1, gone.0));
                alive.remove(&gone);
            }
            for topic in &topics {
                let name: TopicName = topic.parse().unwrap();
                let mut expected: Vec<u64> = alive
                    .iter()
                    .filter(|(_, filter)| {
                        let filter: TopicFilter = filter.parse().unwrap();
                        topic::matches(&filter, &name)
                    })
                    .map(|(owner, _)| *owner)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&tree, topic), &expected[..]);
                let (mut search, mut found) = (Search::default(), Vec::new());
                while !search.is_done() {
                    let work = &mut Work::of(work);
                    tree.search(&mut search, topic, work, &mut |entry| found.push(entry.owner));
                }
                found.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
