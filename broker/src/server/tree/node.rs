//! A node of the topic tree, with the way to it from the node above. Levels at which nothing branches and nobody has
//! subscribed have no node of their own: a filter makes two nodes at most, one of its own and one where its way parts from
//! another's, so that what it costs is its bytes and not its levels.

use std::hash::BuildHasher;
use std::ops::ControlFlow;

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry as Slot, HashTable};

use super::Entry;
use super::entries::Entries;
use crate::server::work::{LOOK, Work};

/// Bytes of levels that are hashed and compared in the time of one [`LOOK`].
const LOOK_BYTES: usize = 256;

/// Where a node has room for four times as many as there are, it gives room back; not for so few.
const ROOM_KEPT: usize = 16;

pub(super) struct Node<T> {
    /// The levels from the node above to this one; the first tells it from its siblings. Of a root it says nothing.
    way: Box<str>,
    /// Those whose way begins with a name, by that name.
    named: HashTable<Self>,
    /// The one whose way begins with `+`.
    plus: Option<Box<Self>>,
    here: Entries<T>,
    below: Entries<T>,
}

/// Where in the tree the subscriptions of a filter are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'f> {
    /// From the root; `None` is the root.
    path: Option<&'f str>,
    /// Of the filter that ends in `#` behind the path.
    below: bool,
}

impl<'f> Target<'f> {
    pub(super) fn of(filter: &'f str) -> Self {
        let (path, below) = match filter.strip_suffix('#') {
            Some("") => (None, true),
            // A `#` stands alone in its level.
            Some(path) => (Some(path.strip_suffix('/').unwrap_or(path)), true),
            None => (Some(filter), false),
        };
        Self { path, below }
    }

    fn at(self, path: Option<&'f str>) -> Self {
        Self { path, ..self }
    }
}

/// From one level to the next of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Plus,
    Name,
}

impl Step {
    /// In the order they are looked at: below `+` first.
    fn of(level: &str) -> Self {
        match level {
            "+" => Self::Plus,
            _ => Self::Name,
        }
    }
}

/// What is the same for all nodes of a portion.
pub(super) struct Pass<'p, V> {
    pub(super) parents: bool,
    pub(super) hasher: &'p DefaultHashBuilder,
    pub(super) work: &'p mut Work,
    /// Where it breaks off, the way back from there: a step for each level, so that it says the same wherever nodes are.
    pub(super) way: Vec<Step>,
    /// Up to where the last portion has looked at the subscriptions of the node where it broke off, until that node is come
    /// to; and where this one breaks off.
    pub(super) seen: Option<Upto>,
    pub(super) visit: &'p mut V,
}

/// Up to which of a node's subscriptions has been looked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upto {
    /// Those of the filter that ends there; the others, of `#` below it, come first.
    here: bool,
    owner: u64,
}

impl<V> Pass<'_, V> {
    /// Looks at the subscriptions of a node, those behind `seen` where an earlier portion has looked at some.
    fn look<T>(
        &mut self,
        below: Option<&Entries<T>>,
        here: Option<&Entries<T>>,
        seen: Option<Upto>,
    ) -> ControlFlow<()>
    where
        V: FnMut(&Entry<T>),
    {
        self.work.spend(LOOK);
        let below = below.filter(|_| seen.is_none_or(|seen| !seen.here));
        for (entries, is_here) in [(below, false), (here, true)] {
            let Some(entries) = entries else { continue };
            let behind = seen.filter(|seen| seen.here == is_here);
            let looked = entries.visit(behind.map(|seen| seen.owner), |entry| {
                (self.visit)(entry);
                self.work.spend(2 * LOOK);
                match self.work.is_spent() {
                    true => ControlFlow::Break(entry.owner),
                    false => ControlFlow::Continue(()),
                }
            });
            if let ControlFlow::Break(owner) = looked {
                let here = is_here;
                self.seen = Some(Upto { here, owner });
                return ControlFlow::Break(());
            }
        }
        if self.work.is_spent() {
            self.seen = None;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// What of a topic is left behind a way, where it goes that way.
    fn along<'t>(
        &mut self,
        mut way: Option<&str>,
        mut topic: Option<&'t str>,
    ) -> Option<Option<&'t str>> {
        if let (Some(levels), Some(names)) = (way, topic)
            && let Some(rest) = behind(names, levels)
        {
            self.work.spend(LOOK + levels.len() / LOOK_BYTES);
            return Some(rest);
        }
        while let Some(levels) = way {
            let (level, behind) = split_first(levels);
            let (name, rest) = split_first(topic?);
            self.work.spend(LOOK);
            if level != "+" && level != name {
                return None;
            }
            (way, topic) = (behind, rest);
        }
        Some(topic)
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self::new("")
    }
}

