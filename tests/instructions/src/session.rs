//! Steps of the session machine: a message in, a message out.

use std::sync::Arc;

use broker::codec::{
    Acknowledgement, Connect, Delivery, Packet, PacketId, PubAck, Publish, Qos, ReasonCode, Version,
};
use broker::session::{Event, Proposal, Publication, SendOptions, Sent, Session, Settings, Time};
use bytes::Bytes;

use crate::Step;

const NOW: Time = Time::from_millis(1_000_000);

#[expect(clippy::expect_used, reason = "the CONNECT is as simple as can be")]
fn open() -> Session<Arc<Publication>> {
    let name: Result<broker::topic::ClientId, _> = "lamp-1".parse();
    let name = name.expect("a client identifier");
    let connect = Connect::new(Version::V5, Some(name.clone()));
    let mut out = Vec::new();
    Proposal::new(connect, &Settings::default(), move || name, &mut out)
        .expect("an ordinary CONNECT is taken")
        .open(None, NOW, &mut out)
}

fn publish(delivery: Delivery) -> Packet {
    Packet::Publish(Publish {
        delivery,
        retain: false,
        topic: "dt/lamp-1/temperature".parse().ok(),
        topic_alias: None,
        expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(&[0x55; 128]),
    })
}

fn is_publish(event: Result<Event, broker::session::Disconnect>) -> bool {
    matches!(event, Ok(Event::Publish(_)))
}

pub(crate) fn publish_qos0() -> Step {
    let mut session = open();
    let mut out = Vec::new();
    let packet = publish(Delivery::AtMostOnce);
    Box::new(move || {
        assert!(is_publish(session.handle(packet.clone(), NOW, &mut out)));
        assert!(out.is_empty());
    })
}

pub(crate) fn publish_qos1() -> Step {
    let mut session = open();
    let mut out = Vec::new();
    let packet_id = PacketId::MIN;
    let dup = false;
    let packet = publish(Delivery::AtLeastOnce { packet_id, dup });
    Box::new(move || {
        assert!(is_publish(session.handle(packet.clone(), NOW, &mut out)));
        session.published(packet_id, ReasonCode::Success, None, &mut out);
        assert_eq!(out.len(), 4, "a PUBACK");
        out.clear();
    })
}

pub(crate) fn deliver_qos0() -> Step {
    deliver(Qos::AtMostOnce)
}

pub(crate) fn deliver_qos1() -> Step {
    deliver(Qos::AtLeastOnce)
}

#[expect(clippy::expect_used, reason = "the topic's name is one")]
fn deliver(qos: Qos) -> Step {
    let mut session = open();
    let topic = "cmd/lamp-1/set".parse().expect("a topic's name");
    let message = Arc::new(Publication::new(topic, Bytes::from_static(&[0x55; 128])));
    let options = SendOptions {
        qos,
        retain: false,
        subscription_ids: None,
    };
    let mut out = Vec::new();
    Box::new(move || {
        let sent = session.send(&message, &options, 0, NOW, &mut out);
        let Sent::Written(packet_id) = sent else {
            unreachable!("there is room");
        };
        out.clear();
        if let Some(packet_id) = packet_id {
            let ack = Acknowledgement::new(packet_id, ReasonCode::Success);
            let event = session.handle(Packet::PubAck(PubAck(ack)), NOW, &mut out);
            assert!(matches!(event, Ok(Event::Acknowledged { .. })));
        }
    })
}
