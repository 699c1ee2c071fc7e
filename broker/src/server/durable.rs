//! What the broker keeps in its journal: see [`super::layout`] for how.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;
use parking_lot::Mutex;
use store::{Behind, Change, Journal, Lsn, StoreError};

use super::layout::{
    BodyRef, DurableError, RECEIVED, decode_entry, decode_message, decode_will, encode_entry,
    encode_message, encode_options, encode_since, held_key, key, queue_key, retained_key,
    subscription_key, will_key,
};
use super::message::{Message, Origin, properties_bytes};
use super::record::{self, SessionRecord};
use crate::codec::{PacketId, SubscriptionOptions, Will};
use crate::session::{Publication, SendOptions, Time, Token};
use crate::topic::TopicFilter;

/// Bytes that a will may say to be kept also while the disk is nearly full.
const BOUNDED_WILL_BYTES: usize = 1024;
/// Bytes of its record beside that, and more than there are.
const WILL_HEAD_BYTES: usize = 256;
/// Bytes of a session's record, at most: its owner, its client id, what is in flight.
const SESSION_BYTES_MAX: usize = 4096;

/// Bytes of what a will says.
fn will_length(will: &Will) -> usize {
    let properties = will.properties.as_deref();
    will.topic.as_str().len() + will.payload.len() + properties.map_or(0, properties_bytes)
}

/// One queue that a message goes into.
pub(crate) struct Entry<'a> {
    pub(crate) session: u64,
    pub(crate) token: Token,
    pub(crate) options: &'a SendOptions,
    /// The filter of the shared subscription it comes by.
    pub(crate) group: Option<&'a str>,
}

/// The journal with the broker's layout.
pub(crate) struct Durable {
    journal: Journal,
    next_body: AtomicU64,
    // How many queue entries mean a shared body; the last one deletes it.
    bodies: Mutex<HashMap<u64, usize>>,
}

impl Durable {
    pub(crate) fn new(journal: Journal) -> Self {
        Self {
            journal,
            next_body: AtomicU64::new(1),
            bodies: Mutex::default(),
        }
    }

