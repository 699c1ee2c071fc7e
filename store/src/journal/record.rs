//! The shape of a record on the disk; pure.
//!
//! ```text
//! mark u32 | crc u32 | value length u32 | key length u16 | kind u8 | more u8 | synced u32 | sequence u64 | key | value
//! ```
//! Numbers are little endian. `mark` is the segment's random number, so that no value chosen by a
//! client passes for a record. `crc` (CRC-32/ISO-HDLC) covers key, value, then the header behind
//! it. `synced` is how much of the segment was durable when the record was put: a sound record
//! behind an unsound place vouches that the place was sound once, so it is damage, not a torn tail.
//! `more` is 1 where the record counts only together with the one behind it: a batch.

use crc32fast::Hasher;

/// Bytes of a record before its key.
pub(super) const HEADER_BYTES: usize = 28;
/// Longest key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = u16::MAX as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Delete,
    /// The journal was closed in order; carries no key.
    Close,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Put => 1,
            Kind::Delete => 2,
            Kind::Close => 3,
        }
    }
}

/// Key and value of a record to be, checked and with their part of the checksum, which is the
/// costly one and so made before the journal's lock is taken.
pub(super) struct Body<'a> {
    pub(super) kind: Kind,
    more: bool,
    pub(super) key: &'a [u8],
    parts: &'a [&'a [u8]],
    pub(super) value_length: u32,
    hash: Hasher,
}

impl<'a> Body<'a> {
    /// `None` where key or value is longer than the format can say.
    pub(super) fn new(kind: Kind, key: &'a [u8], parts: &'a [&'a [u8]]) -> Option<Body<'a>> {
        let length = parts
            .iter()
            .try_fold(0usize, |sum, part| sum.checked_add(part.len()))?;
        let value_length = u32::try_from(length).ok()?;
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        let mut hash = Hasher::new();
        hash.update(key);
        for part in parts {
            hash.update(part);
        }
        Some(Body {
            kind,
            more: false,
            key,
            parts,
            value_length,
            hash,
        })
    }

    /// Length of the whole record in bytes.
    pub(super) fn length(&self) -> usize {
        length(self.key.len(), self.value_length)
    }

    /// Says that the record counts only together with the next one.
    pub(super) fn with_more(self, more: bool) -> Body<'a> {
        Body { more, ..self }
    }

    /// Appends the record to `bytes`.
    pub(super) fn write(self, mark: u32, synced: u32, sequence: u64, bytes: &mut Vec<u8>) {
        let key_length = u16::try_from(self.key.len()).unwrap_or(u16::MAX);
        let mut header = [0; HEADER_BYTES - 8];
        let fields = [
            &self.value_length.to_le_bytes()[..],
            &key_length.to_le_bytes(),
            &[self.kind.code(), u8::from(self.more)],
            &synced.to_le_bytes(),
            &sequence.to_le_bytes(),
        ];
        for (place, byte) in header.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        let mut hash = self.hash;
        hash.update(&header);
        bytes.extend_from_slice(&mark.to_le_bytes());
        bytes.extend_from_slice(&hash.finalize().to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(self.key);
        for part in self.parts {
            bytes.extend_from_slice(part);
        }
    }
}

/// Length in bytes of a record with such a key and value.
pub(super) fn length(key_length: usize, value_length: u32) -> usize {
    HEADER_BYTES + key_length + value_length as usize
}

/// A record as read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) more: bool,
    pub(super) synced: u32,
    pub(super) sequence: u64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Record<'_> {
    /// Length of the whole record in bytes.
    pub(super) fn length(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.value.len()
    }
}

/// Why there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsound {
    /// The bytes end before the record does; it is so long, as far as its header can be believed.
    Short { length: usize },
    /// The bytes are not a record.
    Wrong(&'static str),
}

/// Reads the record at the beginning of `bytes`.
pub(super) fn read(mark: u32, bytes: &[u8]) -> Result<Record<'_>, Unsound> {
    let mut rest = bytes;
    let short = Unsound::Short {
        length: HEADER_BYTES,
    };
    let found = u32::from_le_bytes(*take(&mut rest).ok_or(short)?);
    let crc = u32::from_le_bytes(*take(&mut rest).ok_or(short)?);
    let checked = rest.first_chunk::<{ HEADER_BYTES - 8 }>().ok_or(short)?;
    let value_length = u32::from_le_bytes(*take(&mut rest).ok_or(short)?);
    let key_length = u16::from_le_bytes(*take(&mut rest).ok_or(short)?);
    let [kind, more] = *take::<2>(&mut rest).ok_or(short)?;
    let synced = u32::from_le_bytes(*take(&mut rest).ok_or(short)?);
    let sequence = u64::from_le_bytes(*take(&mut rest).ok_or(short)?);
    if found != mark {
        return Err(Unsound::Wrong("no record begins here"));
    }
    let (key_length, length) = (
        usize::from(key_length),
        length(usize::from(key_length), value_length),
    );
    let body = bytes
        .get(HEADER_BYTES..length)
        .ok_or(Unsound::Short { length })?;
    let mut hash = Hasher::new();
    hash.update(body);
    hash.update(checked);
    if hash.finalize() != crc {
        return Err(Unsound::Wrong("the record's checksum does not match"));
    }
    let kind = match kind {
        1 => Kind::Put,
        2 => Kind::Delete,
        3 => Kind::Close,
        _ => {
            return Err(Unsound::Wrong(
                "the record is of a kind unknown to this release",
            ));
        }
    };
    if more > 1 {
        return Err(Unsound::Wrong(
            "the record belongs to a batch of a kind unknown to this release",
        ));
    }
    let (key, value) = body
        .split_at_checked(key_length)
        .ok_or(Unsound::Short { length })?;
    Ok(Record {
        kind,
        more: more == 1,
        synced,
        sequence,
        key,
        value,
    })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(kind: Kind, key: &[u8], parts: &[&[u8]], numbers: (u32, u32, u64)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mark, synced, sequence) = numbers;
        Body::new(kind, key, parts)
            .unwrap()
            .write(mark, synced, sequence, &mut bytes);
        bytes
    }

    #[test]
    fn a_key_at_the_bound_is_taken_and_one_past_it_not() {
        assert!(Body::new(Kind::Put, &vec![7; KEY_BYTES_MAX], &[]).is_some());
        assert!(Body::new(Kind::Put, &vec![7; KEY_BYTES_MAX + 1], &[]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key: Vec<u8>, a: Vec<u8>, b: Vec<u8>, numbers: (u32, u32, u64), behind: Vec<u8>,
        ) {
            let mut bytes = written(Kind::Put, &key, &[&a, &b], numbers);
            let length = bytes.len();
            bytes.extend(&behind);
            let value = [a, b].concat();
            let (mark, synced, sequence) = numbers;
            let expected =
                Record { kind: Kind::Put, more: false, synced, sequence, key: &key, value: &value };
            prop_assert_eq!(read(mark, &bytes), Ok(expected));
            for cut in 0..length {
                let short = matches!(read(mark, &bytes[..cut]), Err(Unsound::Short { .. }));
                prop_assert!(short);
            }
        }

        #[test]
        fn no_flipped_bit_goes_unseen(key: Vec<u8>, value: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let mut bytes = written(Kind::Delete, &key, &[&value], (1, 2, 3));
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(read(1, &bytes).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(mark: u32, bytes: Vec<u8>) {
            let _ = read(mark, &bytes);
        }
    }
}
