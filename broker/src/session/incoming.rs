use std::collections::VecDeque;

use bytes_utils::Str;

use super::{Disconnect, Event, Incoming, Publication, Published, Session, Time, protocol};
use crate::codec::{
    Acknowledgement, Delivery, PacketId, PubAck, PubComp, PubRec, Publish, Qos, ReasonCode, Version,
};

/// PUBLISH packets of 3.1.1 held unanswered or unreleased, in messages. Its clients know no Receive Maximum, so they
/// are slowed with [`Session::may_receive`] long before; this stops a shell that does not ask, and a client that never
/// releases.
pub const V311_PENDING_MAX_MESSAGES: usize = 4_096;

/// PUBLISH packets of QoS 1 and 2 in the order in which they came, each with its answer once there is one.
#[derive(Debug, Default)]
pub(super) struct PendingAcks {
    queue: VecDeque<Pending>,
    /// How many of them are of QoS 1.
    at_least_once: usize,
}

#[derive(Debug)]
struct Pending {
    packet_id: PacketId,
    qos: Qos,
    answer: Option<Answer>,
}

type Answer = (ReasonCode, Option<Str>);

impl PendingAcks {
    fn push(&mut self, packet_id: PacketId, qos: Qos) {
        self.at_least_once += usize::from(qos == Qos::AtLeastOnce);
        self.queue.push_back(Pending {
            packet_id,
            qos,
            answer: None,
        });
    }

    /// Notes an answer and returns whether anything can leave.
    fn answer(&mut self, packet_id: PacketId, answer: Answer) -> bool {
        let mut open = self.queue.iter_mut().enumerate();
        match open.find(|(_, pending)| pending.packet_id == packet_id && pending.answer.is_none()) {
            Some((at, pending)) => {
                pending.answer = Some(answer);
                at == 0
            }
            None => false,
        }
    }

    /// The next PUBACK or PUBREC that may leave [MQTT-4.6.0-2, -3] [MQTT311-4.6.0-2, -3].
    fn pop(&mut self) -> Option<(PacketId, Qos, Answer)> {
        let pending = self
            .queue
            .pop_front_if(|pending| pending.answer.is_some())?;
        self.at_least_once -= usize::from(pending.qos == Qos::AtLeastOnce);
        Some((pending.packet_id, pending.qos, pending.answer?))
    }
}

/// Messages of QoS 2 from their PUBLISH to their PUBCOMP, by packet identifier (§4.3.3, method A: the message goes on
/// when it is released).
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: Vec<(PacketId, Stage)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The PUBREC is owed.
    Arrived,
    /// The PUBREC has left; the PUBREL is awaited.
    Received,
    /// The PUBREL has come; the PUBCOMP is owed.
    Released,
}

impl Held {
    pub(super) fn resumed(packet_ids: Vec<PacketId>) -> Self {
        let received = |packet_id| (packet_id, Stage::Received);
        Self {
            messages: packet_ids.into_iter().map(received).collect(),
        }
    }

    /// What is not completed.
    pub(super) fn into_packet_ids(self) -> Vec<PacketId> {
        let messages = self.messages.into_iter();
        messages.map(|(packet_id, _)| packet_id).collect()
    }

    fn stage(&self, packet_id: PacketId) -> Option<Stage> {
        let mut messages = self.messages.iter();
        let found = messages.find(|(held, _)| *held == packet_id);
        found.map(|(_, stage)| *stage)
    }

    fn set(&mut self, packet_id: PacketId, stage: Stage) {
        let mut messages = self.messages.iter_mut();
        if let Some((_, at)) = messages.find(|(held, _)| *held == packet_id) {
            *at = stage;
        }
    }

    fn remove(&mut self, packet_id: PacketId) -> bool {
        let at = self
            .messages
            .iter()
            .position(|(held, _)| *held == packet_id);
        at.map(|at| self.messages.remove(at)).is_some()
    }
}

