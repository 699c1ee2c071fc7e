//! The records of the broker's journal, written and read back.
//!
//! | key | value |
//! |---|---|
//! | `s` session | the session's record (JSON with a version): owner, client id, expiry, in flight |
//! | `f` session filter | subscription options, two bytes and the identifier, and whether what is retained under it is still owed |
//! | `w` session | will: delay, expiry, message |
//! | `q` session token | a queued message: QoS, RETAIN, subscription identifiers, the shared subscription it came by, and the message or the number of its body; or, for QoS 2, that the client has it |
//! | `i` session packet id | a message of QoS 2 that the client has not released yet |
//! | `b` body | a message that waits for several sessions, kept once |
//! | `r` topic | a retained message, and before it when it came |
//!
//! Numbers are eight bytes, big-endian, so that keys sort as numbers do. A *message* is a version
//! byte, its flags, expiry and origin, then an MQTT 5 PUBLISH without payload, then the payload.

use bytes::{BufMut, Bytes, BytesMut};
use store::StoreError;

use super::message::{Message, Origin};
use super::record::{self, SessionRecord};
use crate::codec::{
    self, Limits as DecodeLimits, Packet, PacketId, Publish, Qos, RetainHandling,
    SubscriptionOptions, Version, Will,
};
use crate::session::{Publication, Published, SendOptions, Time, Token};
use crate::topic::TopicFilter;

/// Version byte of the message layout.
const MESSAGE_LAYOUT: u8 = 1;
/// What the record of a retained message begins with; earlier releases had the message alone.
const SINCE_LAYOUT: u8 = 2;

/// Where a queued message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum BodyRef {
    /// In the queue entry.
    Inline,
    /// In the body record with this number.
    Shared(u64),
}

/// What a queue entry says beside the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueEntry {
    pub(crate) options: SendOptions,
    pub(crate) body: BodyRef,
    /// The filter of the shared subscription it came by: whoever else has that can have it.
    pub(crate) group: Option<Box<str>>,
}

/// A record of the journal, read back.
#[derive(Debug)]
pub(crate) enum Record {
    Session(u64, Box<SessionRecord>),
    /// Session, filter, options, and whether what is retained under it is still owed.
    Subscription(u64, TopicFilter, SubscriptionOptions, bool),
    Will(u64, Box<Will>),
    /// Session, token, entry, and the message where it is inline.
    Queued(u64, Token, QueueEntry, Option<Message>),
    /// Session and token: QoS 2, PUBREC has come and PUBCOMP is awaited.
    Received(u64, Token),
    /// Session and packet identifier of the client's PUBLISH; the message is read when the client is back.
    Held(u64, PacketId),
    Body(u64, Message),
    /// The message, and when it came: the epoch where that was not written down.
    Retained(Message, Time),
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

pub(super) fn will_key(session: u64) -> Vec<u8> {
    key(b'w', session).to_vec()
}

pub(crate) fn held_key(session: u64, packet_id: PacketId) -> Vec<u8> {
    [&key(b'i', session)[..], &packet_id.get().to_be_bytes()].concat()
}

pub(super) fn subscription_key(session: u64, filter: &TopicFilter) -> Vec<u8> {
    [&key(b'f', session)[..], filter.as_str().as_bytes()].concat()
}

pub(super) fn retained_key(topic: &str) -> Vec<u8> {
    [&b"r"[..], topic.as_bytes()].concat()
}

/// Layout byte of subscription options.
const OPTIONS_LAYOUT: u8 = 1;
/// Among the flags of subscription options: what is retained is still owed.
const OWED: u8 = 1 << 6;

pub(super) fn encode_options(options: &SubscriptionOptions, owed: bool) -> [u8; 6] {
    let flags = options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
        | if owed { OWED } else { 0 };
    // 0 is no identifier §3.8.2.1.2.
    let [a, b, c, d] = options.id.unwrap_or(0).to_be_bytes();
    [OPTIONS_LAYOUT, flags, a, b, c, d]
}

fn decode_options(value: &[u8]) -> Option<(SubscriptionOptions, bool)> {
    let &[OPTIONS_LAYOUT, flags, ref id @ ..] = value else {
        return None;
    };
    let id = u32::from_be_bytes(id.try_into().ok()?);
    let options = SubscriptionOptions {
        qos: Qos::from_bits(flags & 3)?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        retain_handling: match flags >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return None,
        },
        id: (id != 0).then_some(id),
    };
    Some((options, flags & OWED != 0))
}

