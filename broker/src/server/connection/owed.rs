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

/// See the module. A session keeps it over a lost connection, and one that lasts over a restart.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Walks that have not begun; no more than the session has subscriptions.
    filters: BTreeMap<TopicFilter, Asked>,
    begun: Option<Begun>,
    /// Found by the one that has begun, and shared with the index.
    messages: VecDeque<(Message, SendOptions)>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    options: SubscriptionOptions,
    /// The last message it is about.
    until: u64,
    /// The subscription's record says that it is owed.
    noted: bool,
}

/// A walk, to the last of what it has found.
#[derive(Debug)]
struct Begun {
    walk: Walk,
    asked: Asked,
}

impl Owed {
    /// All that a filter matches is owed, to the last message of when it was asked for. `noted`: the subscription's record
    /// says so.
    pub(crate) fn add(
        &mut self,
        filter: TopicFilter,
        options: SubscriptionOptions,
        until: u64,
        noted: bool,
    ) {
        let asked = Asked {
            options,
            until,
            noted,
        };
        self.filters.insert(filter, asked);
    }

    /// The session has this subscription no more.
    pub(crate) fn forget(&mut self, filter: &TopicFilter) {
        self.filters.remove(filter);
        if self
            .begun
            .take_if(|begun| begun.walk.filter() == filter)
            .is_some()
        {
            self.messages.clear();
        }
    }

    /// Whether the record of this subscription says that it is owed.
    pub(crate) fn is_noted(&self, filter: &TopicFilter) -> bool {
        let begun = self.begun.as_ref();
        let begun = begun.filter(|begun| begun.walk.filter() == filter);
        let asked = begun.map(|begun| &begun.asked);
        asked.is_some_and(|asked| asked.noted)
            || self.filters.get(filter).is_some_and(|asked| asked.noted)
    }

    /// The subscription whose record says that it is owed, where that is true no more.
    pub(crate) fn settled(&mut self) -> Option<TopicFilter> {
        let is_over = |begun: &mut Begun| begun.walk.is_done();
        let over = self
            .begun
            .take_if(|begun| self.messages.is_empty() && is_over(begun))?;
        let filter = over.walk.filter();
        (over.asked.noted && !self.filters.contains_key(filter)).then(|| filter.clone())
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

    /// The next portion, when all of the one before is taken; `None` when all has been looked for.
    pub(crate) fn portion(
        &mut self,
        hub: &Hub,
        now: Time,
        work: &mut Work,
    ) -> Option<(Vec<Message>, SubscriptionOptions)> {
        let mut begun = match self.begun.take_if(|begun| !begun.walk.is_done()) {
            Some(begun) => begun,
            None => {
                let (filter, asked) = self.filters.pop_first()?;
                let walk = Walk::new(filter, asked.until);
                Begun { walk, asked }
            }
        };
        let found = hub.next_retained(&mut begun.walk, now, work);
        let options = begun.asked.options;
        self.begun = Some(begun);
        Some((found, options))
    }
}
