//! Where a client stands in its stream of WebSocket frames (RFC 6455 §5.2). What it has begun and not ended is held by the
//! library, which does not tell of it: so the frames' heads are read along as they pass.

/// The longest head of a frame.
const HEAD_BYTES: usize = 14;
/// Opcodes from here on are of control frames, which may come in the midst of a message.
const CONTROL: u8 = 0x8;
const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A frame's head, of which so many bytes are here.
    Head(usize),
    /// So many bytes of a frame's payload.
    Payload(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Frames {
    next: Next,
    head: [u8; HEAD_BYTES],
    /// The last data frame was not the last of its message.
    open: bool,
    messages: u64,
}

impl Frames {
    /// From the first byte behind the upgrade on.
    pub(super) const fn new() -> Self {
        Self {
            next: Next::Head(0),
            head: [0; HEAD_BYTES],
            open: false,
            messages: 0,
        }
    }

    /// Messages that came whole.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether a message or a frame has begun that has not ended.
    pub(super) const fn holds_part(&self) -> bool {
        match self.next {
            Next::Head(have) => self.open || have > 0,
            Next::Payload(_) => true,
        }
    }

    /// These bytes have come.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match self.next {
                Next::Head(have) => {
                    bytes = rest;
                    if let Some(place) = self.head.get_mut(have) {
                        *place = *first;
                    }
                    self.next = match self.payload(have + 1) {
                        None => Next::Head(have + 1),
                        Some(0) => self.ended(),
                        Some(left) => Next::Payload(left),
                    };
                }
                Next::Payload(left) => {
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = bytes.get(take..).unwrap_or_default();
                    self.next = match left - take as u64 {
                        0 => self.ended(),
                        left => Next::Payload(left),
                    };
                }
            }
        }
    }

    /// The length of the payload once the head is whole, of which `have` bytes are here.
    fn payload(&self, have: usize) -> Option<u64> {
        let [_, second, extended @ ..] = &self.head;
        if have < 2 {
            return None;
        }
        let long = match second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if have < 2 + long + mask {
            return None;
        }
        let octets = extended.iter().take(long);
        Some(match long {
            0 => u64::from(second & LENGTH),
            _ => octets.fold(0, |length, octet| length << 8 | u64::from(*octet)),
        })
    }

    /// The frame whose head is here has come whole.
    const fn ended(&mut self) -> Next {
        let [first, ..] = self.head;
        if first & OPCODE < CONTROL {
            self.open = first & FINAL == 0;
            if !self.open {
                self.messages += 1;
            }
        }
        Next::Head(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A masked frame, as clients send it.
    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..126 => bytes.push(MASKED | payload as u8),
            126..65_536 => {
                bytes.push(MASKED | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(MASKED | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + payload, 0xEE);
        bytes
    }

    const BINARY: u8 = 0x82;
    const PING: u8 = 0x89;
    const BEGIN: u8 = 0x02;
    const MORE: u8 = 0x00;
    const END: u8 = 0x80;

    #[test]
    fn what_was_begun_is_held_until_it_ends_whatever_comes_in_between() {
        let mut frames = Frames::new();
        assert!(!frames.holds_part());
        for payload in [0, 1, 125, 126, 65_535, 65_536] {
            let before = frames.messages();
            let whole = frame(BINARY, payload);
            let (last, begun) = whole.split_last().unwrap();
            frames.pass(begun);
            assert!(frames.holds_part(), "{payload}");
            frames.pass(&[*last]);
            assert!(!frames.holds_part(), "{payload}");
            assert_eq!(frames.messages(), before + 1);
        }
        let before = frames.messages();
        for one in [BEGIN, PING, MORE, MORE, PING] {
            frames.pass(&frame(one, 0));
            assert!(frames.holds_part());
        }
        assert_eq!(frames.messages(), before);
        frames.pass(&frame(END, 9));
        assert!(!frames.holds_part());
        assert_eq!(frames.messages(), before + 1);
        // Nobody is held up by pings.
        frames.pass(&frame(PING, 3));
        assert!(!frames.holds_part());
        assert_eq!(frames.messages(), before + 1);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(
            sent in prop::collection::vec((prop::sample::select(vec![BINARY, PING, BEGIN, MORE, END]), 0usize..300), 0..12),
            cuts in prop::collection::vec(1usize..40, 1..40),
        ) {
            let frames = sent.iter().flat_map(|(first, payload)| frame(*first, *payload));
            let bytes: Vec<u8> = frames.collect();
            let mut whole = Frames::new();
            whole.pass(&bytes);
            let mut pieces = Frames::new();
            let mut left = &bytes[..];
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, rest) = left.split_at((*cut).min(left.len()));
                pieces.pass(piece);
                left = rest;
            }
            prop_assert_eq!(whole.messages(), pieces.messages());
            prop_assert_eq!(whole.holds_part(), pieces.holds_part());
        }

        #[test]
        fn no_bytes_make_trouble(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::new();
            frames.pass(&bytes);
            let whole = frames.messages();
            prop_assert!(whole <= bytes.len() as u64 / 2);
        }
    }
}
