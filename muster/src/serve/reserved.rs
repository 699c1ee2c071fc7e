//! The wires between the broker and the rooms that answer reserved topics: `$aws/things/<thing>/jobs/…` is ota's,
//! `$aws/things/<thing>/streams/…` its desk's for files, `$aws/things/<thing>/shadow/…` shadow's, `$aws/certificates/…` and `$aws/provisioning-templates/…` are fleet's.

use super::events::Events;
use broker::{
    ApplicationMessage, Broker, BrokerError, DisconnectReason, Lifecycle, LifecycleChange, Request,
    ReservedTopics, codec::Qos, topic::TopicName,
};
use bytes::Bytes;
use fleet::authorities::NewcomerDesk;
use fleet::provisioning::{ProvisioningDesk, ProvisioningRequest};
use fleet::{ConnectionKey, Excerpt, Fleet};
use ota::server::{DeviceRequest, Ota, Publish, Sign, StreamDesk, StreamRequest, VitalSigns};
use shadow::{ShadowRequest, Shadows, Source};
use std::sync::Arc;

/// The topics of fleet provisioning.
const PROVISIONING: [&str; 2] = ["$aws/certificates/", "$aws/provisioning-templates/"];

/// How notifications of jobs leave: as publications of the server, to whoever may receive them.
pub(super) fn notifications(broker: Broker) -> Publish {
    Arc::new(move |message| {
        if let Err(error) = publish(&broker, message.topic, message.payload) {
            tracing::error!(%error, "a notification of a job was lost; the device asks again when it reconnects");
        }
    })
}

/// How answers about shadows, and news of them, leave.
pub(super) fn of_shadows(broker: Broker) -> shadow::Publish {
    Arc::new(move |message| {
        if let Err(error) = publish(&broker, message.topic, message.payload) {
            tracing::error!(%error, "an answer about a shadow was lost; the device asks again");
        }
    })
}

fn publish(broker: &Broker, topic: String, payload: Vec<u8>) -> Result<(), BrokerError> {
    let Some((topic, payload)) = publishable(topic, payload) else {
        return Ok(());
    };
    broker.publish(ApplicationMessage {
        topic,
        payload,
        qos: Qos::AtLeastOnce,
        retain: false,
    })
}

/// Requests of devices, to the room they are for.
pub(super) struct Reserved {
    pub(super) fleet: Fleet,
    pub(super) ota: Ota,
    pub(super) provisioning: ProvisioningDesk,
    pub(super) streams: StreamDesk,
    pub(super) shadows: Shadows,
    pub(super) newcomers: NewcomerDesk,
    pub(super) events: Events,
    pub(super) signs: VitalSigns,
}

impl ReservedTopics for Reserved {
    fn request(&self, request: Request) {
        let Request {
            topic,
            payload,
            principal,
            client_id,
            source,
            reply,
        } = request;
        if PROVISIONING
            .iter()
            .any(|tree| topic.as_str().starts_with(tree))
        {
            self.provisioning.ask(ProvisioningRequest {
                claim: principal.certificate,
                client_id: client_id.as_str().to_owned(),
                source,
                topic: topic.as_str().to_owned(),
                payload: payload.to_vec(),
                reply: Box::new(move |answer| {
                    if let Some((topic, payload)) = publishable(answer.topic, answer.payload) {
                        reply.send(topic, payload);
                    }
                }),
            });
            return;
        }
        if shadow::topic::is_ours(topic.as_str()) {
            // On a topic that is none of requests there is nobody to answer.
            let Some((place, verb)) = shadow::topic::read(topic.as_str()) else {
                return;
            };
            self.shadows.ask(ShadowRequest {
                who: match &principal.thing {
                    Some(thing) => thing.to_string(),
                    None => principal.certificate.to_string(),
                },
                place,
                verb,
                payload: payload.to_vec(),
                source: Source::Topic,
                // Dropped once the answer has been published: the PUBACK follows it.
                reply: Box::new(move |answer| {
                    let direct = answer.direct;
                    let direct = direct.and_then(|one| publishable(one.topic, one.payload));
                    if let Some((topic, payload)) = direct {
                        reply.send(topic, payload);
                    }
                }),
            });
            return;
        }
        let thing = principal.thing.map(|thing| thing.as_str().to_owned());
        if StreamDesk::is_for(topic.as_str()) {
            self.streams.ask(StreamRequest {
                thing,
                topic: topic.as_str().to_owned(),
                payload: payload.to_vec(),
                // Dropped after the last block: the device's PUBACK follows it.
                reply: Box::new(move |message| {
                    if let Some((topic, payload)) = publishable(message.topic, message.payload) {
                        reply.send(topic, payload);
                    }
                }),
            });
            return;
        }
        self.ota.ask(DeviceRequest {
            thing,
            topic: topic.as_str().to_owned(),
            payload: payload.to_vec(),
            // Dropped after it has sent: the device's PUBACK follows the durable answer.
            reply: Box::new(move |message| {
                if let Some((topic, payload)) = publishable(message.topic, message.payload) {
                    reply.send(topic, payload);
                }
            }),
        });
    }

    fn lifecycle(&self, event: Lifecycle) {
        let key = ConnectionKey {
            session: event.session,
            version: event.version,
        };
        match (&event.change, &event.principal.thing) {
            (LifecycleChange::Connected, Some(thing)) => {
                self.fleet.note_connected(key, thing, event.at);
            }
            (LifecycleChange::Disconnected(_), _) => self.fleet.note_disconnected(key),
            _ => {}
        }
        let sign = match &event.change {
            LifecycleChange::Connected => Some(Sign::Connected),
            LifecycleChange::Disconnected(reason) => Some(Sign::Disconnected {
                broken: !matches!(
                    reason,
                    DisconnectReason::ClientInitiated
                        | DisconnectReason::ServerInitiated
                        | DisconnectReason::ApiInitiated
                ),
            }),
            LifecycleChange::Subscribed(_) | LifecycleChange::Unsubscribed(_) => None,
        };
        if let (Some(sign), Some(thing)) = (sign, &event.principal.thing) {
            self.signs.saw(thing.as_str(), sign, event.at);
        }
        self.events.session(event);
    }

    fn newcomer(&self, certificate: &[u8]) {
        self.newcomers.take(certificate);
    }
}

fn publishable(topic: String, payload: Vec<u8>) -> Option<(TopicName, Bytes)> {
    match topic.parse::<TopicName>() {
        Ok(topic) => Some((topic, payload.into())),
        Err(error) => {
            // The broker bounds what is asked under, so that what is answered under always fits.
            tracing::debug!(topic = ?Excerpt(&topic), %error, "an answer to a device has no valid topic");
            None
        }
    }
}