impl<M: Published + Clone> Session<M> {
    pub(super) fn publish(
        &mut self,
        publish: Publish,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Result<Event, Disconnect> {
        let topic = match publish.topic_alias {
            Some(alias) => {
                let max = self.settings.topic_alias_max;
                self.aliases_in.resolve(publish.topic, alias, max)?
            }
            None => publish
                .topic
                .ok_or_else(|| protocol("the topic is empty"))?,
        };
        if !self.settings.takes_topic(topic.as_str()) {
            return Err(Disconnect::new(
                ReasonCode::TopicNameInvalid,
                self.settings.topic_bounds(),
            ));
        }
        if !publish.subscription_ids.is_empty() {
            // [MQTT-3.3.4-6]
            return Err(protocol(
                "a client's PUBLISH has no subscription identifier",
            ));
        }
        // [MQTT-3.3.4-1] [MQTT311-3.3.4-1]
        let qos = publish.delivery.qos();
        if qos > self.settings.qos_max() {
            // [MQTT-3.2.2-11]
            return Err(Disconnect::new(
                ReasonCode::QosNotSupported,
                "QoS 2 is not served here: publish with QoS 0 or 1",
            ));
        }
        let (packet_id, dup) = match publish.delivery {
            Delivery::AtMostOnce => (None, false),
            // A new message each time, whatever DUP says [MQTT-4.3.2-5] [MQTT311-4.3.2-2].
            Delivery::AtLeastOnce { packet_id, dup } => {
                self.await_answer(packet_id, qos)?;
                (Some(packet_id), dup)
            }
            Delivery::ExactlyOnce { packet_id, dup } => {
                if let Some(stage) = self.held.stage(packet_id) {
                    return self.sent_again(packet_id, stage, out);
                }
                self.await_answer(packet_id, qos)?;
                self.held.messages.push((packet_id, Stage::Arrived));
                (Some(packet_id), dup)
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

    /// A PUBLISH of QoS 2 whose identifier is in use: the message is here already [MQTT-4.3.3-10]
    /// [MQTT311-4.3.3-2].
    fn sent_again(
        &self,
        packet_id: PacketId,
        stage: Stage,
        out: &mut Vec<u8>,
    ) -> Result<Event, Disconnect> {
        match stage {
            // Its PUBREC is on the way.
            Stage::Arrived => Ok(Event::None),
            Stage::Received => {
                let again = Acknowledgement::new(packet_id, ReasonCode::Success);
                PubRec(again).encode(self.version, out);
                Ok(Event::None)
            }
            Stage::Released => Err(protocol(
                "a packet identifier was used again between PUBREL and PUBCOMP",
            )),
        }
    }

    fn await_answer(&mut self, packet_id: PacketId, qos: Qos) -> Result<(), Disconnect> {
        let max = match self.version {
            Version::V5 => self.settings.receive_max_messages.get().into(),
            Version::V311 => V311_PENDING_MAX_MESSAGES,
        };
        if self.pending_acks.at_least_once + self.held.messages.len() >= max {
            // [MQTT-3.3.4-7], §4.9
            return Err(Disconnect::new(
                ReasonCode::ReceiveMaximumExceeded,
                format!("more than {max} PUBLISH packets wait for their PUBACK or PUBCOMP"),
            ));
        }
        self.pending_acks.push(packet_id, qos);
        Ok(())
    }

    /// Whether the next packet should be decoded. False only in 3.1.1, which has no Receive Maximum, while as many
    /// PUBLISH packets wait for their [`Session::published`] as are held at once: stop reading until some are answered.
    #[must_use]
    pub fn may_receive(&self) -> bool {
        self.version == Version::V5
            || self.pending_acks.queue.len() < usize::from(self.settings.receive_max_messages.get())
    }

    /// Answers an [`Event::Publish`] of QoS 1 or 2, in any order; the PUBACKs and PUBRECs leave in the order in which
    /// the PUBLISH packets came [MQTT-4.6.0-2, -3] [MQTT311-4.6.0-2, -3]. A message of QoS 2 is the shell's to keep from now on,
    /// until its [`Event::Release`]; one that was refused is forgotten.
    ///
    /// An answer of 3.1.1 cannot say no: there, a message that is refused must end the connection with
    /// [`Session::disconnect`] instead, or be acknowledged and dropped ([MQTT311-3.3.5-2]).
    pub fn published(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        // PUBREC has the same reasons.
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
        while let Some((packet_id, qos, (reason, reason_string))) = self.pending_acks.pop() {
            if qos == Qos::ExactlyOnce {
                if reason.is_error() {
                    self.held.remove(packet_id); // [MQTT-4.3.3-9]
                } else {
                    self.held.set(packet_id, Stage::Received);
                }
            }
            // [MQTT-4.3.2-4, 4.3.3-8] [MQTT311-4.3.2-2, 4.3.3-2]
            let mut ack = Acknowledgement::new(packet_id, reason);
            ack.reason_string = reason_string;
            self.write_within(out, |out, with_string| {
                if !with_string {
                    ack.reason_string = None;
                }
                match qos {
                    Qos::ExactlyOnce => PubRec(ack.clone()).encode(self.version, out),
                    _ => PubAck(ack.clone()).encode(self.version, out),
                }
            });
        }
    }

    /// The client has the PUBREC: the message may go on.
    pub(super) fn pubrel(
        &mut self,
        packet_id: PacketId,
        out: &mut Vec<u8>,
    ) -> Result<Event, Disconnect> {
        match self.held.stage(packet_id) {
            // Whether it has expired meanwhile does not matter [MQTT-4.3.3-13].
            Some(Stage::Received) => {
                self.held.set(packet_id, Stage::Released);
                Ok(Event::Release(packet_id))
            }
            // Its PUBCOMP is on the way.
            Some(Stage::Released) => Ok(Event::None),
            Some(Stage::Arrived) => Err(protocol("PUBREL came before its PUBREC was sent")),
            None => {
                // §3.7.2.1: not an error after a lost session; 3.1.1 has one word for both.
                self.pubcomp(packet_id, ReasonCode::PacketIdentifierNotFound, out);
                Ok(Event::None)
            }
        }
    }

    /// Answers an [`Event::Release`]: the message is on its way, and its identifier is free again
    /// [MQTT-4.3.3-11, -12] [MQTT311-4.3.3-2].
    pub fn completed(&mut self, packet_id: PacketId, out: &mut Vec<u8>) {
        if self.held.remove(packet_id) && !self.ended {
            self.pubcomp(packet_id, ReasonCode::Success, out);
        }
    }

    fn pubcomp(&self, packet_id: PacketId, reason: ReasonCode, out: &mut Vec<u8>) {
        PubComp(Acknowledgement::new(packet_id, reason)).encode(self.version, out);
    }
}
