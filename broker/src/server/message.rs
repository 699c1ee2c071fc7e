//! A message, built once and shared by all who receive it.

use bytes::Bytes;
use ca::CertificateId;
use policy::MessageFacts;
use triomphe::ThinArc;

use crate::codec::{MessageProperties, Qos, SubscriptionOptions};
use crate::session::{Publication, PublicationRef, Published, Time};
use crate::topic::TopicName;

/// Bytes counted for a message beside topic, payload and properties.
const OVERHEAD_BYTES: usize = 96;

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A device, by the certificate it published with.
    Device(CertificateId),
    /// A service inside the server.
    Service,
}

/// Payloads up to this lie in the message's own allocation, so that one small message that waits somewhere does not hold a
/// whole read buffer; longer ones are shared with it.
const OWN_PAYLOAD_BYTES: usize = 16 * 1024;

/// Everything the receivers of a message share, in one allocation. What differs between them (QoS granted, RETAIN
/// flag, packet id) is not here.
#[derive(Debug, Clone)]
pub(crate) struct Message(ThinArc<Head, u8>);

#[derive(Debug, PartialEq)]
struct Head {
    topic: TopicName,
    properties: Option<Box<MessageProperties>>,
    expires_at: Option<Time>,
    /// A payload that does not follow this.
    long: Option<Bytes>,
    qos: Qos,
    retain: bool,
    origin: Origin,
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.head() == other.head() && self.0.slice == other.0.slice
    }
}

impl Message {
    /// Whether the two are one, not only alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.head(), other.head())
    }

    /// `qos` and `retain` are those of the PUBLISH.
    pub(crate) fn new(publication: Publication, qos: Qos, retain: bool, origin: Origin) -> Self {
        let Publication {
            topic,
            payload,
            properties,
            expires_at,
        } = publication;
        let is_long = payload.len() > OWN_PAYLOAD_BYTES;
        let own: &[u8] = if is_long { &[] } else { &payload };
        let head = Head {
            topic,
            properties,
            expires_at,
            long: is_long.then(|| payload.clone()),
            qos,
            retain,
            origin,
        };
        Self(ThinArc::from_header_and_slice(head, own))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    pub(crate) fn topic(&self) -> &str {
        self.head().topic.as_str()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.head().long.as_deref().unwrap_or(&self.0.slice)
    }

    /// The publication with a payload that is not tied to this allocation.
    pub(crate) fn to_publication(&self) -> Publication {
        let head = self.head();
        let own = || Bytes::copy_from_slice(&self.0.slice);
        Publication {
            topic: head.topic.clone(),
            payload: head.long.clone().unwrap_or_else(own),
            properties: head.properties.clone(),
            expires_at: head.expires_at,
        }
    }

    /// The QoS it was published with: no receiver gets more [MQTT-3.8.4-8].
    pub(crate) fn qos(&self) -> Qos {
        self.head().qos
    }

    /// What policies can ask of it.
    pub(crate) fn facts(&self) -> MessageFacts {
        facts(self.payload().len(), self.qos(), self.retain())
    }

    pub(crate) fn retain(&self) -> bool {
        self.head().retain
    }

    pub(crate) fn origin(&self) -> Origin {
        self.head().origin
    }

    /// What it weighs in a queue, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        let properties = self.head().properties.as_deref();
        OVERHEAD_BYTES
            + self.topic().len()
            + self.payload().len()
            + properties.map_or(0, properties_bytes)
    }
}

impl Published for Message {
    fn publication(&self) -> PublicationRef<'_> {
        let head = self.head();
        PublicationRef {
            topic: &head.topic,
            payload: self.payload(),
            properties: head.properties.as_deref(),
            expires_at: head.expires_at,
        }
    }
}

/// What policies can ask of a message.
pub(crate) fn facts(size_bytes: usize, qos: Qos, retain: bool) -> MessageFacts {
    MessageFacts {
        size_bytes: Some(size_bytes),
        qos: Some(qos as u8),
        retain: Some(retain),
    }
}

/// What policies can ask of a subscription.
pub(crate) fn subscription_facts(options: &SubscriptionOptions) -> MessageFacts {
    MessageFacts {
        qos: Some(options.qos as u8),
        ..MessageFacts::default()
    }
}

pub(crate) fn properties_bytes(properties: &MessageProperties) -> usize {
    let text = |text: &crate::codec::Str| text.len();
    properties.content_type.as_ref().map_or(0, text)
        + properties
            .response_topic
            .as_ref()
            .map_or(0, |topic| topic.as_str().len())
        + properties
            .correlation_data
            .as_ref()
            .map_or(0, |data| data.len())
        + properties
            .user
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: Bytes) -> Message {
        let publication = Publication::new("dt/a".parse().unwrap(), payload);
        Message::new(publication, Qos::AtMostOnce, false, Origin::Service)
    }

    #[test]
    fn a_short_payload_is_the_messages_own_and_a_long_one_is_shared() {
        for (bytes, shared) in [
            (0, false),
            (OWN_PAYLOAD_BYTES, false),
            (OWN_PAYLOAD_BYTES + 1, true),
        ] {
            let payload = Bytes::from(vec![7; bytes]);
            let message = message(payload.clone());
            assert_eq!(message.payload(), payload);
            assert_eq!(
                message.payload().as_ptr() == payload.as_ptr(),
                shared && bytes > 0
            );
            assert_eq!(message.to_publication().payload, payload);
            assert_eq!(message.weight_bytes(), OVERHEAD_BYTES + 4 + bytes);
        }
        assert_eq!(
            message(Bytes::from_static(b"1")),
            message(Bytes::from_static(b"1"))
        );
        assert_ne!(
            message(Bytes::from_static(b"1")),
            message(Bytes::from_static(b"2"))
        );
    }
}
