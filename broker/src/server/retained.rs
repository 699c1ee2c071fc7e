//! Retained messages: one per topic, found by filter without looking at all of them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use ca::CertificateId;
use hashbrown::HashMap;
use parking_lot::RwLock;

use super::message::{Message, Origin};
use crate::session::Time;
use crate::topic::TopicFilter;

/// The index; the journal keeps them too.
pub(crate) struct Retained {
    // Held for one look-up or one change; never across an await.
    inner: RwLock<Inner>,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    root: Node,
    messages: usize,
    bytes: usize,
    /// So that a certificate that is no longer good costs what it left behind, not what all did.
    by_device: HashMap<CertificateId, BTreeSet<ByTopic>>,
}

/// A message in the order of topics.
struct ByTopic(Message);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByTopic {}

impl Inner {
    fn link(&mut self, message: &Message) {
        if let Origin::Device(id) = message.origin() {
            let kept = self.by_device.entry(id).or_default();
            // The newer one, where there is one under this topic.
            kept.replace(ByTopic(message.clone()));
        }
    }

    fn unlink(&mut self, message: &Message) {
        if let Origin::Device(id) = message.origin()
            && let Some(kept) = self.by_device.get_mut(&id)
        {
            kept.remove(message.topic());
            if kept.is_empty() {
                self.by_device.remove(&id);
            }
        }
    }
}

#[derive(Default)]
struct Node {
    children: BTreeMap<Box<str>, Node>,
    message: Option<Message>,
}

/// No more retained messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server holds as many retained messages as it may")]
pub(crate) struct Full;

impl Retained {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            inner: RwLock::default(),
            messages_max,
            bytes_max,
        }
    }

    /// Keeps a message under its topic, in place of the one before [MQTT-3.3.1-5]
    /// [MQTT311-3.3.1-5, -7].
    ///
    /// # Errors
    /// [`Full`]; the one before stays.
    pub(crate) fn insert(&self, message: Message) -> Result<(), Full> {
        let mut inner = self.inner.write();
        let weight = message.weight_bytes();
        let before = inner.root.find(message.topic());
        let (messages, bytes) = match before {
            Some(before) => (inner.messages, inner.bytes - before.weight_bytes() + weight),
            None => (inner.messages + 1, inner.bytes + weight),
        };
        if messages > self.messages_max || bytes > self.bytes_max {
            return Err(Full);
        }
        inner.messages = messages;
        inner.bytes = bytes;
        inner.link(&message);
        let mut node = &mut inner.root;
        for level in message.topic().split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        let before = node.message.replace(message.clone());
        // The same device's newer one took its place among its own, or it was another's.
        if let Some(before) = before.filter(|before| before.origin() != message.origin()) {
            inner.unlink(&before);
        }
        Ok(())
    }

    /// Removes what is kept under a topic [MQTT-3.3.1-6]. Whether there was something.
    pub(crate) fn remove(&self, topic: &str) -> bool {
        let mut inner = self.inner.write();
        let Some(removed) = inner.root.remove(&mut topic.split('/')) else {
            return false;
        };
        inner.messages -= 1;
        inner.bytes -= removed.weight_bytes();
        inner.unlink(&removed);
        true
    }

    /// The messages a filter matches, expired ones left out.
    pub(crate) fn matching(&self, filter: &TopicFilter, now: Time) -> Vec<Message> {
        let mut found = Vec::new();
        let levels: Vec<&str> = filter.levels().collect();
        self.inner
            .read()
            .root
            .collect(&levels, true, &mut |message| {
                if !message.as_ref().is_expired(now) {
                    found.push(message.clone());
                }
            });
        found
    }

    /// The topics of what a device left.
    pub(crate) fn topics_of(&self, device: &CertificateId) -> Vec<String> {
        let inner = self.inner.read();
        let kept = inner.by_device.get(device).into_iter().flatten();
        kept.map(|kept| kept.0.topic().to_owned()).collect()
    }

    /// How many are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.inner.read().messages
    }
}

impl Node {
    fn find(&self, topic: &str) -> Option<&Message> {
        let mut node = self;
        for level in topic.split('/') {
            node = node.children.get(level)?;
        }
        node.message.as_ref()
    }

