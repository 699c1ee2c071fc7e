use broker::codec::{Packet, PacketId, Secret, Version, decode};
use bytes::BytesMut;

use crate::LIMITS;

#[path = "../../../broker/src/codec/tests/second_opinion.rs"]
mod second_opinion;

/// `mqttbytes` reads the same bytes as we do, but for the differences listed in the codec's own tests.
///
/// The first byte chooses the version.
pub fn differential(bytes: &[u8]) {
    let Some((version, _, bytes)) = crate::version(bytes) else {
        return;
    };
    if let Err(difference) = second_opinion::compare(bytes, version) {
        panic!("{version:?}: {difference}");
    }
}
