//! What is left of sessions that have ended: their subscriptions, and what waited for them. One may have twenty thousand of the
//! first and a hundred thousand of the second, so all beyond a portion is cleared away bit by bit, one session after the
//! other, and everybody else has their turns in between. Nothing is added to it: the mailbox is closed. A crash before it is
//! done leaves records of no session, which the next start deletes.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::hub::Hub;
use super::mailbox::{Delivery, Mailbox};
use crate::session::Subscriptions;

/// Subscriptions and messages cleared away before others have their turn.
const PORTION: usize = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct Remains {
    // Held for one change; never across an await.
    left: Mutex<Left>,
}

#[derive(Default)]
struct Left {
    sessions: VecDeque<Remnant>,
    /// Whether a task is at it.
    attended: bool,
}

/// What is left of one session.
struct Remnant {
    mailbox: Arc<Mailbox>,
    subscriptions: Subscriptions,
    queue: VecDeque<Delivery>,
}

impl Remains {
    /// Whether all has been cleared away.
    pub(crate) fn is_empty(&self) -> bool {
        !self.left.lock().attended
    }

    /// Whether a task has to begin with it.
    fn put(&self, remnant: Remnant) -> bool {
        let mut left = self.left.lock();
        left.sessions.push_back(remnant);
        !std::mem::replace(&mut left.attended, true)
    }

    fn next(&self) -> Option<Remnant> {
        let mut left = self.left.lock();
        let next = left.sessions.pop_front();
        left.attended = next.is_some();
        next
    }
}

impl Hub {
    /// Clears away what is left of a session whose mailbox is closed: a portion now, and the rest later.
    pub(crate) fn clear_away(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        subscriptions: Subscriptions,
        queue: VecDeque<Delivery>,
    ) {
        let mut remnant = Remnant {
            mailbox: Arc::clone(mailbox),
            subscriptions,
            queue,
        };
        if !self.clear_portion(&mut remnant) && self.remains.put(remnant) {
            tokio::spawn(clear_rest(Arc::clone(self)));
        }
    }

    /// Whether that was all.
    fn clear_portion(&self, remnant: &mut Remnant) -> bool {
        let number = remnant.mailbox.number();
        for _ in 0..PORTION {
            if let Some(filter) = remnant.subscriptions.pop() {
                self.unsubscribe_all(number, std::iter::once(&filter));
            } else if let Some(delivery) = remnant.queue.pop_front() {
                self.drop_unsent(&remnant.mailbox, delivery);
            } else {
                return true;
            }
        }
        remnant.subscriptions.is_empty() && remnant.queue.is_empty()
    }
}

async fn clear_rest(hub: Arc<Hub>) {
    while let Some(mut remnant) = hub.remains.next() {
        // Its first portion was cleared away by who ended it.
        loop {
            tokio::task::yield_now().await;
            if hub.clear_portion(&mut remnant) {
                break;
            }
        }
    }
}
