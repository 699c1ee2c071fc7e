//! What holds for all packets and for all bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary::{packet, version};
use super::*;

/// Bytes of a packet with some of them changed, or of nothing at all.
pub(crate) fn mutated(version: Version) -> BoxedStrategy<Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let near = (packet(version), changes, any::<bool>()).prop_map(move |(packet, changes, cut)| {
        let mut bytes = encoded(&packet, version);
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if cut {
            bytes.pop();
        }
        bytes
    });
    prop_oneof![3 => near, 1 => vec(any::<u8>(), 0..64)].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_encoded_is_decoded(
        (version, packets) in version().prop_flat_map(|v| (Just(v), vec(packet(v), 1..4))),
    ) {
        let mut bytes = Vec::new();
        for packet in &packets {
            packet.encode(version, &mut bytes);
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        for packet in &packets {
            prop_assert_eq!(decode(&mut buffer, version, &LIMITS), Ok(Some(packet.clone())));
        }
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn a_packet_is_not_taken_before_it_is_whole(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
    ) {
        let bytes = encoded(&packet, version);
        let mut buffer = BytesMut::new();
        for (at, byte) in bytes.iter().enumerate() {
            buffer.extend_from_slice(&[*byte]);
            let decoded = decode(&mut buffer, version, &LIMITS);
            if at + 1 < bytes.len() {
                prop_assert_eq!(decoded, Ok(None));
                prop_assert_eq!(buffer.len(), at + 1);
            } else {
                prop_assert_eq!(decoded, Ok(Some(packet.clone())));
            }
        }
    }

    #[test]
    fn any_bytes_are_a_packet_an_error_or_a_beginning(
        (version, bytes) in version().prop_flat_map(|v| (Just(v), mutated(v))),
        more in vec(any::<u8>(), 0..8),
    ) {
        let mut buffer = BytesMut::from(&bytes[..]);
        buffer.extend_from_slice(&more);
        let before = buffer.clone();
        match decode(&mut buffer, version, &LIMITS) {
            // Exactly one packet is taken: what its own length says, and what follows is untouched.
            Ok(Some(packet)) => {
                let (remaining, len) = reader::varint(&before[1..]).unwrap().unwrap();
                let total = 1 + len + remaining as usize;
                prop_assert_eq!(&buffer[..], &before[total..]);
                // And whatever is taken can be said again in words that mean the same.
                let again = encoded(&packet, version);
                prop_assert_eq!(decode_all(&again, version), Ok(packet));
            }
            Ok(None) => prop_assert_eq!(buffer, before),
            Err(error) => prop_assert!(error.reason.is_error()),
        }
    }

    #[test]
    fn any_first_bytes_are_a_connect_an_error_or_a_beginning(bytes in mutated(Version::V5)) {
        let mut buffer = BytesMut::from(&bytes[..]);
        match decode_first(&mut buffer, &LIMITS) {
            Ok(Some(_)) => prop_assert_eq!(bytes[0], 0x10),
            Ok(None) => prop_assert!(bytes.first().is_none_or(|first| *first == 0x10)),
            Err(error) => prop_assert!(error.reason.is_error()),
        }
    }
}
