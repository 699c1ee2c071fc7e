//! Shared subscriptions (MQTT 5 §4.8.2): of the members of a group, one receives each message.
//!
//! A group stands in the topic tree like a session, so members come and go without touching the
//! tree. Who receives is decided per message: members that are connected take turns; where none is,
//! those whose session outlives their connection do. A member that may not receive a message, or
//! ends before it has sent it, passes it on to the next one.

use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::mailbox::Mailbox;
use super::message::Message;
use crate::codec::{Qos, SubscriptionOptions};
use crate::session::SendOptions;
use crate::topic::TopicFilter;

/// The sessions that share one filter under one name.
pub(crate) struct Group {
    /// Its owner number in the topic tree.
    number: u64,
    /// Its whole filter, by which the journal knows it.
    filter: Box<str>,
    // Held for one choice or one change; never across an await.
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    list: Vec<Member>,
    next: usize,
}

impl Members {
    /// Whose turn it is, of those not in `tried`.
    fn turn(&self, tried: &[u64], qos: Qos) -> Option<usize> {
        let count = self.list.len();
        let turn = |at: usize| (self.next + at) % count.max(1);
        let willing = |at: usize| {
            let member = self.list.get(turn(at))?;
            (!tried.contains(&member.mailbox.number())).then_some(member)
        };
        let connected = |at: &usize| willing(*at).is_some_and(|member| member.mailbox.is_live());
        let kept = |at: &usize| willing(*at).is_some_and(|member| member.keeps(qos));
        let at = (0..count)
            .find(connected)
            .or_else(|| (0..count).find(kept))?;
        Some(turn(at))
    }
}

/// One session of a group.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) mailbox: Arc<Mailbox>,
    options: SubscriptionOptions,
}

impl Member {
    fn keeps(&self, qos: Qos) -> bool {
        qos > Qos::AtMostOnce && self.mailbox.is_durable() && self.options.qos > Qos::AtMostOnce
    }

    /// How it gets a message [MQTT-4.8.2-3], with an identifier of its own [MQTT-3.3.4-5].
    pub(crate) fn send_options(&self, message: &Message) -> SendOptions {
        SendOptions {
            qos: message.qos().min(self.options.qos),
            retain: message.retain() && self.options.retain_as_published,
            subscription_ids: self.options.id.map(|id| Arc::from([id])),
        }
    }
}

/// A delivery that somebody else of the group can have.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Not held: it has its members, and so what waits for them. One that has none is gone, and nobody else is there.
    group: Weak<Group>,
    /// Sessions that would not have it.
    pub(crate) tried: Vec<u64>,
}

impl Shared {
    /// What a group has, offered to nobody yet.
    pub(crate) fn new(group: &Arc<Group>) -> Self {
        Self {
            group: Arc::downgrade(group),
            tried: Vec::new(),
        }
    }

    /// The group, while it has members.
    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        self.group.upgrade()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("group", &self.group().map(|group| group.number))
            .field("tried", &self.tried)
            .finish()
    }
}

impl Group {
    /// The member whose turn it is, of those not in `tried`.
    pub(crate) fn choose(&self, tried: &[u64], qos: Qos) -> Option<Member> {
        let mut members = self.members.lock();
        let chosen = members.turn(tried, qos)?;
        members.next = (chosen + 1) % members.list.len().max(1);
        members.list.get(chosen).cloned()
    }

    /// Its whole filter.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether a member that is not in `tried` would take a message without the journal: it is connected, and keeps nothing.
    pub(crate) fn has_unkept(&self, tried: &[u64], qos: Qos) -> bool {
        let members = self.members.lock();
        members.list.iter().any(|member| {
            let mailbox = &member.mailbox;
            mailbox.is_live() && !member.keeps(qos) && !tried.contains(&mailbox.number())
        })
    }

    /// Whether the member whose turn it is would keep a message of this QoS in its queue.
    pub(crate) fn keeps(&self, qos: Qos) -> bool {
        let members = self.members.lock();
        let next = members.turn(&[], qos);
        let next = next.and_then(|at| members.list.get(at));
        next.is_some_and(|member| member.keeps(qos))
    }