/// Everything but the payload, which follows as it is.
pub(super) fn encode_message(message: &Message) -> Vec<u8> {
    let publication = message.publication();
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
        properties: publication.properties.cloned().map(Box::new),
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

/// What stands before a retained message.
pub(super) fn encode_since(since: Time) -> [u8; 9] {
    let mut head = [SINCE_LAYOUT; 9];
    if let Some(rest) = head.get_mut(1..) {
        rest.copy_from_slice(&since.as_millis().to_be_bytes());
    }
    head
}

fn decode_since(mut value: Bytes) -> Result<(Time, Bytes), DurableError> {
    if value.first() != Some(&SINCE_LAYOUT) {
        return Ok((Time::from_millis(0), value));
    }
    let bad = || unreadable("retained message", "too short");
    let since = value.get(1..9).and_then(number).ok_or_else(bad)?;
    Ok((Time::from_millis(since), value.split_off(9)))
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
            let (options, owed) =
                decode_options(&value).ok_or_else(|| unreadable("subscription", "options"))?;
            Ok(Record::Subscription(session()?, filter, options, owed))
        }
        b'w' => Ok(Record::Will(session()?, Box::new(decode_will(value)?))),
        b'q' => decode_queued(session()?, name.get(8..).unwrap_or_default(), value),
        b'i' => {
            let packet_id = name.get(8..).and_then(|id| id.try_into().ok());
            let packet_id = packet_id.and_then(|id| PacketId::new(u16::from_be_bytes(id)));
            let packet_id = packet_id.ok_or_else(|| unreadable("held message", "packet id"))?;
            decode_message(value)?;
            Ok(Record::Held(session()?, packet_id))
        }
        b'b' => Ok(Record::Body(session()?, decode_message(value)?)),
        b'r' => {
            let (since, message) = decode_since(value)?;
            Ok(Record::Retained(decode_message(message)?, since))
        }
        other => Err(unreadable("record", format!("unknown kind {other:#04x}"))),
    }
}

fn decode_queued(session: u64, token: &[u8], value: Bytes) -> Result<Record, DurableError> {
    let token = number(token).ok_or_else(|| unreadable("queued message", "key too short"))?;
    if value[..] == RECEIVED {
        return Ok(Record::Received(session, token));
    }
    let (entry, message) = decode_entry(value)?;
    Ok(Record::Queued(session, token, entry, message))
}

/// The value of a queue record whose message the client has.
pub(super) const RECEIVED: [u8; 1] = [0xff];

/// What stands before the message, or before its body's number.
pub(super) fn encode_entry(options: &SendOptions, body: BodyRef, group: Option<&str>) -> Vec<u8> {
    let ids = options.subscription_ids.as_deref().unwrap_or_default();
    let group_bytes = group.map_or(0, |group| 2 + group.len());
    let mut out = Vec::with_capacity(4 + 4 * ids.len() + group_bytes + 8);
    let apart = matches!(body, BodyRef::Shared(_));
    // A filter is no longer than 65,535 bytes [MQTT-4.7.3-3]; one that were is no group that anybody could be in.
    let group = group.and_then(|group| Some((u16::try_from(group.len()).ok()?, group)));
    out.put_u8(
        options.qos as u8
            | u8::from(options.retain) << 2
            | u8::from(apart) << 3
            | u8::from(group.is_some()) << 4,
    );
    // A session has far fewer subscriptions than that.
    let count = u16::try_from(ids.len()).unwrap_or(u16::MAX);
    out.put_u16(count);
    for id in ids.iter().take(count.into()) {
        out.put_u32(*id);
    }
    if let Some((length, group)) = group {
        out.put_u16(length);
        out.put_slice(group.as_bytes());
    }
    if let BodyRef::Shared(number) = body {
        out.put_u64(number);
    }
    out
}

