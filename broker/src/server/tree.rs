//! The topic tree: which subscriptions match a topic name.
//!
//! Read-mostly and shared by all cores. Matching costs what the topic's depth and the matches
//! cost, whatever the number of subscriptions held. The tree is cut into shards by the first two
//! levels, each with a generation of its own, so that a session subscribing under `cmd/lamp-1/…`
//! does not spoil what connections remember of `dt/lamp-2/…`; filters with a wildcard in those two
//! levels live in one wide shard which every match visits too.

mod entries;
mod node;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::DefaultHashBuilder;
use parking_lot::RwLock;

use self::node::{Node, Pass, Step, Target, Upto, split_first};
use super::work::Work;

/// Shards for filters whose first two levels are plain. A power of two.
const SHARDS: usize = 64;

/// Subscriptions by topic filter. `T` is what a subscriber is; `owner` numbers tell sessions apart.
pub(crate) struct TopicTree<T> {
    /// Whether `a/#` matches `a`, as the standard has it and AWS IoT has not.
    parents: bool,
    narrow: Box<[Shard<T>]>,
    wide: Shard<T>,
    /// Of each shard, `wide` last; raised inside its write lock, so that one read under the read lock names exactly the tree
    /// that was matched. Together: who asks whether they are as they were brings few lines of the cache from far.
    generations: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
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
    /// Where it broke off among that node's subscriptions.
    seen: Option<Upto>,
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
    /// Where its generation is.
    number: usize,
}

impl<T> Shard<T> {
    fn new(number: usize) -> Self {
        Self {
            root: RwLock::new(Node::default()),
            number,
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
            narrow: (0..SHARDS).map(Shard::new).collect(),
            wide: Shard::new(SHARDS),
            generations: (0..=SHARDS).map(|_| AtomicU64::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Adds a subscription, or replaces the one the owner has under the same filter.
    /// Returns whether there was one [MQTT-3.8.4-3].
    pub(crate) fn insert(&self, filter: &str, owner: u64, value: T) -> bool {
        let shard = self.home(filter);
        let mut root = shard.root.write();
        let entries = root.entries(Target::of(filter), &self.hasher);
        let replaced = entries.insert(owner, value);
        self.raise(shard);
        replaced
    }

    /// Removes the owner's subscription under the filter; returns whether there was one.
    pub(crate) fn remove(&self, filter: &str, owner: u64) -> bool {
        let shard = self.home(filter);
        let mut root = shard.root.write();
        let removed = root.remove(Target::of(filter), owner, &self.hasher);
        if removed {
            self.raise(shard);
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
                search.stamp.wide = self.generation(SHARDS);
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
                hasher: &self.hasher,
                work,
                way: Vec::new(),
                seen: search.seen.take(),
                visit,
            };
            let root = shard.root.read();
            let looked = root.visit(Some(topic), plain, resumed.as_deref(), &mut pass);
            if looked.is_break() {
                pass.way.reverse();
                search.way = Some(pass.way);
                search.seen = pass.seen;
                search.at = Some(*place);
                return;
            }
        }
        search.at = Some(Place::End);
    }

    /// Whether a match with this stamp would still give the same subscriptions.
    pub(crate) fn is_current(&self, stamp: &Stamp) -> bool {
        self.generation(SHARDS) == stamp.wide && self.generation(stamp.shard) == stamp.narrow
    }

    fn generation(&self, shard: usize) -> u64 {
        let generation = self.generations.get(shard);
        generation.map_or(0, |generation| generation.load(Ordering::Acquire))
    }

    /// Says that a shard's subscriptions are others now, under its write lock.
    fn raise(&self, shard: &Shard<T>) {
        if let Some(generation) = self.generations.get(shard.number) {
            generation.fetch_add(1, Ordering::Release);
        }
    }

    fn home(&self, filter: &str) -> &Shard<T> {
        if first_two(filter).any(|level| level == "+" || level == "#") {
            return &self.wide;
        }
        self.narrow.get(self.shard_of(filter)).unwrap_or(&self.wide)
    }

    fn shard_of(&self, name: &str) -> usize {
        let (first, below) = split_first(name);
        let second = below.map(|below| split_first(below).0.len() + 1);
        let head = name.get(..first.len() + second.unwrap_or(0));
        spread(head.unwrap_or(name).as_bytes()) % SHARDS
    }
}

/// The same number for the same bytes in every run, so that a simulated run can be run again: which filters share a shard
/// decides which searches a change makes begin anew. Who chooses names that share one makes the work dearer of
/// all whose names are in it.
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
