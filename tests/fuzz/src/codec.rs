use broker::codec::{DecodeError, Packet, Version, decode, decode_first};
use bytes::BytesMut;

use crate::LIMITS;

/// Bytes are packets, a beginning of one, or an error; the same whether they come at once or in pieces; and what was
/// taken for a packet can be said again in words that mean the same.
///
/// The first byte: bit 0 the version, the others the length of the pieces.
pub fn codec(bytes: &[u8]) {
    let Some((version, piece, bytes)) = crate::version(bytes) else {
        return;
    };
    let whole = all(bytes, bytes.len().max(1), version);
    let pieces = all(bytes, usize::from(piece) + 1, version);
    assert_eq!(whole, pieces, "pieces of {piece} + 1 bytes");
    for packet in &whole.0 {
        let mut again = Vec::new();
        packet.encode(version, &mut again);
        let (packets, rest) = all(&again, again.len(), version);
        assert_eq!((&packets[..], &rest), (&[packet.clone()][..], &Ok(0)));
    }
    first(bytes);
}

/// The packets, then how many bytes are left of one that is not whole, or what is wrong.
fn all(bytes: &[u8], piece: usize, version: Version) -> (Vec<Packet>, Result<usize, DecodeError>) {
    let mut buffer = BytesMut::new();
    let mut packets = Vec::new();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match decode(&mut buffer, version, &LIMITS) {
                Ok(Some(packet)) => {
                    assert!(before - buffer.len() >= 2, "a packet of no bytes");
                    packets.push(packet);
                }
                Ok(None) => {
                    assert_eq!(buffer.len(), before, "half a packet was eaten");
                    break;
                }
                Err(error) => return (packets, Err(error)),
            }
        }
    }
    (packets, Ok(buffer.len()))
}

fn first(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    match decode_first(&mut buffer, &LIMITS) {
        Ok(Some(connect)) => {
            let mut again = Vec::new();
            connect.encode(&mut again);
            let mut again = BytesMut::from(&again[..]);
            assert_eq!(decode_first(&mut again, &LIMITS), Ok(Some(connect)));
            assert!(again.is_empty());
        }
        Ok(None) => assert_eq!(buffer.len(), bytes.len()),
        // A CONNACK is sent in the version it names; its reason must be one.
        Err(error) => assert!(error.reason.is_error(), "{error}"),
    }
}
