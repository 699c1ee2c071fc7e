//! The records of the broker's journal, written and read back.
//!
//! | key | value |
//! |---|---|
//! | `s` session | the session's record (JSON with a version): owner, client id, expiry, in flight |
//! | `f` session filter | subscription options, two bytes |
//! | `w` session | will: delay, expiry, message |
//! | `q` session token | a queued message: QoS, RETAIN, and the message or the number of its body |
//! | `b` body | a message that waits for several sessions, kept once |
//! | `r` topic | a retained message |
//!
//! Numbers are eight bytes, big-endian, so that keys sort as numbers do. A *message* is a version
//! byte, its flags, expiry and origin, then an MQTT 5 PUBLISH without payload, then the payload.

use bytes::{BufMut, Bytes, BytesMut};
use store::StoreError;

use super::message::{Message, Origin};
use super::record::{self, SessionRecord};
use crate::codec::{
    self, Limits as DecodeLimits, Packet, Publish, Qos, RetainHandling, SubscriptionOptions,
    Version, Will,
};
use crate::session::{Publication, SendOptions, Time, Token};
use crate::topic::TopicFilter;

/// Version byte of the message layout.
const MESSAGE_LAYOUT: u8 = 1;

/// Where a queued message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum BodyRef {
    /// In the queue entry.
    Inline,
    /// In the body record with this number.
    Shared(u64),
}

/// What a queue entry says beside the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueEntry {
    pub(crate) options: SendOptions,
    pub(crate) body: BodyRef,
}

/// A record of the journal, read back.
#[derive(Debug)]
pub(crate) enum Record {
    Session(u64, Box<SessionRecord>),
    Subscription(u64, TopicFilter, SubscriptionOptions),
    Will(u64, Box<Will>),
    /// Session, token, entry, and the message where it is inline.
    Queued(u64, Token, QueueEntry, Option<Message>),
    Body(u64, Message),
    Retained(Message),
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// Its kind, length or content is not what this version writes.
    #[error("the broker's journal holds a record that cannot be read: {what} ({detail})")]
    Unreadable {
        /// Which kind of record.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The journal itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) fn unreadable(what: &'static str, detail: impl ToString) -> DurableError {
    DurableError::Unreadable {
        what,
        detail: detail.to_string(),
    }
}

pub(super) fn key(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    if let Some(rest) = key.get_mut(1..) {
        rest.copy_from_slice(&number.to_be_bytes());
    }
    key
}

pub(super) fn queue_key(session: u64, token: Token) -> Vec<u8> {
    [&key(b'q', session)[..], &token.to_be_bytes()].concat()
}

pub(super) fn subscription_key(session: u64, filter: &TopicFilter) -> Vec<u8> {
    [&key(b'f', session)[..], filter.as_str().as_bytes()].concat()
}

pub(super) fn retained_key(topic: &str) -> Vec<u8> {
    [&b"r"[..], topic.as_bytes()].concat()
}

pub(super) fn encode_options(options: &SubscriptionOptions) -> [u8; 2] {
    let flags = options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4;
    [1, flags]
}

fn decode_options(value: &[u8]) -> Option<SubscriptionOptions> {
    let &[1, flags] = value else { return None };
    Some(SubscriptionOptions {
        qos: Qos::from_bits(flags & 3)?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        retain_handling: match flags >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
    })
}

/// Everything but the payload, which follows as it is.
pub(super) fn encode_message(message: &Message) -> Vec<u8> {
    let publication: &Publication = message.as_ref();
    let mut out = Vec::with_capacity(96 + publication.topic.as_str().len());
    out.put_u8(MESSAGE_LAYOUT);
    out.put_u8(message.qos() as u8 | u8::from(message.retain()) << 2);
    // 0 is no expiry: nothing expires at the epoch.
    out.put_u64(publication.expires_at.map_or(0, Time::as_millis));
    match message.origin() {
        Origin::Service => out.put_u8(0),
        Origin::Device(id) => {
            out.put_u8(1);
            out.put_slice(id.to_string().as_bytes());
        }
    }
    let head = Publish {
        delivery: codec::Delivery::AtMostOnce,
        retain: false,
        topic: Some(publication.topic.clone()),
        topic_alias: None,
        expiry_s: None,
        subscription_ids: Vec::new(),
        properties: publication.properties.clone(),
        payload: Bytes::new(),
    };
    head.encode(Version::V5, &mut out);
    out
}

pub(super) fn decode_message(mut value: Bytes) -> Result<Message, DurableError> {
    let bad = |detail: &str| unreadable("message", detail);
    let mut take = |n: usize| -> Result<Bytes, DurableError> {
        if value.len() < n {
            return Err(unreadable("message", "too short"));
        }
        Ok(value.split_to(n))
    };
    let (layout, flags) = match take(2)?[..] {
        [layout, flags] => (layout, flags),
        _ => return Err(bad("too short")),
    };
    if layout != MESSAGE_LAYOUT {
        return Err(bad("written by a newer version"));
    }
    let expires = number(&take(8)?).ok_or_else(|| bad("expiry"))?;
    let origin = match take(1)?[..] {
        [0] => Origin::Service,
        [1] => {
            let id = take(64)?;
            let id = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok());
            Origin::Device(id.ok_or_else(|| bad("origin"))?)
        }
        _ => return Err(bad("origin")),
    };
    let mut rest = BytesMut::from(value);
    let packet = codec::decode(&mut rest, Version::V5, &UNLIMITED)
        .map_err(|error| unreadable("message", error))?;
    let Some(Packet::Publish(head)) = packet else {
        return Err(bad("no PUBLISH in it"));
    };
    let publication = Publication {
        topic: head.topic.ok_or_else(|| bad("no topic"))?,
        payload: rest.freeze(),
        properties: head.properties,
        expires_at: (expires != 0).then(|| Time::from_millis(expires)),
    };
    let qos = Qos::from_bits(flags & 3).ok_or_else(|| bad("QoS"))?;
    Ok(Message::new(publication, qos, flags & 4 != 0, origin))
}

