//! Messages of shared subscriptions that go from a member that will not have them to the next.
//!
//! The journal may be behind when they would have to be written into the next one's queue. They wait then: their records
//! stay where they are until another has them, over a restart too. Records of sessions that are no more are no strays where
//! they say by which shared subscription they came.

use std::collections::VecDeque;

use parking_lot::Mutex;
use store::Behind;

use super::groups::Shared;
use super::hub::Hub;
use super::layout::BodyRef;
use super::mailbox::{Delivery, Mailbox, NotPut};
use super::message::Message;
use crate::codec::Qos;
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

impl Late {
    /// Whether somebody would take it without the journal.
    fn needs_no_journal(&self) -> bool {
        // What has a record is above QoS 0, and more is not asked here.
        let qos = self.message.as_ref().map_or(Qos::AtLeastOnce, Message::qos);
        let group = self.shared.group();
        group.is_none_or(|group| group.has_unkept(&self.shared.tried, qos))
    }
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

    /// A record that an earlier run left to the others of a group.
    pub(crate) fn recover(&self, record: Record, shared: Box<Shared>) {
        self.waiting.lock().queue.push_back(Late {
            record,
            message: None,
            shared,
        });
    }

    fn len(&self) -> usize {
        self.waiting.lock().queue.len()
    }

    /// Whether there is room for it.
    fn put(&self, late: Late) -> bool {
        let mut waiting = self.waiting.lock();
        let bytes = late.message.as_ref().map_or(0, Message::weight_bytes);
        if bytes > 0 && waiting.bytes + bytes > MEMORY_BYTES {
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

    /// Puts back what was taken out, before what has come since.
    fn put_back(&self, late: VecDeque<Late>) {
        let mut waiting = self.waiting.lock();
        for late in late.into_iter().rev() {
            waiting.bytes += late.message.as_ref().map_or(0, Message::weight_bytes);
            waiting.queue.push_front(late);
        }
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

    /// Gives it to the first who takes it. Where the journal takes no more just now, and nobody will have it without, it is
    /// tried again: nothing of the message has been let go.
    fn offer(&self, message: &Message, shared: &Shared) -> Result<(), Behind> {
        let Some(group) = shared.group() else {
            return Ok(());
        };
        let mut asked = shared.tried.clone();
        let mut refused = Ok(());
        while let Some(member) = group.choose(&asked, message.qos()) {
            let put = member.mailbox.deliver(
                message,
                member.send_options(message),
                Some(Box::new(shared.clone())),
                false,
                BodyRef::Inline,
                self.own_counters(),
            );
            match put {
                Ok(_) | Err(NotPut::Behind(Behind::TooLarge { .. })) => return Ok(()),
                Err(NotPut::Behind(behind)) => refused = Err(behind),
                Err(NotPut::Ended) => {}
            }
            asked.push(member.mailbox.number());
        }
        refused
    }

    /// Passes on what waits, as much as the journal takes now, and what needs no journal.
    pub(crate) async fn pass_on_late(&self) {
        let mut refused = VecDeque::new();
        for at in 1..=self.passing.len() {
            let Some(late) = self.passing.next() else {
                break;
            };
            // The journal that has refused one refuses them all.
            if !refused.is_empty() && !late.needs_no_journal() {
                refused.push_back(late);
            } else if let Err(late) = self.try_late(late) {
                refused.push_back(late);
            }
            if at % PORTION_MESSAGES == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.passing.put_back(refused);
    }

    /// Gives it back where it has to wait.
    fn try_late(&self, late: Late) -> Result<(), Late> {
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
                    return Err(late);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a message of a shared subscription is lost"),
        }
        self.forget(late.record);
        Ok(())
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
