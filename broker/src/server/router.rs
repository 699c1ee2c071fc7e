//! From a topic to its receivers, and from a message into their mailboxes.

use std::sync::Arc;

use store::{Behind, Lsn};

use super::durable::Durable;
use super::layout::BodyRef;
use super::mailbox::Mailbox;
use super::message::Message;
use super::stats::Counters;
use super::tree::{Stamp, TopicTree};
use crate::codec::{Qos, SubscriptionOptions};
use crate::session::SendOptions;

/// A subscription in the tree.
pub(crate) struct Subscriber {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) options: SubscriptionOptions,
}

/// One session that receives a topic, its overlapping subscriptions merged into one copy.
#[derive(Clone)]
pub(crate) struct Receiver {
    mailbox: Arc<Mailbox>,
    qos: Qos,
    retain_as_published: bool,
}

/// Who receives `topic` when session `own` publishes it, and what that is true of.
pub(crate) fn receivers(
    tree: &TopicTree<Subscriber>,
    topic: &str,
    own: Option<u64>,
) -> (Stamp, Arc<[Receiver]>) {
    let mut found: Vec<Receiver> = Vec::new();
    let stamp = tree.matches(topic, &mut |entry| {
        let Subscriber { mailbox, options } = &entry.value;
        // [MQTT-3.8.3-3]
        if options.no_local && own == Some(entry.owner) {
            return;
        }
        found.push(Receiver {
            mailbox: Arc::clone(mailbox),
            qos: options.qos,
            retain_as_published: options.retain_as_published,
        });
    });
    merge(&mut found);
    (stamp, found.into())
}

/// One copy per session, with the highest QoS of its matching subscriptions [MQTT-3.3.4-2].
fn merge(found: &mut Vec<Receiver>) {
    if found.len() < 2 {
        return;
    }
    found.sort_by_key(|receiver| receiver.mailbox.number());
    found.dedup_by(|next, kept| {
        let same = next.mailbox.number() == kept.mailbox.number();
        if same {
            kept.qos = kept.qos.max(next.qos);
            kept.retain_as_published |= next.retain_as_published;
        }
        same
    });
}

/// How far a message has come on its way into the mailboxes, so that a journal that is behind can
/// stop it and it goes on where it was.
pub(crate) struct Routing {
    message: Message,
    receivers: Arc<[Receiver]>,
    next: usize,
    body: Option<BodyRef>,
    safe: Option<Lsn>,
}

impl Routing {
    pub(crate) fn new(message: Message, receivers: Arc<[Receiver]>) -> Self {
        Self {
            message,
            receivers,
            next: 0,
            body: None,
            safe: None,
        }
    }

    /// The message.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// The acknowledgement must wait for this too.
    pub(crate) fn wait_for(&mut self, lsn: Lsn) {
        self.safe = self.safe.max(Some(lsn));
    }

    /// Puts the message into every mailbox it has not been put into yet. Returns when it is safe
    /// for all its durable receivers; `None` when it waits for no disk.
    ///
    /// # Errors
    /// [`Behind`]: call again when the journal has caught up.
    pub(crate) fn run(
        &mut self,
        durable: &Durable,
        counters: &Counters,
    ) -> Result<Option<Lsn>, Behind> {
        let body = match self.body {
            Some(body) => body,
            None => {
                let body = self.choose_body(durable)?;
                self.body = Some(body);
                body
            }
        };
        while let Some(receiver) = self.receivers.get(self.next) {
            let options = SendOptions {
                qos: self.message.qos().min(receiver.qos),
                retain: self.message.retain() && receiver.retain_as_published,
            };
            match receiver
                .mailbox
                .deliver(&self.message, options, body, counters)
            {
                Ok(lsn) => self.safe = self.safe.max(lsn),
                Err(Behind::TooLarge { .. }) => counters.dropped_too_large.add(),
                Err(behind) => return Err(behind),
            }
            self.next += 1;
        }
        durable.release_body(body);
        self.body = Some(BodyRef::Inline);
        Ok(self.safe)
    }

    /// Gives up on the receivers not reached yet.
    pub(crate) fn abandon(self, durable: &Durable) {
        durable.release_body(self.body.unwrap_or(BodyRef::Inline));
    }

    /// For several durable receivers the body is kept once.
    fn choose_body(&self, durable: &Durable) -> Result<BodyRef, Behind> {
        if self.message.qos() == Qos::AtMostOnce {
            return Ok(BodyRef::Inline);
        }
        let durable_receivers = self
            .receivers
            .iter()
            .filter(|receiver| receiver.qos > Qos::AtMostOnce && receiver.mailbox.is_durable())
            .count();
        if durable_receivers < 2 {
            return Ok(BodyRef::Inline);
        }
        match durable.put_body(&self.message) {
            Ok(number) => Ok(BodyRef::Shared(number)),
            Err(Behind::TooLarge { .. }) => Ok(BodyRef::Inline),
            Err(behind) => Err(behind),
        }
    }
}