/// What was taken once is taken again, whatever today's limits are.
const UNLIMITED: DecodeLimits = DecodeLimits {
    packet_max_bytes: u32::MAX,
    user_properties_max: usize::MAX,
    filters_max: usize::MAX,
};

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Reads a record of the journal.
///
/// # Errors
/// [`DurableError::Unreadable`]; a start that met one must not go on as if it had not.
pub(crate) fn decode(key: &Bytes, value: Bytes) -> Result<Record, DurableError> {
    let (kind, name) = key
        .split_first()
        .ok_or_else(|| unreadable("record", "empty key"))?;
    let session = || {
        name.get(..8)
            .and_then(number)
            .ok_or_else(|| unreadable("record", "key too short"))
    };
    match kind {
        b's' => Ok(Record::Session(
            session()?,
            Box::new(record::decode(&value).map_err(|error| unreadable("session", error))?),
        )),
        b'f' => {
            let filter = std::str::from_utf8(name.get(8..).unwrap_or_default())
                .map_err(|error| unreadable("subscription", error))?
                .parse()
                .map_err(|error| unreadable("subscription", error))?;
            let options =
                decode_options(&value).ok_or_else(|| unreadable("subscription", "options"))?;
            Ok(Record::Subscription(session()?, filter, options))
        }
        b'w' => Ok(Record::Will(session()?, Box::new(decode_will(value)?))),
        b'q' => decode_queued(session()?, name.get(8..).unwrap_or_default(), value),
        b'b' => Ok(Record::Body(session()?, decode_message(value)?)),
        b'r' => Ok(Record::Retained(decode_message(value)?)),
        other => Err(unreadable("record", format!("unknown kind {other:#04x}"))),
    }
}

fn decode_queued(session: u64, token: &[u8], mut value: Bytes) -> Result<Record, DurableError> {
    let bad = |detail: &str| unreadable("queued message", detail);
    let token = number(token).ok_or_else(|| bad("key too short"))?;
    if value.len() < 3 {
        return Err(bad("too short"));
    }
    let head = value.split_to(3);
    let &[qos, retain, shared] = &head[..] else {
        return Err(bad("too short"));
    };
    let (body, message) = match shared {
        0 => (BodyRef::Inline, Some(decode_message(value)?)),
        1 => (
            BodyRef::Shared(number(&value).ok_or_else(|| bad("body number"))?),
            None,
        ),
        _ => return Err(bad("body")),
    };
    let options = SendOptions {
        qos: Qos::from_bits(qos).ok_or_else(|| bad("QoS"))?,
        retain: retain != 0,
    };
    Ok(Record::Queued(
        session,
        token,
        QueueEntry { options, body },
        message,
    ))
}

fn decode_will(mut value: Bytes) -> Result<Will, DurableError> {
    use bytes::Buf;
    if value.len() < 9 {
        return Err(unreadable("will", "too short"));
    }
    let delay_s = value.get_u32();
    let expires = value.get_u8() != 0;
    let expiry = value.get_u32();
    let message = decode_message(value)?;
    let publication: &Publication = message.as_ref();
    Ok(Will {
        topic: publication.topic.clone(),
        payload: publication.payload.clone(),
        qos: message.qos(),
        retain: message.retain(),
        delay_s,
        expiry_s: expires.then_some(expiry),
        properties: publication.properties.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::MessageProperties;

    fn message() -> Message {
        let publication = Publication {
            properties: Some(Box::new(MessageProperties {
                content_type: Some("text/plain".into()),
                ..MessageProperties::default()
            })),
            expires_at: Some(Time::from_millis(77_000)),
            ..Publication::new("dt/a".parse().unwrap(), Bytes::from_static(b"21.5"))
        };
        Message::new(publication, Qos::AtLeastOnce, true, Origin::Service)
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        let message = message();
        let mut value = encode_message(&message);
        value.extend_from_slice(&message.as_ref().payload);
        assert_eq!(decode_message(value.clone().into()).unwrap(), message);
        for cut in 0..value.len() - message.as_ref().payload.len() {
            let cut = value.get(..cut).unwrap().to_vec();
            assert!(decode_message(cut.into()).is_err());
        }
    }

    #[test]
    fn a_layout_from_the_future_is_refused() {
        let mut value = encode_message(&message());
        *value.first_mut().unwrap() = MESSAGE_LAYOUT + 1;
        let error = decode_message(value.into()).unwrap_err().to_string();
        assert!(error.contains("newer version"), "{error}");
    }

    #[test]
    fn subscription_options_come_back_as_they_were() {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            for bits in 0..4_u8 {
                let options = SubscriptionOptions {
                    qos,
                    no_local: bits & 1 != 0,
                    retain_as_published: bits & 2 != 0,
                    retain_handling: RetainHandling::SendIfNew,
                };
                assert_eq!(decode_options(&encode_options(&options)), Some(options));
            }
        }
    }
}
