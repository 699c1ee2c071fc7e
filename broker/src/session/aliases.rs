//! Topic aliases of one connection, both ways (MQTT 5 §3.3.2.3.4).

use std::collections::HashMap;
use std::num::NonZeroU16;

use super::Disconnect;
use crate::codec::ReasonCode;
use crate::topic::TopicName;

/// What the client has named, by number.
#[derive(Debug, Default)]
pub(super) struct IncomingAliases {
    names: Vec<Option<TopicName>>,
}

impl IncomingAliases {
    /// The topic of a PUBLISH: its own, which `alias` means from now on, or the one `alias` means.
    ///
    /// # Errors
    /// The alias is above `max`, or means nothing yet.
    pub(super) fn resolve(
        &mut self,
        topic: Option<TopicName>,
        alias: NonZeroU16,
        max: u16,
    ) -> Result<TopicName, Disconnect> {
        let invalid = |text| Disconnect::new(ReasonCode::TopicAliasInvalid, text);
        if alias.get() > max {
            // [MQTT-3.2.2-17, -18, 3.3.2-9]
            return Err(invalid(format!(
                "topic alias {alias} is above the Topic Alias Maximum of {max}"
            )));
        }
        // [MQTT-3.3.2-12]
        let at = usize::from(alias.get() - 1);
        if let Some(topic) = topic {
            if self.names.len() <= at {
                self.names.resize(at + 1, None);
            }
            if let Some(name) = self.names.get_mut(at) {
                // Kept for as long as the connection lasts, so not with the read buffer.
                *name = Some(topic.detached());
            }
            return Ok(topic);
        }
        let known = self.names.get(at).cloned().flatten();
        known.ok_or_else(|| {
            let text = format!("topic alias {alias} means nothing yet: send it with its topic");
            Disconnect::new(ReasonCode::ProtocolError, text)
        })
    }
}

/// What the server has named, as far as the client's Topic Alias Maximum goes.
#[derive(Debug, Default)]
pub(super) struct OutgoingAliases {
    numbers: HashMap<Box<str>, NonZeroU16>,
    max: u16,
}

/// How a topic goes into a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// In full, without an alias: the client allows none, or all are taken.
    Plain,
    /// In full, with an alias that means it once this is sent.
    First(NonZeroU16),
    /// By an alias that means it already.
    Known(NonZeroU16),
}

impl OutgoingAliases {
    pub(super) fn new(max: u16) -> Self {
        Self {
            numbers: HashMap::new(),
            max,
        }
    }

    /// How to write `topic`. The first topics get the aliases, and keep them [MQTT-3.1.2-26].
    pub(super) fn naming(&self, topic: &str) -> Naming {
        if self.max == 0 {
            return Naming::Plain; // [MQTT-3.1.2-27]
        }
        match self.numbers.get(topic) {
            Some(alias) => Naming::Known(*alias),
            None => u16::try_from(self.numbers.len() + 1)
                .ok()
                .filter(|next| *next <= self.max)
                .and_then(NonZeroU16::new)
                .map_or(Naming::Plain, Naming::First),
        }
    }

    /// A PUBLISH with this naming has been written.
    pub(super) fn written(&mut self, topic: &str, naming: Naming) {
        if let Naming::First(alias) = naming {
            self.numbers.insert(topic.into(), alias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    fn topic(text: &str) -> TopicName {
        text.parse().unwrap()
    }

    #[test]
    fn an_alias_means_the_topic_it_was_last_sent_with() {
        let mut aliases = IncomingAliases::default();
        let error = aliases.resolve(None, alias(2), 3).unwrap_err();
        assert_eq!(error.reason, ReasonCode::ProtocolError);
        for name in ["a", "b"] {
            let named = aliases.resolve(Some(topic(name)), alias(2), 3).unwrap();
            assert_eq!(named, topic(name));
            assert_eq!(aliases.resolve(None, alias(2), 3).unwrap(), topic(name));
        }
        assert!(aliases.resolve(None, alias(1), 3).is_err(), "a gap below");
    }

    /// [MQTT-3.2.2-17, -18, 3.3.2-9]
    #[test]
    fn the_maximum_holds_at_the_bound_and_not_past_it() {
        let mut aliases = IncomingAliases::default();
        assert!(aliases.resolve(Some(topic("a")), alias(3), 3).is_ok());
        let error = aliases.resolve(Some(topic("a")), alias(4), 3).unwrap_err();
        assert_eq!(error.reason, ReasonCode::TopicAliasInvalid);
        let error = aliases.resolve(Some(topic("a")), alias(1), 0).unwrap_err();
        assert_eq!(error.reason, ReasonCode::TopicAliasInvalid);
    }

    /// [MQTT-3.1.2-26, -27, 3.3.2-11]
    #[test]
    fn outgoing_aliases_go_to_the_first_topics_and_stay_with_them() {
        let mut aliases = OutgoingAliases::new(2);
        for (name, naming) in [
            ("a", Naming::First(alias(1))),
            ("a", Naming::Known(alias(1))),
            ("b", Naming::First(alias(2))),
            ("c", Naming::Plain),
            ("b", Naming::Known(alias(2))),
        ] {
            assert_eq!(aliases.naming(name), naming, "{name}");
            aliases.written(name, naming);
        }
        assert_eq!(OutgoingAliases::new(0).naming("a"), Naming::Plain);
    }

    #[test]
    fn what_was_not_written_names_nothing() {
        let aliases = OutgoingAliases::new(1);
        assert_eq!(aliases.naming("a"), Naming::First(alias(1)));
        assert_eq!(aliases.naming("b"), Naming::First(alias(1)));
    }
}
