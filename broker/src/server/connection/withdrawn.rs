//! What waits for a session of subscriptions that it has lost: with a connection, or while nobody was connected to it.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::server::hub::Hub;
use crate::server::mailbox::{Delivery, Mailbox};
use crate::server::stats::Counters;
use crate::server::tree::{Search, TopicTree};
use crate::server::work::Work;
use crate::session::Subscriptions;
use crate::topic::TopicFilter;

/// Deliveries looked at before others have their turn.
pub(super) const PORTION_MESSAGES: usize = 64;

/// Of so many topics it is remembered what was found.
const KNOWN_TOPICS: usize = 1024;

/// Units of work after which it is looked whether a filter was found: one is enough, and thousands may match.
const LOOKED_AT: usize = 256;

/// Tells what came by lost subscriptions from what others still grant.
struct Withdrawn {
    lost: TopicTree<()>,
    left: TopicTree<()>,
    known: HashMap<Box<str>, bool>,
}

fn tree<'a>(filters: impl Iterator<Item = &'a TopicFilter>, parents: bool) -> TopicTree<()> {
    let tree = TopicTree::with_parents(parents);
    for filter in filters {
        tree.insert(filter.pattern(), 0, ());
    }
    tree
}

impl Withdrawn {
    fn new<'a>(
        lost: &'a [TopicFilter],
        left: impl Iterator<Item = &'a TopicFilter>,
        parents: bool,
    ) -> Self {
        Self {
            lost: tree(lost.iter(), parents),
            left: tree(left, parents),
            known: HashMap::new(),
        }
    }

    /// Whether a topic came to the session by what it has lost alone.
    fn took(&mut self, topic: &str, work: &mut Work) -> bool {
        if let Some(took) = self.known.get(topic) {
            return *took;
        }
        let mut any = |tree: &TopicTree<()>| {
            let (mut search, mut any) = (Search::default(), false);
            while !any && !search.is_done() {
                let mut some = Work::of(LOOKED_AT);
                tree.search(&mut search, topic, &mut some, &mut |_| any = true);
                work.spend(LOOKED_AT);
            }
            any
        };
        let took = any(&self.lost) && !any(&self.left);
        if self.known.len() >= KNOWN_TOPICS {
            self.known.clear();
        }
        self.known.insert(topic.into(), took);
        took
    }
}

/// What waits for a session, on its way through: what came by subscriptions that it has lost goes, what was shared to
/// another member.
pub(super) struct Sieve {
    withdrawn: Withdrawn,
    /// Not looked at yet.
    queue: VecDeque<Delivery>,
    kept: VecDeque<Delivery>,
}

impl Sieve {
    /// `left` are the subscriptions that the session still has, `queue` what waits.
    pub(super) fn new<'a>(
        hub: &Hub,
        lost: &'a [TopicFilter],
        left: impl Iterator<Item = &'a TopicFilter>,
        queue: VecDeque<Delivery>,
    ) -> Self {
        Self {
            withdrawn: Withdrawn::new(lost, left, !hub.aws),
            queue,
            kept: VecDeque::new(),
        }
    }

    /// More is lost: all is looked at again, and what has come meanwhile. `left` are the subscriptions that the session
    /// still has: some may have come since, or be of one pattern with a lost one, as `$share/g/b` and `b` are.
    pub(super) fn again<'a>(
        &mut self,
        hub: &Hub,
        lost: &[TopicFilter],
        left: impl Iterator<Item = &'a TopicFilter>,
        more: VecDeque<Delivery>,
    ) {
        self.withdrawn.left = tree(left, !hub.aws);
        for filter in lost {
            self.withdrawn.lost.insert(filter.pattern(), 0, ());
        }
        self.withdrawn.known.clear();
        let waiting = std::mem::take(&mut self.queue);
        self.queue = std::mem::take(&mut self.kept);
        self.queue.extend(waiting.into_iter().chain(more));
    }

    /// Looks at the next few; whether all has been looked at.
    pub(super) fn portion(&mut self, hub: &Hub, mailbox: &Mailbox, counters: &Counters) -> bool {
        let mut work = hub.share();
        for _ in 0..PORTION_MESSAGES {
            if work.is_spent() {
                break;
            }
            let Some(delivery) = self.queue.pop_front() else {
                break;
            };
            if came_by(hub, mailbox, &delivery, &mut self.withdrawn, &mut work) {
                counters.denied_receive.add();
                hub.drop_unsent(mailbox, delivery);
            } else {
                self.kept.push_back(delivery);
            }
        }
        self.queue.is_empty()
    }

    /// What stays, when all has been looked at.
    pub(super) async fn all(
        mut self,
        hub: &Hub,
        mailbox: &Mailbox,
        counters: &Counters,
    ) -> VecDeque<Delivery> {
        while !self.portion(hub, mailbox, counters) {
            tokio::task::yield_now().await;
        }
        self.kept
    }

    /// As [`Sieve::all`], of one that is through.
    pub(super) fn into_kept(self) -> VecDeque<Delivery> {
        self.kept
    }
}

/// Drops what waits in a parked session's queue by subscriptions that it has lost and that nothing is added to any more.
pub(super) async fn drop_queued(
    hub: &Hub,
    mailbox: &Mailbox,
    lost: &[TopicFilter],
    left: &Subscriptions,
) {
    let mut queue = VecDeque::new();
    mailbox.take(&mut queue, usize::MAX);
    let sieve = Sieve::new(hub, lost, left.filters(), queue);
    mailbox.park(sieve.all(hub, mailbox, hub.own_counters()).await);
}

fn came_by(
    hub: &Hub,
    mailbox: &Mailbox,
    delivery: &Delivery,
    withdrawn: &mut Withdrawn,
    work: &mut Work,
) -> bool {
    // What the session has asked for came by no subscription.
    if delivery.answer {
        return false;
    }
    if let Some(message) = &delivery.message {
        return withdrawn.took(message.topic(), work);
    }
    let kept = hub
        .durable
        .queued(mailbox.number(), delivery.token, delivery.body);
    match kept {
        Ok(Some(message)) => withdrawn.took(message.topic(), work),
        // Said where it would be sent.
        Ok(None) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Qos, SubscriptionOptions};

    #[test]
    fn what_another_subscription_still_grants_stays() {
        let mut left = Subscriptions::default();
        let options = SubscriptionOptions::new(Qos::AtLeastOnce);
        left.insert("a/+".parse().unwrap(), options);
        let lost = ["a/#", "$share/g/b"].map(|filter| filter.parse().unwrap());
        let mut withdrawn = Withdrawn::new(&lost, left.filters(), true);
        for (topic, took) in [("a/1", false), ("a/1/2", true), ("b", true), ("c", false)] {
            for _ in 0..2 {
                let took_it = withdrawn.took(topic, &mut Work::unbounded());
                assert_eq!(took_it, took, "{topic}");
            }
        }
    }
}
