//! A session's subscriptions: a device has one or two, and a node of a tree would cost it more than a connection's queues.

use std::collections::{BTreeMap, btree_map};
use std::slice;

use crate::codec::SubscriptionOptions;
use crate::topic::TopicFilter;

/// Kept as a sorted list up to so many; from there on an insertion would move too much.
const FEW: usize = 16;

/// Filters with their options, in the order of the filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscriptions(Kept);

#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Few(Vec<(TopicFilter, SubscriptionOptions)>),
    // Few sessions have so many; boxed, all others are smaller.
    Many(Box<Many>),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Many {
    by_filter: BTreeMap<TopicFilter, SubscriptionOptions>,
    /// Of the filters, as they were subscribed.
    bytes: usize,
    /// Of them, shared ones.
    shared: usize,
}

impl Many {
    fn insert(&mut self, filter: TopicFilter, options: SubscriptionOptions) {
        let bytes = filter.as_str().len();
        let shared = usize::from(filter.shared().is_some());
        if self.by_filter.insert(filter, options).is_none() {
            self.bytes += bytes;
            self.shared += shared;
        }
    }
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self(Kept::Few(Vec::new()))
    }
}

impl Subscriptions {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Few(few) => few.len(),
            Kept::Many(many) => many.by_filter.len(),
        }
    }

    /// Bytes of all filters together.
    #[must_use]
    pub fn filter_bytes(&self) -> usize {
        match &self.0 {
            Kept::Few(few) => few.iter().map(|(filter, _)| filter.as_str().len()).sum(),
            Kept::Many(many) => many.bytes,
        }
    }

    /// How many are shared subscriptions.
    #[must_use]
    pub fn shared(&self) -> usize {
        match &self.0 {
            Kept::Few(few) => {
                let filters = few.iter().map(|(filter, _)| filter);
                filters.filter(|filter| filter.shared().is_some()).count()
            }
            Kept::Many(many) => many.shared,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this very filter is among them.
    #[must_use]
    pub fn contains(&self, filter: &TopicFilter) -> bool {
        match &self.0 {
            Kept::Few(few) => place(few, filter).is_ok(),
            Kept::Many(many) => many.by_filter.contains_key(filter),
        }
    }

    /// The options of this very filter, if it is among them.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<SubscriptionOptions> {
        match &self.0 {
            Kept::Few(few) => {
                let found = few.get(place(few, filter).ok()?);
                found.map(|(_, options)| *options)
            }
            Kept::Many(many) => many.by_filter.get(filter).copied(),
        }
    }

    /// Adds one, or gives the one there is other options.
    pub fn insert(&mut self, filter: TopicFilter, options: SubscriptionOptions) {
        match &mut self.0 {
            Kept::Few(few) => match place(few, &filter) {
                Ok(at) => {
                    if let Some((_, kept)) = few.get_mut(at) {
                        *kept = options;
                    }
                }
                Err(at) if few.len() < FEW => {
                    if few.is_empty() {
                        // Most never have a second one.
                        few.reserve_exact(1);
                    }
                    few.insert(at, (filter, options));
                }
                Err(_) => {
                    let mut many = Box::<Many>::default();
                    for (filter, options) in std::mem::take(few) {
                        many.insert(filter, options);
                    }
                    many.insert(filter, options);
                    self.0 = Kept::Many(many);
                }
            },
            Kept::Many(many) => {
                many.insert(filter, options);
            }
        }
    }

    /// Takes one away. Whether it was there.
    pub fn remove(&mut self, filter: &TopicFilter) -> bool {
        match &mut self.0 {
            Kept::Few(few) => {
                let at = place(few, filter);
                at.is_ok_and(|at| {
                    few.remove(at);
                    true
                })
            }
            Kept::Many(many) => {
                let was_there = many.by_filter.remove(filter).is_some();
                if was_there {
                    many.bytes -= filter.as_str().len();
                    many.shared -= usize::from(filter.shared().is_some());
                }
                was_there
            }
        }
    }

    /// Takes any of them away.
    pub fn pop(&mut self) -> Option<TopicFilter> {
        match &mut self.0 {
            Kept::Few(few) => few.pop().map(|(filter, _)| filter),
            Kept::Many(many) => {
                let (filter, _) = many.by_filter.pop_last()?;
                many.bytes -= filter.as_str().len();
                many.shared -= usize::from(filter.shared().is_some());
                Some(filter)
            }
        }
    }

    /// Takes the shared ones away.
    pub fn take_shared(&mut self) -> Vec<TopicFilter> {
        if self.shared() == 0 {
            return Vec::new();
        }
        let filters = self.filters().filter(|filter| filter.shared().is_some());
        let shared: Vec<TopicFilter> = filters.cloned().collect();
        for filter in &shared {
            self.remove(filter);
        }
        shared
    }

    /// In the order of the filters.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        match &self.0 {
            Kept::Few(few) => Iter::Few(few.iter()),
            Kept::Many(many) => Iter::Many(many.by_filter.iter()),
        }
    }

    /// In the order of the filters.
    pub fn filters(&self) -> impl Iterator<Item = &TopicFilter> {
        self.iter().map(|(filter, _)| filter)
    }
}