    /// The journal, to wait for.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Makes durable what was written so far; blocks.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        // Deleting what is not there gives the position of the last record.
        match self.journal.delete(b"") {
            Ok(last) => self.journal.wait_durable(last),
            // No key is shorter, so it is never too large, and a deletion is told nothing else.
            Err(_) => Ok(()),
        }
    }

    /// Whether what was written up to `lsn` is on the disk.
    pub(crate) fn is_durable(&self, lsn: Lsn) -> bool {
        self.journal.durable() >= lsn
    }

    /// There are as many as there may be sessions, also where the disk is nearly full: those who are known can come and go.
    pub(crate) fn put_session(&self, number: u64, record: &SessionRecord) -> Result<Lsn, Behind> {
        self.journal
            .put_bounded(&key(b's', number), &[&record::encode(record)])
    }

    /// As [`Durable::put_session`], of a connection without a will: that of an earlier one goes in the same commit.
    pub(crate) fn put_session_without_will(
        &self,
        number: u64,
        record: &SessionRecord,
    ) -> Result<Lsn, Behind> {
        let (session, will, value) = (key(b's', number), will_key(number), record::encode(record));
        self.journal.batch_bounded(&[
            Change::Delete { key: &will },
            Change::Put {
                key: &session,
                parts: &[&value],
            },
        ])
    }

    /// `owed`: what is retained under it has not all been sent, or put into the queue.
    pub(crate) fn put_subscription(
        &self,
        number: u64,
        filter: &TopicFilter,
        options: &SubscriptionOptions,
        owed: bool,
    ) -> Result<Lsn, Behind> {
        self.journal.put(
            &subscription_key(number, filter),
            &[&encode_options(options, owed)],
        )
    }

    /// Whether a session that lasts could be kept now, or would have to wait for room on the disk, which may take hours.
    pub(crate) fn has_room_for_session(&self, will: Option<&Will>) -> bool {
        let will_bytes = will.map_or(0, |will| will_length(will) + WILL_HEAD_BYTES);
        let bounded = will_bytes <= BOUNDED_WILL_BYTES + WILL_HEAD_BYTES;
        self.journal
            .has_room(SESSION_BYTES_MAX + will_bytes, bounded)
    }

    /// As [`Durable::put_session`], of a connection with a will, which goes in the same commit in place of an earlier one. A
    /// long one is none of what is put while the disk is nearly full.
    pub(crate) fn put_session_with_will(
        &self,
        number: u64,
        record: &SessionRecord,
        will: &Will,
        origin: Origin,
    ) -> Result<Lsn, Behind> {
        // The expiry counts from publication, so it is kept beside the message, not in it.
        let publication = Publication {
            expires_at: None,
            ..Publication::of_will(will, Time::from_millis(0))
        };
        let message = Message::new(publication, will.qos, will.retain, origin);
        let mut head = Vec::with_capacity(16);
        head.put_u32(will.delay_s);
        head.put_u8(u8::from(will.expiry_s.is_some()));
        head.put_u32(will.expiry_s.unwrap_or(0));
        let encoded = encode_message(&message);
        let (session, value) = (key(b's', number), record::encode(record));
        let changes = [
            Change::Put {
                key: &will_key(number),
                parts: &[&head, &encoded, message.payload()],
            },
            Change::Put {
                key: &session,
                parts: &[&value],
            },
        ];
        match will_length(will) <= BOUNDED_WILL_BYTES {
            true => self.journal.batch_bounded(&changes),
            false => self.journal.batch(&changes),
        }
    }

    /// Reads a will again.
    pub(crate) fn will(&self, number: u64) -> Result<Option<Will>, DurableError> {
        let value = self.journal.get(&will_key(number))?;
        value.map(decode_will).transpose()
    }

    /// Puts a message into a session's queue.
    pub(crate) fn put_queued(
        &self,
        entry: &Entry<'_>,
        body: BodyRef,
        message: &Message,
    ) -> Result<Lsn, Behind> {
        let head = encode_entry(entry.options, body, entry.group);
        let key = queue_key(entry.session, entry.token);
        match body {
            BodyRef::Shared(body) => {
                let lsn = self.journal.put(&key, &[&head])?;
                *self.bodies.lock().entry(body).or_default() += 1;
                Ok(lsn)
            }
            BodyRef::Inline => self
                .journal
                .put(&key, &[&head, &encode_message(message), message.payload()]),
        }
    }

    /// Puts a message into several queues and deletes the record `settles`, all in one commit.
    /// Returns where its body is.
    pub(crate) fn put_together(
        &self,
        message: &Message,
        entries: &[Entry<'_>],
        settles: Option<&[u8]>,
    ) -> Result<(Lsn, BodyRef), Behind> {
        let encoded = encode_message(message);
        let payload: &[u8] = message.payload();
        let body = match entries {
            [] | [_] => BodyRef::Inline,
            _ => BodyRef::Shared(self.next_body.fetch_add(1, Ordering::Relaxed)),
        };
        let keys: Vec<Vec<u8>> = entries
            .iter()
            .map(|entry| queue_key(entry.session, entry.token))
            .collect();
        let heads: Vec<Vec<u8>> = entries
            .iter()
            .map(|entry| encode_entry(entry.options, body, entry.group))
            .collect();
        let parts: Vec<[&[u8]; 3]> = heads
            .iter()
            .map(|head| match body {
                BodyRef::Inline => [&head[..], &encoded[..], payload],
                BodyRef::Shared(_) => [&head[..], &[], &[]],
            })
            .collect();
        let body_parts = [&encoded[..], payload];
        let body_key = match body {
            BodyRef::Shared(number) => Some(key(b'b', number)),
            BodyRef::Inline => None,
        };
        let of_body = body_key.iter().map(|key| Change::Put {
            key,
            parts: &body_parts,
        });
        let of_queues = keys
            .iter()
            .zip(&parts)
            .map(|(key, parts)| Change::Put { key, parts });
        let of_settled = settles.map(|key| Change::Delete { key });
        let changes: Vec<Change<'_>> = of_body.chain(of_queues).chain(of_settled).collect();
        let lsn = self.journal.batch(&changes)?;
        if let BodyRef::Shared(number) = body {
            self.bodies.lock().insert(number, entries.len());
        }
        Ok((lsn, body))
    }

    /// Deletes the record a message came from.
    pub(crate) fn settle(&self, key: Vec<u8>) -> Option<Lsn> {
        self.delete(key)
    }

    /// Notes that the client has a message of QoS 2; what was kept of the message goes.
    pub(crate) fn put_received(
        &self,
        number: u64,
        token: Token,
        body: BodyRef,
    ) -> Result<Lsn, Behind> {
        // Shorter than what it takes the place of.
        let received = queue_key(number, token);
        let lsn = self.journal.put_bounded(&received, &[&RECEIVED])?;
        self.release_body(body);
        Ok(lsn)
    }

    /// Keeps a message of QoS 2 until the client releases it.
    pub(crate) fn put_held(
        &self,
        number: u64,
        packet_id: PacketId,
        message: &Message,
    ) -> Result<Lsn, Behind> {
        self.journal.put(
            &held_key(number, packet_id),
            &[&encode_message(message), message.payload()],
        )
    }

    /// Reads a held message again.
    pub(crate) fn held(
        &self,
        number: u64,
        packet_id: PacketId,
    ) -> Result<Option<Message>, DurableError> {
        let value = self.journal.get(&held_key(number, packet_id))?;
        value.map(decode_message).transpose()
    }

    pub(crate) fn delete_held(&self, number: u64, packet_id: PacketId) -> Option<Lsn> {
        self.delete(held_key(number, packet_id))
    }

    /// Keeps a message once, for several queues. The caller holds one reference until
    /// [`Durable::release_body`].
    pub(crate) fn put_body(&self, message: &Message) -> Result<u64, Behind> {
        let number = self.next_body.fetch_add(1, Ordering::Relaxed);
        self.journal.put(
            &key(b'b', number),
            &[&encode_message(message), message.payload()],
        )?;
        self.bodies.lock().insert(number, 1);
        Ok(number)
    }

    /// Gives up one reference to a body.
    pub(crate) fn release_body(&self, body: BodyRef) {
        let BodyRef::Shared(number) = body else {
            return;
        };
        let last = {
            let mut bodies = self.bodies.lock();
            match bodies.get_mut(&number) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                Some(_) => bodies.remove(&number).is_some(),
                None => false,
            }
        };
        if last {
            self.delete(key(b'b', number).to_vec());
        }
    }

    /// Reads a queued message again.
    pub(crate) fn queued(
        &self,
        number: u64,
        token: Token,
        body: BodyRef,
    ) -> Result<Option<Message>, DurableError> {
        match body {
            BodyRef::Shared(body) => self
                .journal
                .get(&key(b'b', body))?
                .map(decode_message)
                .transpose(),
            BodyRef::Inline => match self.journal.get(&queue_key(number, token))? {
                Some(value) => Ok(decode_entry(value)?.1),
                None => Ok(None),
            },
        }
    }

    pub(crate) fn delete_queued(&self, number: u64, token: Token, body: BodyRef) {
        self.delete(queue_key(number, token));
        self.release_body(body);
    }

    pub(crate) fn delete_subscription(&self, number: u64, filter: &TopicFilter) -> Option<Lsn> {
        self.delete(subscription_key(number, filter))
    }

    pub(crate) fn delete_session(&self, number: u64) -> Option<Lsn> {
        self.delete(key(b's', number).to_vec())
    }

    pub(crate) fn delete_will(&self, number: u64) -> Option<Lsn> {
        self.delete(will_key(number))
    }

    pub(crate) fn put_retained(&self, message: &Message, since: Time) -> Result<Lsn, Behind> {
        self.journal.put(
            &retained_key(message.topic()),
            &[
                &encode_since(since),
                &encode_message(message),
                message.payload(),
            ],
        )
    }

    pub(crate) fn delete_retained(&self, topic: &str) -> Option<Lsn> {
        self.delete(retained_key(topic))
    }

    /// Tells the next body's number after what was recovered.
    pub(crate) fn recovered(&self, bodies: HashMap<u64, usize>, highest_body: u64) {
        self.next_body.store(highest_body + 1, Ordering::Relaxed);
        *self.bodies.lock() = bodies;
    }

    /// Deletes a body that no queue means any more, found at start.
    pub(crate) fn delete_body(&self, number: u64) -> Option<Lsn> {
        self.delete(key(b'b', number).to_vec())
    }

    /// `None` where there is nothing to wait for: no record has a key so long.
    fn delete(&self, key: Vec<u8>) -> Option<Lsn> {
        self.journal.delete(&key).ok()
    }
}
