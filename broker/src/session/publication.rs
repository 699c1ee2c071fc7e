use std::sync::Arc;

use bytes::Bytes;

use super::Time;
use crate::codec::{MessageProperties, Will};
use crate::topic::TopicName;

/// A message on its way, built once and shared among its receivers.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// Where it was published to.
    pub topic: TopicName,
    /// Application message.
    pub payload: Bytes,
    /// What is forwarded unchanged to MQTT 5 receivers; `None` in the common case.
    pub properties: Option<Box<MessageProperties>>,
    /// When it must no longer be delivered [MQTT-3.3.2-5].
    pub expires_at: Option<Time>,
}

impl Publication {
    /// A message of the server itself.
    #[must_use]
    pub const fn new(topic: TopicName, payload: Bytes) -> Self {
        Self {
            topic,
            payload,
            properties: None,
            expires_at: None,
        }
    }

    /// The publication of a will at its moment.
    #[must_use]
    pub fn of_will(will: &Will, now: Time) -> Self {
        Self {
            topic: will.topic.clone(),
            payload: will.payload.clone(),
            properties: will.properties.clone(),
            expires_at: will.expiry_s.map(|seconds| now.plus_seconds(seconds)),
        }
    }
}

/// A publication as it is looked at, wherever its parts are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublicationRef<'a> {
    /// See [`Publication::topic`].
    pub topic: &'a TopicName,
    /// See [`Publication::payload`].
    pub payload: &'a [u8],
    /// See [`Publication::properties`].
    pub properties: Option<&'a MessageProperties>,
    /// See [`Publication::expires_at`].
    pub expires_at: Option<Time>,
}

impl PublicationRef<'_> {
    /// Whether it must no longer be delivered.
    #[must_use]
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What holds a publication.
pub trait Published {
    /// Its publication.
    fn publication(&self) -> PublicationRef<'_>;
}

impl Published for Publication {
    fn publication(&self) -> PublicationRef<'_> {
        PublicationRef {
            topic: &self.topic,
            payload: &self.payload,
            properties: self.properties.as_deref(),
            expires_at: self.expires_at,
        }
    }
}

impl<T: Published> Published for Arc<T> {
    fn publication(&self) -> PublicationRef<'_> {
        T::publication(self)
    }
}
