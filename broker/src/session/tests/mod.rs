use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::codec::{
    Acknowledgement, ConnAck, Connect, Delivery, Limits, PacketId, PubAck, PubComp, PubRec, PubRel,
    Publish, Subscribe, SubscriptionOptions, Unsubscribe, decode,
};

mod answers;
mod conversation;
mod delivery;
mod machine;
mod opening;

const NOW: Time = Time::from_millis(1_000_000);

const LIMITS: Limits = Limits {
    packet_max_bytes: 1024 * 1024,
    user_properties_max: 100,
    filters_max: 1_000,
};

type TestSession = Session<Arc<Publication>>;

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn connect(version: Version) -> Connect {
    Connect::new(version, Some("lamp-1".parse().unwrap()))
}

fn propose(
    connect: Connect,
    settings: &Settings,
    out: &mut Vec<u8>,
) -> Result<Proposal, Disconnect> {
    Proposal::new(connect, settings, || "made-up".parse().unwrap(), out)
}

fn open_with(
    connect: Connect,
    settings: &Settings,
    stored: Option<Stored<Arc<Publication>>>,
) -> (TestSession, ConnAck) {
    let version = connect.version;
    let mut out = Vec::new();
    let session = propose(connect, settings, &mut out)
        .unwrap()
        .open(stored, NOW, &mut out);
    let [Packet::ConnAck(connack)] = &written(&out, version)[..] else {
        panic!("not one CONNACK");
    };
    (session, (**connack).clone())
}

fn open(version: Version) -> TestSession {
    open_with(connect(version), &Settings::default(), None).0
}

/// The packets in an output buffer.
fn written(out: &[u8], version: Version) -> Vec<Packet> {
    let mut buffer = BytesMut::from(out);
    let mut packets = Vec::new();
    while let Some(packet) = decode(&mut buffer, version, &LIMITS).unwrap() {
        packets.push(packet);
    }
    assert!(buffer.is_empty(), "half a packet was written");
    packets
}

fn publish(packet_id: Option<u16>) -> Packet {
    Packet::Publish(Publish {
        delivery: packet_id.map_or(Delivery::AtMostOnce, |number| Delivery::AtLeastOnce {
            packet_id: id(number),
            dup: false,
        }),
        retain: false,
        topic: Some("dt/lamp-1".parse().unwrap()),
        topic_alias: None,
        expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(b"on"),
    })
}

fn message(payload: &'static [u8]) -> Arc<Publication> {
    Arc::new(Publication::new(
        "cmd/lamp-1".parse().unwrap(),
        Bytes::from_static(payload),
    ))
}

fn puback(number: u16) -> Packet {
    Packet::PubAck(PubAck(Acknowledgement::new(
        id(number),
        ReasonCode::Success,
    )))
}

const fn with_qos(qos: Qos) -> SendOptions {
    SendOptions {
        qos,
        retain: false,
        subscription_ids: None,
    }
}

const QOS_1: SendOptions = with_qos(Qos::AtLeastOnce);

fn reason_of<T: std::fmt::Debug>(result: Result<T, Disconnect>) -> ReasonCode {
    result.unwrap_err().reason
}