    fn remove<'a>(&mut self, levels: &mut impl Iterator<Item = &'a str>) -> Option<Message> {
        let Some(level) = levels.next() else {
            return self.message.take();
        };
        let child = self.children.get_mut(level)?;
        let removed = child.remove(levels);
        if child.message.is_none() && child.children.is_empty() {
            self.children.remove(level);
        }
        removed
    }

    /// `hide_dollar`: [MQTT-4.7.2-1] [MQTT311-4.7.2-1] at the first level.
    fn collect(&self, levels: &[&str], hide_dollar: bool, found: &mut impl FnMut(&Message)) {
        let Some((level, rest)) = levels.split_first() else {
            if let Some(message) = &self.message {
                found(message);
            }
            return;
        };
        let shown = |name: &str| !(hide_dollar && name.starts_with('$'));
        match *level {
            "#" => {
                if let Some(message) = &self.message {
                    found(message);
                }
                for (name, child) in &self.children {
                    if shown(name) {
                        child.collect(levels, false, found);
                    }
                }
            }
            "+" => {
                for (name, child) in &self.children {
                    if shown(name) {
                        child.collect(rest, false, found);
                    }
                }
            }
            level => {
                if let Some(child) = self.children.get(level) {
                    child.collect(rest, false, found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Qos;
    use crate::session::Publication;
    use crate::topic::{self, TopicName};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn message(topic: &str, payload: &'static str) -> Message {
        let publication = Publication::new(
            topic.parse().unwrap(),
            Bytes::from_static(payload.as_bytes()),
        );
        Message::new(publication, Qos::AtLeastOnce, true, Origin::Service)
    }

    #[test]
    fn the_bound_holds_and_replacing_is_always_possible() {
        let retained = Retained::new(2, usize::MAX);
        retained.insert(message("a", "1")).unwrap();
        retained.insert(message("b", "1")).unwrap();
        assert_eq!(retained.insert(message("c", "1")), Err(Full));
        retained.insert(message("b", "2")).unwrap();
        assert!(retained.remove("a"));
        assert!(!retained.remove("a"));
        retained.insert(message("c", "1")).unwrap();
        assert_eq!(retained.len(), 2);
    }

    #[test]
    fn what_a_device_left_is_found_by_it() {
        let [one, other] = ["a", "b"].map(|digit| digit.repeat(64).parse().unwrap());
        let of = |device: CertificateId, topic: &str, payload| {
            let publication = Publication::new(topic.parse().unwrap(), Bytes::from_static(payload));
            Message::new(publication, Qos::AtLeastOnce, true, Origin::Device(device))
        };
        let retained = Retained::new(10, usize::MAX);
        for topic in ["x/1", "x", "y"] {
            retained.insert(of(one, topic, b"1")).unwrap();
        }
        retained.insert(message("z", "1")).unwrap();
        // In its own place, in another's, and in nobody's.
        retained.insert(of(one, "x", b"2")).unwrap();
        retained.insert(of(other, "y", b"1")).unwrap();
        assert_eq!(retained.topics_of(&one), ["x", "x/1"]);
        assert_eq!(retained.topics_of(&other), ["y"]);
        retained.insert(message("x/1", "2")).unwrap();
        assert!(retained.remove("y"));
        assert_eq!(retained.topics_of(&one), ["x"]);
        assert!(retained.topics_of(&other).is_empty());
        assert!(retained.remove("x"));
        assert!(retained.inner.read().by_device.is_empty());
    }

    #[test]
    fn bytes_are_bounded_too_and_given_back() {
        let weight = message("a", "1").weight_bytes();
        let retained = Retained::new(10, weight);
        retained.insert(message("a", "1")).unwrap();
        assert_eq!(retained.insert(message("b", "1")), Err(Full));
        assert!(retained.remove("a"));
        retained.insert(message("b", "1")).unwrap();
    }

    proptest! {
        /// [MQTT-3.3.2-3, 4.7.2-1] [MQTT311-3.3.2-3, 4.7.2-1]
        #[test]
        fn finds_what_matching_one_by_one_finds(
            topics in prop::collection::hash_set("(\\$?[ab]/){0,3}[ab$]", 0..12),
            filter in "((\\$?[ab]|\\+)/){0,3}([ab]|\\+|#)",
        ) {
            let retained = Retained::new(100, usize::MAX);
            for topic in &topics {
                retained.insert(message(topic, "x")).unwrap();
            }
            let filter: TopicFilter = filter.parse().unwrap();
            let mut found: Vec<String> = retained
                .matching(&filter, Time::from_millis(0))
                .iter()
                .map(|message| message.topic().to_owned())
                .collect();
            found.sort();
            let mut expected: Vec<String> = topics
                .iter()
                .filter(|topic| {
                    let name: TopicName = topic.parse().unwrap();
                    topic::matches(&filter, &name)
                })
                .cloned()
                .collect();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
