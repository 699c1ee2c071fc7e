use bytes_utils::Str;

use super::property::{id, put_user};
use super::{UserProperties, Version};

/// How many bytes a Variable Byte Integer takes [MQTT-1.5.5-1].
pub(super) const fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Appends a Variable Byte Integer of at most [`super::REMAINING_MAX_BYTES`].
pub(super) fn put_varint(out: &mut Vec<u8>, value: usize) {
    let (bytes, len) = varint(value);
    out.extend(bytes.into_iter().take(len));
}

fn varint(value: usize) -> ([u8; 4], usize) {
    let len = varint_len(value);
    let byte = |at: usize| {
        let more = if at + 1 < len { 0x80 } else { 0 };
        ((value >> (7 * at)) & 0x7f) as u8 | more
    };
    ([byte(0), byte(1), byte(2), byte(3)], len)
}

/// Puts the length of what `write` appends in front of it.
fn prefix_len(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let (bytes, len) = varint(out.len() - start);
    out.splice(start..start, bytes.into_iter().take(len));
}

/// A whole packet: first byte, remaining length, body.
pub(super) fn packet(out: &mut Vec<u8>, first: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(first);
    prefix_len(out, body);
}

/// The properties with their length, which is 0 where there are none [MQTT-2.2.2-1]; nothing in 3.1.1.
pub(super) fn properties(out: &mut Vec<u8>, version: Version, write: impl FnOnce(&mut Vec<u8>)) {
    if version == Version::V5 {
        prefix_len(out, write);
    }
}

/// Reason String and user properties, as most packets end their properties.
pub(super) fn reason_properties(
    out: &mut Vec<u8>,
    reason_string: Option<&Str>,
    user: &UserProperties,
) {
    if let Some(text) = reason_string {
        out.push(id::REASON_STRING);
        put_binary(out, text.as_bytes());
    }
    put_user(out, user);
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

/// Two length bytes and the data, which is cut at the 65,535 bytes that they can say.
pub(super) fn put_binary(out: &mut Vec<u8>, data: &[u8]) {
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
    put_u16(out, len);
    out.extend(data.iter().take(len.into()));
}

#[cfg(test)]
mod tests {
    use super::super::REMAINING_MAX_BYTES;
    use super::*;

    /// [MQTT-1.5.5-1]
    #[test]
    fn what_is_written_is_read_back() {
        for value in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            REMAINING_MAX_BYTES,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value));
            let read = super::super::reader::varint(&out).unwrap().unwrap();
            assert_eq!(read, (u32::try_from(value).unwrap(), out.len()));
        }
    }
}
