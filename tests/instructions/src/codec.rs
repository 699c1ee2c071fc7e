//! Decode and encode of a QoS 0 PUBLISH of 128 bytes, as the hot path does it.

use std::hint::black_box;

use broker::codec::{Delivery, Limits, Packet, Publish, PublishRef, Version, decode};
use bytes::{Bytes, BytesMut};

use crate::Step;

/// Room for a read; what is decoded goes back, as in a connection.
const READ_BYTES: usize = 16 * 1024;

pub(crate) const LIMITS: Limits = Limits {
    packet_max_bytes: 256 * 1024,
    user_properties_max: 64,
    filters_max: 1_000,
};

pub(crate) fn relay_v311() -> Step {
    relay(Version::V311)
}

pub(crate) fn relay_v5() -> Step {
    relay(Version::V5)
}

fn relay(version: Version) -> Step {
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
    let mut wire = Vec::new();
    publish.encode(version, &mut wire);
    let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
    Box::new(move || {
        buffer.reserve(READ_BYTES);
        buffer.extend_from_slice(black_box(&wire));
        out.clear();
        let packet = decode(&mut buffer, version, &LIMITS);
        if let Ok(Some(Packet::Publish(publish))) = packet {
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
            .encode(version, &mut out);
        }
        assert_eq!(out.len(), wire.len(), "what is relayed is what came");
    })
}
