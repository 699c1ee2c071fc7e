//! What a filter matches, found in portions: a walk that stops goes on behind the topic it came to, whatever was put in or
//! taken out meanwhile.

use std::collections::btree_map;
use std::ops::{Bound, ControlFlow};

use super::{Kept, Node, Retained};
use crate::server::message::Message;
use crate::server::work::{LOOK, Work};
use crate::session::{Published, Time};
use crate::topic::TopicFilter;

/// Messages found in one portion, at most.
pub(crate) const PORTION_MESSAGES: usize = 64;

/// A portion ends with the message that reaches so many bytes.
const PORTION_BYTES: usize = 64 * 1024;

/// A walk, and how far it has come.
#[derive(Debug)]
pub(crate) struct Walk {
    filter: TopicFilter,
    /// The last message it is about: [`Retained::newest`] of when it was asked for.
    until: u64,
    /// The levels of the last node looked at.
    after: Option<Vec<Box<str>>>,
    done: bool,
}

impl Walk {
    pub(crate) fn new(filter: TopicFilter, until: u64) -> Self {
        Self {
            filter,
            until,
            after: None,
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
    fn look(&mut self, kept: Option<&Kept>) -> ControlFlow<()> {
        self.work.spend(LOOK);
        if let Some(Kept { message, number }) = kept
            && *number <= self.until
            && !message.publication().is_expired(self.now)
        {
            self.bytes += message.weight_bytes();
            self.found.push(message.clone());
        }
        let full = self.found.len() >= PORTION_MESSAGES || self.bytes >= PORTION_BYTES;
        match full || self.work.is_spent() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
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
        let mut path = Vec::new();
        let after = walk.after.as_deref();
        let walked = inner
            .root
            .walk(&levels, true, after, &mut path, &mut portion);
        match walked {
            ControlFlow::Continue(()) => walk.done = true,
            ControlFlow::Break(()) => {
                walk.after = Some(path.into_iter().map(Box::from).collect());
            }
        }
        portion.found
    }
}

impl Node {
    /// `hide_dollar`: [MQTT-4.7.2-1] [MQTT311-4.7.2-1] at the first level. `after`: where in this node's tree an earlier
    /// portion ended; it has looked at the node itself then. Where it breaks off, `path` leads to the last node looked at.
    fn walk<'n>(
        &'n self,
        levels: &[&str],
        hide_dollar: bool,
        after: Option<&[Box<str>]>,
        path: &mut Vec<&'n str>,
        portion: &mut Portion<'_>,
    ) -> ControlFlow<()> {
        if after.is_none() {
            let matches = matches!(levels, [] | ["#"]);
            portion.look(self.message.as_ref().filter(|_| matches))?;
        }
        let Some((level, below)) = levels.split_first() else {
            return ControlFlow::Continue(());
        };
        let below = match *level {
            "#" => levels,
            _ => below,
        };
        let (first, rest) = match after.and_then(<[_]>::split_first) {
            Some((first, rest)) => (Some(&**first), Some(rest)),
            None => (None, None),
        };
        for (name, child) in self.from(level, first) {
            if hide_dollar && name.starts_with('$') && matches!(*level, "#" | "+") {
                continue;
            }
            path.push(name);
            let after = rest.filter(|_| first == Some(name));
            child.walk(below, false, after, path, portion)?;
            path.pop();
        }
        ControlFlow::Continue(())
    }

    /// The children that a level of a filter matches, in their order, from `first` on.
    fn from<'n>(
        &'n self,
        level: &str,
        first: Option<&str>,
    ) -> impl Iterator<Item = (&'n str, &'n Self)> {
        let one = match level {
            "#" | "+" => None,
            level => self.children.get_key_value(level),
        };
        let all: Option<btree_map::Range<'n, Box<str>, Self>> = match level {
            "#" | "+" => {
                let first = first.map_or(Bound::Unbounded, Bound::Included);
                Some(self.children.range::<str, _>((first, Bound::Unbounded)))
            }
            _ => None,
        };
        let all = one.into_iter().chain(all.into_iter().flatten());
        all.map(|(name, child)| (&**name, child))
    }
}