/// An entry of a queue, with its message where that is inline.
pub(super) fn decode_entry(
    mut value: Bytes,
) -> Result<(QueueEntry, Option<Message>), DurableError> {
    use bytes::Buf;
    let bad = |detail: &str| unreadable("queued message", detail);
    if value.len() < 3 {
        return Err(bad("too short"));
    }
    let flags = value.get_u8();
    let count = usize::from(value.get_u16());
    if flags > 0b1_1111 || value.len() < 4 * count {
        return Err(bad("subscription identifiers"));
    }
    let ids: Vec<u32> = (0..count).map(|_| value.get_u32()).collect();
    let options = SendOptions {
        qos: Qos::from_bits(flags & 3).ok_or_else(|| bad("QoS"))?,
        retain: flags & 0b100 != 0,
        subscription_ids: (!ids.is_empty()).then(|| ids.into()),
    };
    let group = match flags & 0b1_0000 {
        0 => None,
        _ => Some(take_group(&mut value).ok_or_else(|| bad("shared subscription"))?),
    };
    let (body, message) = if flags & 0b1000 == 0 {
        (BodyRef::Inline, Some(decode_message(value)?))
    } else {
        let number = number(&value).ok_or_else(|| bad("body number"))?;
        (BodyRef::Shared(number), None)
    };
    let entry = QueueEntry {
        options,
        body,
        group,
    };
    Ok((entry, message))
}

fn take_group(value: &mut Bytes) -> Option<Box<str>> {
    use bytes::Buf;
    let length = usize::from(value.try_get_u16().ok()?);
    let group = (length <= value.len()).then(|| value.split_to(length))?;
    std::str::from_utf8(&group).ok().map(Box::from)
}

pub(crate) fn decode_will(mut value: Bytes) -> Result<Will, DurableError> {
    use bytes::Buf;
    if value.len() < 9 {
        return Err(unreadable("will", "too short"));
    }
    let delay_s = value.get_u32();
    let expires = value.get_u8() != 0;
    let expiry = value.get_u32();
    let message = decode_message(value)?;
    let publication = message.to_publication();
    Ok(Will {
        topic: publication.topic,
        payload: publication.payload,
        qos: message.qos(),
        retain: message.retain(),
        delay_s,
        expiry_s: expires.then_some(expiry),
        properties: publication.properties,
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
        value.extend_from_slice(message.payload());
        assert_eq!(decode_message(value.clone().into()).unwrap(), message);
        for cut in 0..value.len() - message.payload().len() {
            let cut = value.get(..cut).unwrap().to_vec();
            assert!(decode_message(cut.into()).is_err());
        }
    }

    #[test]
    fn a_queue_entry_comes_back_as_it_was() {
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for ids in [None, Some(vec![7]), Some(vec![1, 268_435_455])] {
                for (body, group) in [
                    (BodyRef::Inline, None),
                    (BodyRef::Inline, Some("$share/g/x")),
                    (BodyRef::Shared(77), None),
                    (BodyRef::Shared(77), Some("$share/g/x")),
                ] {
                    let options = SendOptions {
                        qos,
                        retain: ids.is_some(),
                        subscription_ids: ids.clone().map(Into::into),
                    };
                    let mut value = encode_entry(&options, body, group);
                    if body == BodyRef::Inline {
                        value.extend(encode_message(&message()));
                        value.extend_from_slice(message().payload());
                    }
                    let (entry, found) = decode_entry(value.clone().into()).unwrap();
                    let group = group.map(Box::from);
                    let expected = QueueEntry {
                        options,
                        body,
                        group,
                    };
                    assert_eq!(entry, expected);
                    assert_eq!(found.is_some(), body == BodyRef::Inline);
                    for cut in 0..8 {
                        let cut = value.get(..cut).unwrap().to_vec();
                        assert!(decode_entry(cut.into()).is_err());
                    }
                }
            }
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
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for bits in 0..4_u8 {
                let options = SubscriptionOptions {
                    qos,
                    no_local: bits & 1 != 0,
                    retain_as_published: bits & 2 != 0,
                    retain_handling: RetainHandling::SendIfNew,
                    id: (bits & 1 != 0).then_some(268_435_455),
                };
                for owed in [false, true] {
                    let value = encode_options(&options, owed);
                    assert_eq!(decode_options(&value), Some((options, owed)));
                }
            }
        }
    }
}
