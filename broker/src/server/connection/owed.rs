//! What is retained under new subscriptions and has not been sent yet. It is looked for in portions, as the client takes
//! it: one walk for each filter, however often that was asked for.

use std::collections::{BTreeMap, VecDeque};

use crate::codec::SubscriptionOptions;
use crate::server::hub::Hub;
use crate::server::message::Message;
use crate::server::retained::Walk;
use crate::server::work::Work;
use crate::session::{SendOptions, Time};
use crate::topic::TopicFilter;

/// See the module. A session keeps it over a lost connection.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Walks that have not begun; no more than the session has subscriptions.
    filters: BTreeMap<TopicFilter, (SubscriptionOptions, u64)>,
    walk: Option<(Walk, SubscriptionOptions)>,
    /// Found, and shared with the index.
    messages: VecDeque<(Message, SendOptions)>,
}

impl Owed {
    /// All that a filter matches is owed, to the last message of when it was asked for.
    pub(crate) fn add(&mut self, filter: TopicFilter, options: SubscriptionOptions, until: u64) {
        self.filters.insert(filter, (options, until));
    }

    /// The session has this subscription no more.
    pub(crate) fn forget(&mut self, filter: &TopicFilter) {
        self.filters.remove(filter);
        self.walk.take_if(|(walk, _)| walk.filter() == filter);
    }

    /// The next message that was found.
    pub(crate) fn next(&self) -> Option<&(Message, SendOptions)> {
        self.messages.front()
    }

    /// Takes it out.
    pub(crate) fn take(&mut self) -> Option<(Message, SendOptions)> {
        self.messages.pop_front()
    }

    /// Puts back what was taken out.
    pub(crate) fn give_back(&mut self, message: Message, options: SendOptions) {
        self.messages.push_front((message, options));
    }

    /// Puts one that was found behind the others.
    pub(crate) fn keep(&mut self, message: Message, options: SendOptions) {
        self.messages.push_back((message, options));
    }

    /// The next portion; `None` when all has been looked for.
    pub(crate) fn portion(
        &mut self,
        hub: &Hub,
        now: Time,
        work: &mut Work,
    ) -> Option<(Vec<Message>, SubscriptionOptions)> {
        let (mut walk, options) = match self.walk.take() {
            Some(begun) => begun,
            None => {
                let (filter, (options, until)) = self.filters.pop_first()?;
                (Walk::new(filter, until), options)
            }
        };
        let found = hub.next_retained(&mut walk, now, work);
        if !walk.is_done() {
            self.walk = Some((walk, options));
        }
        Some((found, options))
    }
}
