//! The four packets that share one body: PUBACK, PUBREC, PUBREL, PUBCOMP.

use super::super::{
    Acknowledgement, Packet, PacketId, PubAck, PubComp, PubRec, PubRel, ReasonCode, Version,
};
use super::{decode_all, error_of};

struct Kind {
    /// Type and flags.
    first: u8,
    /// The same type with flags it may not have.
    wrong_flags: u8,
    make: fn(Acknowledgement) -> Packet,
    /// A reason it may carry beside success, and one it may not.
    reason: ReasonCode,
    forbidden: u8,
}

const KINDS: [Kind; 4] = [
    Kind {
        first: 0x40,
        wrong_flags: 0x42,
        make: |ack| Packet::PubAck(PubAck(ack)),
        reason: ReasonCode::NotAuthorized,
        forbidden: 0x92,
    },
    Kind {
        first: 0x50,
        wrong_flags: 0x52,
        make: |ack| Packet::PubRec(PubRec(ack)),
        reason: ReasonCode::NotAuthorized,
        forbidden: 0x92,
    },
    Kind {
        first: 0x62,
        wrong_flags: 0x60,
        make: |ack| Packet::PubRel(PubRel(ack)),
        reason: ReasonCode::PacketIdentifierNotFound,
        forbidden: 0x10,
    },
    Kind {
        first: 0x70,
        wrong_flags: 0x72,
        make: |ack| Packet::PubComp(PubComp(ack)),
        reason: ReasonCode::PacketIdentifierNotFound,
        forbidden: 0x10,
    },
];

/// [MQTT-2.2.1-5] [MQTT311-2.3.1-6]
#[test]
fn the_short_forms_are_read_and_written() {
    let id = PacketId::new(0x0102).unwrap();
    for Kind {
        first,
        make,
        reason,
        ..
    } in KINDS
    {
        let success = make(Acknowledgement::new(id, ReasonCode::Success));
        let other = make(Acknowledgement::new(id, reason));
        for version in [Version::V311, Version::V5] {
            assert_eq!(decode_all(&[first, 2, 1, 2], version), Ok(success.clone()));
        }
        for long in [&[first, 3, 1, 2, 0][..], &[first, 4, 1, 2, 0, 0]] {
            assert_eq!(decode_all(long, Version::V5), Ok(success.clone()));
        }
        let written = [first, 3, 1, 2, reason as u8];
        assert_eq!(decode_all(&written, Version::V5), Ok(other.clone()));
        let mut out = Vec::new();
        other.encode(Version::V5, &mut out);
        assert_eq!(out, written);
        out.clear();
        other.encode(Version::V311, &mut out);
        assert_eq!(out, [first, 2, 1, 2]);
    }
}

/// [MQTT-2.1.3-1, 3.4.2-1, 3.5.2-1, 3.6.1-1, 3.6.2-1, 3.7.2-1] [MQTT311-2.2.2-1, 3.6.1-1]
#[test]
fn what_the_standard_forbids_is_refused() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    for Kind {
        first,
        wrong_flags,
        forbidden,
        ..
    } in KINDS
    {
        for version in [Version::V311, Version::V5] {
            assert_eq!(error_of(&[first, 2, 0, 0], version), ProtocolError);
            assert_eq!(error_of(&[first, 1, 1], version), MalformedPacket);
            assert_eq!(error_of(&[wrong_flags, 2, 0, 1], version), MalformedPacket); // [MQTT-2.1.3-1]
        }
        let v5 = |bytes: &[u8]| error_of(bytes, Version::V5);
        assert_eq!(
            error_of(&[first, 3, 0, 1, 0], Version::V311),
            MalformedPacket
        );
        assert_eq!(v5(&[first, 3, 0, 1, forbidden]), ProtocolError);
        assert_eq!(v5(&[first, 5, 0, 1, 0, 0, 0]), MalformedPacket);
        // A property that is not of these packets: Topic Alias.
        assert_eq!(v5(&[first, 7, 0, 1, 0, 3, 0x23, 0, 1]), MalformedPacket);
        // Reason String twice.
        assert_eq!(
            v5(&[first, 10, 0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0]),
            ProtocolError
        );
    }
}