fn place(few: &[(TopicFilter, SubscriptionOptions)], filter: &TopicFilter) -> Result<usize, usize> {
    few.binary_search_by(|(one, _)| one.cmp(filter))
}

/// See [`Subscriptions::iter`].
pub enum Iter<'a> {
    #[doc(hidden)]
    Few(slice::Iter<'a, (TopicFilter, SubscriptionOptions)>),
    #[doc(hidden)]
    Many(btree_map::Iter<'a, TopicFilter, SubscriptionOptions>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a TopicFilter, &'a SubscriptionOptions);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(filter, options)| (filter, options)),
            Self::Many(many) => many.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Subscriptions {
    type Item = (&'a TopicFilter, &'a SubscriptionOptions);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::Qos;

    proptest! {
        #[test]
        fn is_a_sorted_map_whatever_its_size(steps in prop::collection::vec((any::<bool>(), 0..40_u8, 0..3_u8), 0..200)) {
            let mut subscriptions = Subscriptions::default();
            let mut expected = BTreeMap::new();
            for (insert, name, qos) in steps {
                let share = if name % 3 == 0 { "$share/g/" } else { "" };
                let filter: TopicFilter = format!("{share}t/{name}/#").parse().unwrap();
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
                let options = SubscriptionOptions::new(qos);
                if insert {
                    subscriptions.insert(filter.clone(), options);
                    expected.insert(filter.clone(), options);
                } else {
                    prop_assert_eq!(subscriptions.remove(&filter), expected.remove(&filter).is_some());
                }
                prop_assert_eq!(subscriptions.contains(&filter), expected.contains_key(&filter));
                prop_assert!(subscriptions.iter().eq(expected.iter()));
                prop_assert_eq!(subscriptions.iter().len(), expected.len());
                let bytes: usize = expected.keys().map(|filter| filter.as_str().len()).sum();
                prop_assert_eq!(subscriptions.filter_bytes(), bytes);
                let shared = expected.keys().filter(|filter| filter.shared().is_some());
                prop_assert_eq!(subscriptions.shared(), shared.count());
                prop_assert_eq!(subscriptions.is_empty(), expected.is_empty());
            }
            let shared = subscriptions.take_shared();
            let (were, mut expected): (BTreeMap<_, _>, BTreeMap<_, _>) =
                expected.into_iter().partition(|(filter, _)| filter.shared().is_some());
            prop_assert!(were.into_keys().eq(shared));
            prop_assert_eq!(subscriptions.shared(), 0);
            while let Some(filter) = subscriptions.pop() {
                prop_assert!(expected.remove(&filter).is_some());
                prop_assert_eq!(subscriptions.len(), expected.len());
            }
            prop_assert!(expected.is_empty());
            prop_assert_eq!(subscriptions.filter_bytes(), 0);
        }
    }
}
