//! Messages of shared subscriptions that go from a member that will not have them to the next.
//!
//! The journal may be behind when they would have to be written into the next one's queue. They wait then: their records
//! stay where they are until another has them.

use std::collections::VecDeque;

use parking_lot::Mutex;
use store::Behind;

use super::groups::Shared;
use super::hub::Hub;
use super::layout::BodyRef;
use super::mailbox::{Delivery, Mailbox};
use super::message::Message;
use crate::session::Token;

/// Bytes of messages that are in memory alone and may wait, of all sessions together. None of them was safe on a disk.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;

/// Passed on before others have their turn.
const PORTION_MESSAGES: usize = 64;

/// Messages that the next member of their group has not taken yet.
#[derive(Default)]
pub(crate) struct Passing {
    // Held for one change; never across an await.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Late>,
    /// Of those that are in memory.
    bytes: usize,
}

struct Late {
    record: Record,
    /// `None`: it is read from its record.
    message: Option<Message>,
    shared: Box<Shared>,
}

/// Where a delivery to a session is written down; with token 0 nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// The session's.
    pub(crate) number: u64,
    pub(crate) token: Token,
    pub(crate) body: BodyRef,
}

impl Passing {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.lock().queue.is_empty()
    }

    /// Whether there is room for it.
    fn put(&self, late: Late) -> bool {
        let mut waiting = self.waiting.lock();
        let bytes = late.message.as_ref().map_or(0, Message::weight_bytes);
        if waiting.bytes + bytes > MEMORY_BYTES {
            return false;
        }
        waiting.bytes += bytes;
        waiting.queue.push_back(late);
        true
    }

    fn next(&self) -> Option<Late> {
        let mut waiting = self.waiting.lock();
        let late = waiting.queue.pop_front()?;
        waiting.bytes -= late.message.as_ref().map_or(0, Message::weight_bytes);
        Some(late)
    }

    fn put_back(&self, late: Late) {
        let mut waiting = self.waiting.lock();
        waiting.bytes += late.message.as_ref().map_or(0, Message::weight_bytes);
        waiting.queue.push_front(late);
    }
}

impl Hub {
    /// Gives a message of a shared subscription that a session will not have to the next one of the group, now or, where
    /// the journal is behind, later; its record goes with that, or where there is nobody else.
    pub(crate) fn pass_on(&self, message: &Message, mut shared: Box<Shared>, record: Record) {
        shared.tried.push(record.number);
        if self.offer(message, &shared).is_ok() {
            return self.forget(record);
        }
        let late = Late {
            record,
            message: (record.token == 0).then(|| message.clone()),
            shared,
        };
        if self.passing.put(late) {
            self.deadlines.wake();
        } else {
            self.own_counters().dropped_queue_full.add();
        }
    }

    /// Where the journal takes no more just now it is tried again: nothing of the message has been let go.
    fn offer(&self, message: &Message, shared: &Shared) -> Result<(), Behind> {
        let Some(member) = shared.group.choose(&shared.tried, message.qos()) else {
            return Ok(());
        };
        let put = member.mailbox.deliver(
            message,
            member.send_options(message),
            Some(Box::new(shared.clone())),
            false,
            BodyRef::Inline,
            self.own_counters(),
        );
        match put {
            Err(behind @ Behind::Full { .. }) => Err(behind),
            Ok(_) | Err(Behind::TooLarge { .. }) => Ok(()),
        }
    }

    /// Passes on what waits, as much as the journal takes now.
    pub(crate) async fn pass_on_late(&self) {
        let mut passed = 0;
        while let Some(late) = self.passing.next() {
            let Record {
                number,
                token,
                body,
            } = late.record;
            let read = match &late.message {
                Some(message) => Ok(Some(message.clone())),
                None => self.durable.queued(number, token, body),
            };
            match read {
                Ok(Some(message)) => {
                    if self.offer(&message, &late.shared).is_err() {
                        return self.passing.put_back(late);
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a message of a shared subscription is lost"),
            }
            self.forget(late.record);
            passed += 1;
            if passed % PORTION_MESSAGES == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn forget(&self, record: Record) {
        if record.token != 0 {
            let Record {
                number,
                token,
                body,
            } = record;
            self.durable.delete_queued(number, token, body);
        }
    }

    /// Of an ended session: a message of a shared subscription goes to another member.
    pub(crate) fn drop_unsent(&self, mailbox: &Mailbox, mut delivery: Delivery) {
        let shared = delivery.shared.take();
        let record = Record {
            number: mailbox.number(),
            token: delivery.token,
            body: delivery.body,
        };
        match (delivery.message.take(), shared) {
            (Some(message), Some(shared)) => self.pass_on(&message, shared, record),
            (_, shared) => self.drop_kept(record, shared),
        }
    }

    /// As [`Hub::drop_unsent`], of a message that only the journal has.
    pub(crate) fn drop_kept(&self, record: Record, shared: Option<Box<Shared>>) {
        if let Some(shared) = shared {
            let Record {
                number,
                token,
                body,
            } = record;
            match self.durable.queued(number, token, body) {
                Ok(Some(message)) => return self.pass_on(&message, shared, record),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "a message of a shared subscription is lost"),
            }
        }
        self.forget(record);
    }
}
