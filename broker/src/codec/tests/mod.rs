use bytes::BytesMut;

use super::*;

mod acknowledgements;
pub(crate) mod arbitrary;
mod differential;
mod fields;
pub(crate) mod properties;
mod second_opinion;
mod strict;

pub(super) const LIMITS: Limits = Limits {
    packet_max_bytes: 1024 * 1024,
    user_properties_max: 8,
    filters_max: 8,
};

/// Decodes bytes that are exactly one packet.
pub(super) fn decode_all(bytes: &[u8], version: Version) -> Result<Packet, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    let packet = decode(&mut buffer, version, &LIMITS)?;
    assert!(buffer.is_empty(), "bytes are left");
    Ok(packet.expect("the packet is whole"))
}

/// The reason code with which bytes are refused.
pub(super) fn error_of(bytes: &[u8], version: Version) -> ReasonCode {
    let mut buffer = BytesMut::from(bytes);
    match decode(&mut buffer, version, &LIMITS) {
        Err(error) => error.reason,
        Ok(packet) => panic!("{bytes:02x?} is taken for {packet:?}"),
    }
}

pub(super) fn encoded(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}
