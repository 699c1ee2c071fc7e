//! A message, built once and shared by all who receive it.

use std::sync::Arc;

use ca::CertificateId;

use policy::MessageFacts;

use crate::codec::{MessageProperties, Qos, SubscriptionOptions};
use crate::session::Publication;

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

/// Everything the receivers of a message share. What differs between them (QoS granted, RETAIN
/// flag, packet id) is not here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message(Arc<Body>);

#[derive(Debug, PartialEq)]
struct Body {
    publication: Publication,
    qos: Qos,
    retain: bool,
    origin: Origin,
}

impl Message {
    /// `qos` and `retain` are those of the PUBLISH.
    pub(crate) fn new(publication: Publication, qos: Qos, retain: bool, origin: Origin) -> Self {
        Self(Arc::new(Body {
            publication,
            qos,
            retain,
            origin,
        }))
    }

    pub(crate) fn topic(&self) -> &str {
        self.0.publication.topic.as_str()
    }

    /// The QoS it was published with: no receiver gets more [MQTT-3.8.4-8].
    pub(crate) fn qos(&self) -> Qos {
        self.0.qos
    }

    /// What policies can ask of it.
    pub(crate) fn facts(&self) -> MessageFacts {
        facts(self.0.publication.payload.len(), self.0.qos, self.0.retain)
    }

    pub(crate) fn retain(&self) -> bool {
        self.0.retain
    }

    pub(crate) fn origin(&self) -> Origin {
        self.0.origin
    }

    /// What it weighs in a queue, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        let publication = &self.0.publication;
        OVERHEAD_BYTES
            + publication.topic.as_str().len()
            + publication.payload.len()
            + publication
                .properties
                .as_deref()
                .map_or(0, properties_bytes)
    }
}

impl AsRef<Publication> for Message {
    fn as_ref(&self) -> &Publication {
        &self.0.publication
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

fn properties_bytes(properties: &MessageProperties) -> usize {
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
