//! Steps of the session machine: a PUBLISH in, a delivery out.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::hint::black_box;
use std::sync::Arc;

use broker::codec::{
    Acknowledgement, Connect, Delivery, Packet, PacketId, PubAck, Publish, Qos, ReasonCode, Version,
};
use broker::session::{Proposal, Publication, SendOptions, Sent, Session, Settings, Time};
use broker::topic::ClientId;
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Time = Time::from_millis(1_000_000);
const PAYLOAD: Bytes = Bytes::from_static(&[0x55; 128]);

fn open() -> Session<Arc<Publication>> {
    let name: ClientId = "lamp-1".parse().unwrap();
    let connect = Connect::new(Version::V5, Some(name.clone()));
    Proposal::new(connect, &Settings::default(), move || name, &mut Vec::new())
        .unwrap()
        .open(None, NOW, &mut Vec::new())
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session: a PUBLISH of the client");
    for (label, delivery) in [
        ("QoS 0", Delivery::AtMostOnce),
        (
            "QoS 1 and its PUBACK",
            Delivery::AtLeastOnce {
                packet_id: PacketId::MIN,
                dup: false,
            },
        ),
    ] {
        let packet = Packet::Publish(Publish {
            delivery,
            retain: false,
            topic: "dt/lamp-1/temperature".parse().ok(),
            topic_alias: None,
            expiry_s: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: PAYLOAD,
        });
        let (mut session, mut out) = (open(), Vec::new());
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                let event = session.handle(black_box(packet.clone()), NOW, &mut out);
                if let Some(packet_id) = delivery.packet_id() {
                    session.published(packet_id, ReasonCode::Success, None, &mut out);
                }
                out.clear();
                event.unwrap()
            });
        });
    }
    group.finish();
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session: a delivery to the client");
    for (label, qos) in [
        ("QoS 0", Qos::AtMostOnce),
        ("QoS 1 and its PUBACK", Qos::AtLeastOnce),
    ] {
        let message = Arc::new(Publication::new("cmd/lamp-1/set".parse().unwrap(), PAYLOAD));
        let options = SendOptions {
            qos,
            retain: false,
            subscription_ids: None,
        };
        let (mut session, mut out) = (open(), Vec::new());
        group.bench_function(label, |bencher| {
            bencher.iter(|| {
                let sent = session.send(black_box(&message), &options, 0, NOW, &mut out);
                let Sent::Written(packet_id) = sent else {
                    panic!("there is room");
                };
                out.clear();
                packet_id.map(|packet_id| {
                    let ack = Acknowledgement::new(packet_id, ReasonCode::Success);
                    session.handle(Packet::PubAck(PubAck(ack)), NOW, &mut out)
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish, deliver);
criterion_main!(benches);
