//! Decode and encode of a QoS 0 PUBLISH of 128 bytes, as the hot path does it.

use std::hint::black_box;

use broker::codec::{Delivery, Limits, Packet, Publish, PublishRef, Version, decode};
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Packets in one read, as a busy connection brings them.
const BATCH: usize = 32;

const LIMITS: Limits = Limits {
    packet_max_bytes: 256 * 1024,
    user_properties_max: 64,
    filters_max: 1_000,
};

fn read_buffer(version: Version) -> Vec<u8> {
    let publish = Publish {
        delivery: Delivery::AtMostOnce,
        retain: false,
        topic: "dt/lamp-1/temperature".parse().ok(),
        topic_alias: None,
        expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(&[0x55; 128]),
    };
    let mut out = Vec::new();
    for _ in 0..BATCH {
        publish.encode(version, &mut out);
    }
    out
}

fn relay(wire: &[u8], version: Version, out: &mut Vec<u8>) {
    let mut buffer = BytesMut::from(wire);
    out.clear();
    while let Ok(Some(Packet::Publish(publish))) = decode(&mut buffer, version, &LIMITS) {
        PublishRef {
            delivery: publish.delivery,
            retain: publish.retain,
            topic: publish.topic.as_ref().map_or("", |topic| topic.as_str()),
            topic_alias: None,
            expiry_s: None,
            subscription_ids: &[],
            properties: publish.properties.as_deref(),
            payload: &publish.payload,
        }
        .encode(version, out);
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode and encode a QoS 0 PUBLISH of 128 bytes");
    group.throughput(Throughput::Elements(BATCH as u64));
    for version in [Version::V311, Version::V5] {
        let wire = read_buffer(version);
        let mut out = Vec::new();
        relay(&wire, version, &mut out);
        assert_eq!(out, wire, "what is relayed is what came");
        group.bench_function(format!("{version:?}"), |bencher| {
            bencher.iter(|| relay(black_box(&wire), version, &mut out));
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
