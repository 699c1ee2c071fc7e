//! The subscriptions of one filter, in the order of their owners: most filters have one, and some a hundred thousand, that
//! come and go while others look at them in portions.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::Entry;

/// Kept as a list up to so many; from there on a change would move too much, under a lock.
const FEW: usize = 32;

/// See the module.
pub(super) enum Entries<T> {
    Few(Vec<Entry<T>>),
    #[expect(
        clippy::box_collection,
        reason = "few filters have so many, and all others are smaller by it"
    )]
    Many(Box<BTreeMap<u64, Entry<T>>>),
}

impl<T> Entries<T> {
    pub(super) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    /// Puts in an owner's, in the place of the one it has. Whether it had one.
    pub(super) fn insert(&mut self, owner: u64, value: T) -> bool {
        let entry = Entry { owner, value };
        let few = match self {
            Self::Many(many) => return many.insert(owner, entry).is_some(),
            Self::Few(few) => few,
        };
        match few.binary_search_by_key(&owner, |entry| entry.owner) {
            Ok(at) => {
                if let Some(there) = few.get_mut(at) {
                    *there = entry;
                }
                true
            }
            Err(at) if few.len() < FEW => {
                if few.is_empty() {
                    // Most filters have one subscriber, and there are as many of them as devices.
                    few.reserve_exact(1);
                }
                few.insert(at, entry);
                false
            }
            Err(_) => {
                let all = std::mem::take(few).into_iter().chain([entry]);
                let many = all.map(|entry| (entry.owner, entry)).collect();
                *self = Self::Many(Box::new(many));
                false
            }
        }
    }

    /// Takes an owner's out. Whether it had one.
    pub(super) fn remove(&mut self, owner: u64) -> bool {
        match self {
            Self::Few(few) => {
                let Ok(at) = few.binary_search_by_key(&owner, |entry| entry.owner) else {
                    return false;
                };
                few.remove(at);
                if few.is_empty() {
                    few.shrink_to_fit();
                }
                true
            }
            Self::Many(many) => {
                let removed = many.remove(&owner).is_some();
                if many.len() < FEW / 2 {
                    let few = std::mem::take(&mut **many);
                    *self = Self::Few(few.into_values().collect());
                }
                removed
            }
        }
    }

    /// Shows those behind an owner, or all, until `visit` breaks off.
    pub(super) fn visit<B>(
        &self,
        behind: Option<u64>,
        mut visit: impl FnMut(&Entry<T>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        match self {
            Self::Few(few) => {
                let seen = behind.map_or(0, |owner| few.partition_point(|one| one.owner <= owner));
                few.iter().skip(seen).try_for_each(visit)
            }
            Self::Many(many) => {
                let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
                let mut all = many.range((from, Bound::Unbounded));
                all.try_for_each(|(_, entry)| visit(entry))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_sorted_map_whatever_its_size(steps in prop::collection::vec((prop::bool::weighted(0.7), 0..100_u64), 0..400)) {
            let mut entries = Entries::new();
            let mut expected = BTreeMap::new();
            for (at, (insert, owner)) in steps.into_iter().enumerate() {
                if insert {
                    prop_assert_eq!(entries.insert(owner, at), expected.insert(owner, at).is_some());
                } else {
                    prop_assert_eq!(entries.remove(owner), expected.remove(&owner).is_some());
                }
                prop_assert_eq!(entries.is_empty(), expected.is_empty());
                let mut seen = Vec::new();
                let all = entries.visit(None, |entry| {
                    seen.push((entry.owner, entry.value));
                    ControlFlow::<()>::Continue(())
                });
                prop_assert!(all.is_continue());
                prop_assert!(seen.iter().copied().eq(expected.iter().map(|(owner, at)| (*owner, *at))));
                let first = entries.visit(Some(owner), |entry| ControlFlow::Break(entry.owner));
                let next = expected.range(owner + 1..).next().map(|(owner, _)| *owner);
                prop_assert_eq!(first.break_value(), next);
            }
        }
    }
}
