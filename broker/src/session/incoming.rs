use std::collections::VecDeque;

use bytes_utils::Str;

use super::{Disconnect, Event, Incoming, Publication, Session, Time, protocol};
use crate::codec::{Acknowledgement, Delivery, PacketId, PubAck, Publish, ReasonCode, Version};

/// PUBLISH packets of 3.1.1 held unanswered, in messages. Its clients know no Receive Maximum, so they are slowed with
/// [`Session::may_receive`] long before; this stops a shell that does not ask.
pub const V311_PENDING_MAX_MESSAGES: usize = 4_096;

/// PUBLISH packets of QoS 1 in the order in which they came, each with its answer once there is one.
#[derive(Debug, Default)]
pub(super) struct PendingAcks {
    queue: VecDeque<(PacketId, Option<Answer>)>,
}

type Answer = (ReasonCode, Option<Str>);

impl PendingAcks {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Notes an answer and returns whether anything can leave.
    fn answer(&mut self, packet_id: PacketId, answer: Answer) -> bool {
        let mut open = self.queue.iter_mut().enumerate();
        match open.find(|(_, (id, answer))| *id == packet_id && answer.is_none()) {
            Some((at, (_, place))) => {
                *place = Some(answer);
                at == 0
            }
            None => false,
        }
    }

    /// The next PUBACK that may leave [MQTT-4.6.0-2].
    fn pop(&mut self) -> Option<(PacketId, Answer)> {
        let (packet_id, answer) = self.queue.pop_front_if(|(_, answer)| answer.is_some())?;
        Some((packet_id, answer?))
    }
}

impl<M: AsRef<Publication> + Clone> Session<M> {
    pub(super) fn publish(&mut self, publish: Publish, now: Time) -> Result<Event, Disconnect> {
        if publish.topic_alias.is_some() {
            // [MQTT-3.3.2-9]: none was granted, Topic Alias Maximum is 0.
            return Err(Disconnect::new(
                ReasonCode::TopicAliasInvalid,
                "topic aliases are not served: Topic Alias Maximum is 0",
            ));
        }
        let Some(topic) = publish.topic else {
            return Err(protocol("the topic is empty"));
        };
        if !publish.subscription_ids.is_empty() {
            // [MQTT-3.3.4-6]
            return Err(protocol(
                "a client's PUBLISH has no subscription identifier",
            ));
        }
        let qos = publish.delivery.qos();
        let (packet_id, dup) = match publish.delivery {
            Delivery::AtMostOnce => (None, false),
            Delivery::AtLeastOnce { packet_id, dup } => {
                self.await_answer(packet_id)?;
                (Some(packet_id), dup)
            }
            // [MQTT-3.2.2-11]: Maximum QoS 1 was announced; 3.1.1 has only the closed connection.
            Delivery::ExactlyOnce { .. } => {
                return Err(Disconnect::new(
                    ReasonCode::QosNotSupported,
                    "QoS 2 is not served: publish with QoS 0 or 1",
                ));
            }
        };
        Ok(Event::Publish(Incoming {
            publication: Publication {
                topic,
                payload: publish.payload,
                properties: publish.properties,
                expires_at: publish.expiry_s.map(|seconds| now.plus_seconds(seconds)),
            },
            retain: publish.retain,
            qos,
            packet_id,
            dup,
        }))
    }

    fn await_answer(&mut self, packet_id: PacketId) -> Result<(), Disconnect> {
        let max = match self.version {
            Version::V5 => self.settings.receive_max_messages.get().into(),
            Version::V311 => V311_PENDING_MAX_MESSAGES,
        };
        if self.pending_acks.len() >= max {
            // [MQTT-3.3.4-7], §4.9
            return Err(Disconnect::new(
                ReasonCode::ReceiveMaximumExceeded,
                format!("more than {max} PUBLISH packets wait for their PUBACK"),
            ));
        }
        self.pending_acks.queue.push_back((packet_id, None));
        Ok(())
    }

    /// Whether the next packet should be decoded. False only in 3.1.1, which has no Receive Maximum, while as many
    /// PUBLISH packets wait for their [`Session::published`] as are held at once: stop reading until some are answered.
    #[must_use]
    pub fn may_receive(&self) -> bool {
        self.version == Version::V5
            || self.pending_acks.len() < usize::from(self.settings.receive_max_messages.get())
    }

    /// Answers an [`Event::Publish`] of QoS 1, in any order; the PUBACKs leave in the order in which the PUBLISH
    /// packets came [MQTT-4.6.0-2].
    ///
    /// A PUBACK of 3.1.1 cannot say no: there, a message that is refused must end the connection with
    /// [`Session::disconnect`] instead, or be acknowledged and dropped (3.1.1 [MQTT-3.3.5-2]).
    pub fn published(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let reason = if PubAck::allows(reason) {
            reason
        } else {
            ReasonCode::Unspecified
        };
        if !self
            .pending_acks
            .answer(packet_id, (reason, self.reason_string(reason_string)))
            || self.ended
        {
            return;
        }
        while let Some((packet_id, (reason, reason_string))) = self.pending_acks.pop() {
            let mut ack = PubAck(Acknowledgement::new(packet_id, reason));
            ack.0.reason_string = reason_string;
            self.write_within(out, |out, with_string| {
                if !with_string {
                    ack.0.reason_string = None;
                }
                ack.encode(self.version, out);
            });
        }
    }
}