impl<T> Node<T> {
    fn new(way: &str) -> Self {
        Self {
            way: way.into(),
            named: HashTable::new(),
            plus: None,
            here: Entries::new(),
            below: Entries::new(),
        }
    }

    /// The subscriptions at a place, which is made where it is not there.
    pub(super) fn entries(
        &mut self,
        place: Target<'_>,
        hasher: &DefaultHashBuilder,
    ) -> &mut Entries<T> {
        let (mut node, mut path) = (self, place.path);
        while let Some(rest) = path {
            node = node.child_towards(rest, hasher);
            let common = common_levels(&node.way, rest);
            if common < node.way.len() {
                node.split(common, hasher);
            }
            path = rest.get(common + 1..);
        }
        match place.below {
            true => &mut node.below,
            false => &mut node.here,
        }
    }

    fn child_towards(&mut self, path: &str, hasher: &DefaultHashBuilder) -> &mut Self {
        let (level, _) = split_first(path);
        if level == "+" {
            return self.plus.get_or_insert_with(|| Box::new(Self::new(path)));
        }
        let hash = hasher.hash_one(level);
        let named = &mut self.named;
        match named.entry(hash, |node| node.begins_with(level), hash_of(hasher)) {
            Slot::Occupied(there) => there.into_mut(),
            Slot::Vacant(vacant) => vacant.insert(Self::new(path)).into_mut(),
        }
    }

    /// Puts a node in between, behind the first `at` bytes of the way.
    fn split(&mut self, at: usize, hasher: &DefaultHashBuilder) {
        let upper = Self::new(self.way.get(..at).unwrap_or_default());
        let mut lower = std::mem::replace(self, upper);
        lower.way = lower.way.get(at + 1..).unwrap_or_default().into();
        if lower.begins_with("+") {
            self.plus = Some(Box::new(lower));
        } else {
            let hash = hash_of(hasher)(&lower);
            self.named.insert_unique(hash, lower, hash_of(hasher));
        }
    }

    /// Removes the owner's subscription at a place; whether there was one.
    pub(super) fn remove(
        &mut self,
        place: Target<'_>,
        owner: u64,
        hasher: &DefaultHashBuilder,
    ) -> bool {
        let Some(path) = place.path else {
            return match place.below {
                true => self.below.remove(owner),
                false => self.here.remove(owner),
            };
        };
        let (level, _) = split_first(path);
        if level == "+" {
            let Some(child) = &mut self.plus else {
                return false;
            };
            let removed = child.remove_behind(path, place, owner, hasher);
            if child.is_empty() {
                self.plus = None;
            }
            return removed;
        }
        let hash = hasher.hash_one(level);
        let named = &mut self.named;
        let Ok(mut child) = named.find_entry(hash, |node| node.begins_with(level)) else {
            return false;
        };
        let removed = child.get_mut().remove_behind(path, place, owner, hasher);
        if child.get().is_empty() {
            child.remove();
            if named.len() < named.capacity() / 4 && named.capacity() > ROOM_KEPT {
                named.shrink_to(named.len() * 2, hash_of(hasher));
            }
        }
        removed
    }

    /// As [`Node::remove`], of a path from the node above.
    fn remove_behind(
        &mut self,
        path: &str,
        place: Target<'_>,
        owner: u64,
        hasher: &DefaultHashBuilder,
    ) -> bool {
        let Some(path) = behind(path, &self.way) else {
            return false;
        };
        let removed = self.remove(place.at(path), owner, hasher);
        if removed {
            self.join();
        }
        removed
    }

    /// Becomes one with the only node below, where nobody has subscribed here.
    fn join(&mut self) {
        if !self.here.is_empty() || !self.below.is_empty() {
            return;
        }
        let only = match (&mut self.plus, self.named.len()) {
            (plus @ Some(_), 0) => plus.take().map(|child| *child),
            (None, 1) => self.named.drain().next(),
            _ => None,
        };
        if let Some(mut only) = only {
            only.way = [&*self.way, &*only.way].join("/").into();
            *self = only;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
            && self.below.is_empty()
            && self.plus.is_none()
            && self.named.is_empty()
    }

    /// Of the nodes below; each has subscriptions, or several below it.
    #[cfg(test)]
    pub(super) fn nodes_below(&self) -> usize {
        let below = self.named.iter().chain(self.plus.as_deref());
        below
            .map(|node| {
                let ways = node.named.len() + usize::from(node.plus.is_some());
                let has_reason = !node.here.is_empty() || !node.below.is_empty() || ways > 1;
                assert!(has_reason, "{} and one below", node.way);
                1 + node.nodes_below()
            })
            .sum()
    }

    /// For so many nodes in all tables there is room.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        let below = self.named.iter().chain(self.plus.as_deref());
        self.named.capacity() + below.map(Self::room).sum::<usize>()
    }

