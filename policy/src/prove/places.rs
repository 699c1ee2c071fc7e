//! All places at once of a pattern that must not match: what a Deny would find.

use super::search::{Step, Symbol};

/// The places of a pattern that must not match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Places {
    at: Box<[u16]>,
    /// Whether it matched before the `/` that was read last.
    parent: bool,
}

impl Places {
    pub(super) fn start(pattern: &[Step]) -> Self {
        Self {
            at: closed(pattern, vec![0]),
            parent: false,
        }
    }

    pub(super) fn matched(&self, pattern: &[Step]) -> bool {
        self.at
            .last()
            .is_some_and(|at| usize::from(*at) == pattern.len())
    }

    /// Behind the symbol; `None` where the pattern has found something in the filter.
    pub(super) fn step(
        &self,
        pattern: &[Step],
        symbol: Symbol,
        coverage: bool,
        first: bool,
    ) -> Option<Self> {
        let c = match symbol {
            Symbol::Char(c) => Some(c),
            Symbol::Plus if !coverage => Some('+'),
            Symbol::Hash if !coverage => Some('#'),
            Symbol::Plus | Symbol::Hash => None,
        };
        if let Some(c) = c {
            let mut next = Vec::new();
            for at in &self.at {
                match pattern.get(usize::from(*at)) {
                    Some(Step::Char(x)) if *x == c => next.push(at + 1),
                    Some(Step::One) => next.push(at + 1),
                    Some(Step::Star) => next.push(*at),
                    _ => {}
                }
            }
            return Some(Self {
                at: closed(pattern, next),
                parent: c == '/' && self.matched(pattern),
            });
        }
        if symbol == Symbol::Hash && self.parent {
            return None;
        }
        if first && pattern.first() == Some(&Step::Char('$')) {
            let at = Box::default();
            return Some(Self { at, parent: false });
        }
        let mut reached = self.at.to_vec();
        let mut done = 0;
        while let Some(at) = reached.get(done).copied() {
            done += 1;
            let more = match pattern.get(usize::from(at)) {
                Some(Step::Char('/')) => symbol == Symbol::Hash,
                Some(Step::Char(_) | Step::One) => true,
                _ => false,
            };
            if more {
                for at in closed(pattern, vec![at + 1]) {
                    if !reached.contains(&at) {
                        reached.push(at);
                    }
                }
            }
        }
        reached.sort_unstable();
        let at = reached.into();
        Some(Self { at, parent: false })
    }
}

/// The places with those that a star lets be reached without a character, in order.
fn closed(pattern: &[Step], mut places: Vec<u16>) -> Box<[u16]> {
    let mut done = 0;
    while let Some(at) = places.get(done).copied() {
        done += 1;
        if pattern.get(usize::from(at)) == Some(&Step::Star) && !places.contains(&(at + 1)) {
            places.push(at + 1);
        }
    }
    places.sort_unstable();
    places.dedup();
    places.into()
}
