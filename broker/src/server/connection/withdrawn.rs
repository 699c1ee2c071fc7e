//! What waits for a session of subscriptions that it has lost while nobody was connected to it.

use std::collections::VecDeque;

use crate::server::hub::Hub;
use crate::server::mailbox::{Delivery, Mailbox};
use crate::server::tree::TopicTree;
use crate::session::Subscriptions;
use crate::topic::TopicFilter;

/// Deliveries looked at before others have their turn.
const PORTION_MESSAGES: usize = 64;

/// Tells what came by lost subscriptions from what others still grant.
struct Withdrawn {
    lost: TopicTree<()>,
    left: TopicTree<()>,
}

impl Withdrawn {
    fn new(lost: &[TopicFilter], left: &Subscriptions, parents: bool) -> Self {
        fn tree<'a>(
            filters: impl Iterator<Item = &'a TopicFilter>,
            parents: bool,
        ) -> TopicTree<()> {
            let tree = TopicTree::with_parents(parents);
            for filter in filters {
                tree.insert(filter.pattern(), 0, ());
            }
            tree
        }
        Self {
            lost: tree(lost.iter(), parents),
            left: tree(left.filters(), parents),
        }
    }

    /// Whether a topic came to the session by what it has lost alone.
    fn took(&self, topic: &str) -> bool {
        let any = |tree: &TopicTree<()>| {
            let mut any = false;
            tree.matches(topic, &mut |_| any = true);
            any
        };
        any(&self.lost) && !any(&self.left)
    }
}

/// Drops what waits in a parked session's queue by subscriptions that it has lost and that nothing is added to any more;
/// what was shared goes to another member.
pub(super) async fn drop_queued(
    hub: &Hub,
    mailbox: &Mailbox,
    lost: &[TopicFilter],
    left: &Subscriptions,
) {
    let withdrawn = Withdrawn::new(lost, left, !hub.aws);
    let mut queue = VecDeque::new();
    mailbox.take(&mut queue, usize::MAX);
    let mut kept = VecDeque::with_capacity(queue.len());
    for (at, delivery) in queue.into_iter().enumerate() {
        if at % PORTION_MESSAGES == PORTION_MESSAGES - 1 {
            tokio::task::yield_now().await;
        }
        if came_by(hub, mailbox, &delivery, &withdrawn) {
            hub.own_counters().denied_receive.add();
            hub.drop_unsent(mailbox, delivery);
        } else {
            kept.push_back(delivery);
        }
    }
    mailbox.park(kept);
}

fn came_by(hub: &Hub, mailbox: &Mailbox, delivery: &Delivery, withdrawn: &Withdrawn) -> bool {
    if let Some(message) = &delivery.message {
        return withdrawn.took(message.topic());
    }
    let kept = hub
        .durable
        .queued(mailbox.number(), delivery.token, delivery.body);
    match kept {
        Ok(Some(message)) => withdrawn.took(message.topic()),
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
        let withdrawn = Withdrawn::new(&lost, &left, true);
        for (topic, took) in [("a/1", false), ("a/1/2", true), ("b", true), ("c", false)] {
            assert_eq!(withdrawn.took(topic), took, "{topic}");
        }
    }
}