    fn begins_with(&self, level: &str) -> bool {
        behind(&self.way, level).is_some()
    }

    /// `rest` is what of the topic lies below this node; `None` when the topic ends here. `resumed` is where an earlier
    /// portion broke off in this node's tree; it has looked at the node itself then, or, where it broke off in it, at some of
    /// its subscriptions.
    /// As deep as the topic has levels, which `Limits::topic_levels` bounds.
    pub(super) fn visit<V: FnMut(&Entry<T>)>(
        &self,
        rest: Option<&str>,
        wildcards: bool,
        resumed: Option<&[Step]>,
        pass: &mut Pass<'_, V>,
    ) -> ControlFlow<()> {
        let seen = match resumed {
            Some([]) => pass.seen.take(),
            Some(_) | None => None,
        };
        if resumed.is_none() || seen.is_some() {
            let below = wildcards && (pass.parents || rest.is_some());
            let below = below.then_some(&self.below);
            let here = rest.is_none().then_some(&self.here);
            pass.look(below, here, seen)?;
        }
        let Some(rest) = rest else {
            return ControlFlow::Continue(());
        };
        let (level, rest) = split_first(rest);
        pass.work.spend(level.len() / LOOK_BYTES);
        if wildcards && let Some(child) = &self.plus {
            let way = child.way.get(2..);
            child.enter(way, rest, resumed, pass)?;
        }
        if !self.named.is_empty() {
            let hash = pass.hasher.hash_one(level);
            if let Some(child) = self.named.find(hash, |node| node.begins_with(level)) {
                let way = child.way.get(level.len() + 1..);
                child.enter(way, rest, resumed, pass)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Goes on into this node from the one above: `way` and `rest` are what is left of its way and of the topic behind the
    /// first level, in which they agree.
    fn enter<V: FnMut(&Entry<T>)>(
        &self,
        way: Option<&str>,
        rest: Option<&str>,
        resumed: Option<&[Step]>,
        pass: &mut Pass<'_, V>,
    ) -> ControlFlow<()> {
        let Some(rest) = pass.along(way, rest) else {
            return ControlFlow::Continue(());
        };
        let resumed = match resumed.map(|resumed| Seen::of(&self.way, resumed)) {
            Some(Seen::All) => return ControlFlow::Continue(()),
            Some(Seen::Upto(resumed)) => Some(resumed),
            Some(Seen::Nothing) | None => None,
        };
        let looked = self.visit(rest, true, resumed, pass);
        if looked.is_break() {
            pass.way.extend(self.way.rsplit('/').map(Step::of));
        }
        looked
    }
}

/// What an earlier portion has seen of a node's tree.
enum Seen<'s> {
    Nothing,
    /// From this node on.
    Upto(&'s [Step]),
    All,
}

impl<'s> Seen<'s> {
    /// Of the node at the end of `way`, where the portion broke off after these steps from the node above. Nodes may have
    /// been put in between or have become one since.
    fn of(way: &str, mut steps: &'s [Step]) -> Self {
        for level in way.split('/') {
            match (steps.split_first(), Step::of(level)) {
                (Some((Step::Name, _)), Step::Plus) => return Self::All,
                (Some((Step::Plus, _)), Step::Name) | (None, _) => return Self::Nothing,
                (Some((_, rest)), _) => steps = rest,
            }
        }
        Self::Upto(steps)
    }
}

/// The first level, and those behind it.
pub(super) fn split_first(levels: &str) -> (&str, Option<&str>) {
    // Most levels are short, and a search for characters costs more to begin than to do.
    const SHORT: usize = 32;
    let mut short = levels.bytes().take(SHORT);
    let end = match short.position(|byte| byte == b'/') {
        None if levels.len() > SHORT => levels.find('/'),
        end => end,
    };
    match end {
        Some(end) => (levels.get(..end).unwrap_or_default(), levels.get(end + 1..)),
        None => (levels, None),
    }
}

/// What is behind some levels, where those are its first.
fn behind<'l>(levels: &'l str, first: &str) -> Option<Option<&'l str>> {
    match levels.as_bytes().get(first.len()) {
        _ if !levels.starts_with(first) => None,
        None => Some(None),
        Some(b'/') => Some(levels.get(first.len() + 1..)),
        Some(_) => None,
    }
}

/// Bytes of the levels that two ways have in common. They agree in the first.
fn common_levels(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let ends = |way: &[u8]| way.get(same).is_none_or(|byte| *byte == b'/');
    if ends(one) && ends(other) {
        return same;
    }
    let shared = one.get(..same).unwrap_or_default();
    shared.iter().rposition(|byte| *byte == b'/').unwrap_or(0)
}

fn hash_of<T>(hasher: &DefaultHashBuilder) -> impl Fn(&Node<T>) -> u64 {
    move |node| hasher.hash_one(split_first(&node.way).0)
}
