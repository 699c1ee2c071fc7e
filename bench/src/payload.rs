//! What a message carries: when it was due, who sent it, which one it is, and which run it belongs to.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The smallest payload.
pub(crate) const HEAD_BYTES: usize = 20;

/// The first bytes of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// From when its latency counts, in nanoseconds of the run's clock.
    pub(crate) stamp_ns: u64,
    /// The publisher's number.
    pub(crate) source: u32,
    /// The message's number among its publisher's.
    pub(crate) sequence: u32,
}

impl Head {
    /// A payload of `size` bytes, or of [`HEAD_BYTES`] where that is more.
    pub(crate) fn payload(self, run: u32, size: usize, scratch: &mut BytesMut) -> Bytes {
        scratch.put_u32(run);
        scratch.put_u64(self.stamp_ns);
        scratch.put_u32(self.source);
        scratch.put_u32(self.sequence);
        scratch.resize(size.max(HEAD_BYTES), b'x');
        scratch.split().freeze()
    }

    /// The head of a message of this run; nothing for anybody else's message.
    pub(crate) fn read(run: u32, mut payload: &[u8]) -> Option<Self> {
        if payload.len() < HEAD_BYTES || payload.get_u32() != run {
            return None;
        }
        Some(Self {
            stamp_ns: payload.get_u64(),
            source: payload.get_u32(),
            sequence: payload.get_u32(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_head_comes_back(stamp_ns: u64, source: u32, sequence: u32, run: u32, size in 0_usize..300) {
            let head = Head { stamp_ns, source, sequence };
            let payload = head.payload(run, size, &mut BytesMut::new());
            prop_assert_eq!(payload.len(), size.max(HEAD_BYTES));
            prop_assert_eq!(Head::read(run, &payload), Some(head));
            prop_assert_eq!(Head::read(run.wrapping_add(1), &payload), None);
        }

        #[test]
        fn foreign_bytes_are_no_head_or_some_head(bytes: Vec<u8>) {
            prop_assert_eq!(Head::read(7, &bytes).is_some(), bytes.len() >= HEAD_BYTES && bytes[..4] == [0, 0, 0, 7]);
        }
    }
}
