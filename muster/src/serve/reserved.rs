//! The wires between the broker and the rooms that answer reserved topics: `$aws/things/<thing>/jobs/…` is ota's.

use broker::{ApplicationMessage, Broker, Request, ReservedTopics, codec::Qos, topic::TopicName};
use bytes::Bytes;
use ota::server::{DeviceRequest, Message, Ota, Publish};
use std::sync::Arc;

/// How notifications of jobs leave: as publications of the server, to whoever may receive them.
pub(super) fn notifications(broker: Broker) -> Publish {
    Arc::new(move |message| {
        let Some((topic, payload)) = publishable(message) else {
            return;
        };
        let message = ApplicationMessage {
            topic,
            payload,
            qos: Qos::AtLeastOnce,
            retain: false,
        };
        if let Err(error) = broker.publish(message) {
            tracing::error!(%error, "a notification of a job was lost; the device asks again when it reconnects");
        }
    })
}

/// Requests of devices, to the room they are for.
pub(super) struct Reserved {
    pub(super) ota: Ota,
}

impl ReservedTopics for Reserved {
    fn request(&self, request: Request) {
        let Request {
            topic,
            payload,
            principal,
            reply,
            ..
        } = request;
        self.ota.ask(DeviceRequest {
            thing: principal.thing.map(|thing| thing.as_str().to_owned()),
            topic: topic.as_str().to_owned(),
            payload: payload.to_vec(),
            // Dropped after it has sent: the device's PUBACK follows the durable answer.
            reply: Box::new(move |message| {
                if let Some((topic, payload)) = publishable(message) {
                    reply.send(topic, payload);
                }
            }),
        });
    }
}

fn publishable(message: Message) -> Option<(TopicName, Bytes)> {
    match message.topic.parse::<TopicName>() {
        Ok(topic) => Some((topic, message.payload.into())),
        Err(error) => {
            tracing::error!(topic = message.topic, %error, "an answer to a device has no valid topic");
            None
        }
    }
}
