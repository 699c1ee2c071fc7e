//! What a filter matches, found in portions: a walk that stops goes on behind the topic it came to, whatever was put in or
//! taken out meanwhile.

use std::collections::btree_set;
use std::ops::{Bound, ControlFlow};

use super::leap::{Next, first, next};
use super::{Inner, Kept, Retained};
use crate::server::message::Message;
use crate::server::work::{LOOK, Work};
use crate::session::{Published, Time};
use crate::topic::TopicFilter;

/// Messages found in one portion, at most.
pub(crate) const PORTION_MESSAGES: usize = 64;

/// A portion ends with the message that reaches so many bytes.
const PORTION_BYTES: usize = 64 * 1024;

/// To find a topic among a million costs as much as to look at so many one after the other.
pub(crate) const SEEK: usize = 16 * LOOK;

/// Bytes of a topic that are compared in the time of one [`LOOK`]; a search compares it a dozen times.
const LOOK_BYTES: usize = 256;
const SEEK_BYTES: usize = LOOK_BYTES / 16;

/// A walk, and how far it has come.
#[derive(Debug)]
pub(crate) struct Walk {
    filter: TopicFilter,
    /// The last message it is about: [`Retained::newest`] of when it was asked for.
    until: u64,
    /// Where it goes on.
    from: Bound<Box<str>>,
    done: bool,
}

impl Walk {
    pub(crate) fn new(filter: TopicFilter, until: u64) -> Self {
        Self {
            filter,
            until,
            from: Bound::Unbounded,
            done: false,
        }
    }

    pub(crate) fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// Whether all has been looked at.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }
}

/// What one portion has found and may still look at.
struct Portion<'w> {
    work: &'w mut Work,
    now: Time,
    until: u64,
    found: Vec<Message>,
    bytes: usize,
}

impl Portion<'_> {
    fn take(
        &mut self,
        Kept {
            message, number, ..
        }: &Kept,
    ) {
        if *number <= self.until && !message.publication().is_expired(self.now) {
            self.bytes += message.weight_bytes();
            self.found.push(message.clone());
        }
    }

    fn is_full(&self) -> bool {
        let full = self.found.len() >= PORTION_MESSAGES || self.bytes >= PORTION_BYTES;
        full || self.work.is_spent()
    }
}

impl Retained {
    /// The next messages a walk comes to, expired ones left out; as many as a portion has, or as the work is enough for.
    pub(crate) fn portion(&self, walk: &mut Walk, now: Time, work: &mut Work) -> Vec<Message> {
        if walk.done {
            return Vec::new();
        }
        let levels: Vec<&str> = walk.filter.levels().collect();
        let mut portion = Portion {
            work,
            now,
            until: walk.until,
            found: Vec::new(),
            bytes: 0,
        };
        let inner = self.inner.read();
        match inner.walk(&levels, &walk.from, &mut portion) {
            ControlFlow::Continue(()) => walk.done = true,
            ControlFlow::Break(from) => walk.from = from,
        }
        portion.found
    }
}

impl Inner {
    /// Looks at topics from one on, and leaps over those that cannot match. Where it breaks off it says where to go on.
    fn walk(
        &self,
        levels: &[&str],
        from: &Bound<Box<str>>,
        portion: &mut Portion<'_>,
    ) -> ControlFlow<Bound<Box<str>>> {
        let mut topics = match from {
            Bound::Unbounded => self.leap(&first(levels), portion),
            Bound::Included(from) => self.leap(from, portion),
            Bound::Excluded(after) => self.behind(after, portion),
        };
        while let Some(kept) = topics.next() {
            let topic = kept.topic();
            portion.work.spend(LOOK + topic.len() / LOOK_BYTES);
            let next = next(levels, topic);
            if next == Next::Match {
                portion.take(kept);
            }
            match next {
                Next::End => break,
                Next::Leap(to) if portion.is_full() => {
                    return ControlFlow::Break(Bound::Included(to.into()));
                }
                Next::Leap(to) => topics = self.leap(&to, portion),
                Next::Match | Next::Behind if portion.is_full() => {
                    return ControlFlow::Break(Bound::Excluded(topic.into()));
                }
                Next::Match | Next::Behind => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn leap(&self, to: &str, portion: &mut Portion<'_>) -> btree_set::Range<'_, Kept> {
        portion.work.spend(SEEK + to.len() / SEEK_BYTES);
        self.kept
            .range::<str, _>((Bound::Included(to), Bound::Unbounded))
    }

    fn behind(&self, topic: &str, portion: &mut Portion<'_>) -> btree_set::Range<'_, Kept> {
        portion.work.spend(SEEK + topic.len() / SEEK_BYTES);
        self.kept
            .range::<str, _>((Bound::Excluded(topic), Bound::Unbounded))
    }
}