    fn join(&self, mailbox: &Arc<Mailbox>, options: SubscriptionOptions) {
        let mut members = self.members.lock();
        let mut known = members.list.iter_mut();
        match known.find(|member| member.mailbox.number() == mailbox.number()) {
            Some(member) => member.options = options,
            None => members.list.push(Member {
                mailbox: Arc::clone(mailbox),
                options,
            }),
        }
    }
}

/// All groups, by their whole filter (`$share/NAME/FILTER`).
#[derive(Default)]
pub(crate) struct Groups {
    // Held for one change; never across an await.
    known: Mutex<HashMap<Box<str>, Arc<Group>>>,
}

impl Groups {
    /// Adds a session, or changes its options. Returns the group, with its number, where it is new
    /// and must go into the tree.
    pub(crate) fn join(
        &self,
        filter: &TopicFilter,
        mailbox: &Arc<Mailbox>,
        options: SubscriptionOptions,
        number: impl FnOnce() -> u64,
    ) -> Option<(u64, Arc<Group>)> {
        let mut known = self.known.lock();
        if let Some(group) = known.get(filter.as_str()) {
            group.join(mailbox, options);
            return None;
        }
        let group = Arc::new(Group {
            number: number(),
            filter: filter.as_str().into(),
            members: Mutex::default(),
        });
        group.join(mailbox, options);
        known.insert(filter.as_str().into(), Arc::clone(&group));
        Some((group.number, group))
    }

    /// The group of a filter, while it has members.
    pub(crate) fn of(&self, filter: &str) -> Option<Arc<Group>> {
        self.known.lock().get(filter).cloned()
    }

    /// Takes a session out. Returns the group's number where nobody is left and it must leave the
    /// tree.
    pub(crate) fn leave(&self, filter: &TopicFilter, session: u64) -> Option<u64> {
        let mut known = self.known.lock();
        let group = known.get(filter.as_str())?;
        let empty = {
            let mut members = group.members.lock();
            members
                .list
                .retain(|member| member.mailbox.number() != session);
            members.list.is_empty()
        };
        if !empty {
            return None;
        }
        known.remove(filter.as_str()).map(|group| group.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::limits::Limits;
    use std::collections::VecDeque;

    fn mailbox(number: u64) -> Arc<Mailbox> {
        Arc::new(Mailbox::new(number, None, &Limits::default()))
    }

    fn chosen(group: &Group, tried: &[u64]) -> Option<u64> {
        let member = group.choose(tried, Qos::AtLeastOnce)?;
        Some(member.mailbox.number())
    }

    #[test]
    fn connected_members_take_turns_and_those_who_would_not_are_left_out() {
        let groups = Groups::default();
        let filter: TopicFilter = "$share/g/a".parse().unwrap();
        let options = SubscriptionOptions::new(Qos::AtLeastOnce);
        let (first, second) = (mailbox(1), mailbox(2));
        let (number, group) = groups.join(&filter, &first, options, || 9).unwrap();
        assert_eq!(number, 9);
        assert!(groups.join(&filter, &second, options, || 10).is_none());
        let turns: Vec<_> = (0..4).map(|_| chosen(&group, &[]).unwrap()).collect();
        assert_eq!(turns, [1, 2, 1, 2]);
        assert_eq!(chosen(&group, &[1]), Some(2));
        assert_eq!(chosen(&group, &[1, 2]), None);
        let unkept = |tried: &[u64]| group.has_unkept(tried, Qos::AtLeastOnce);
        assert!(unkept(&[1]) && !unkept(&[1, 2]));
        second.park(VecDeque::new());
        assert!(unkept(&[]) && !unkept(&[1]), "one is connected");
        assert_eq!(chosen(&group, &[]), Some(1));
        assert_eq!(chosen(&group, &[1]), None, "neither connected nor durable");
        assert_eq!(groups.leave(&filter, 1), None);
        assert_eq!(groups.leave(&filter, 2), Some(9));
        assert_eq!(groups.leave(&filter, 2), None);
        assert_eq!(chosen(&group, &[]), None);
    }
}
