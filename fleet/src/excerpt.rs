//! What a device said, in a line of the log.

use std::fmt;

/// Most bytes of a device's words in one line.
const SHOWN_BYTES: usize = 256;

/// The beginning of a text that came from a device, and how long all of it is. It shows itself by `Debug` only: quoted,
/// with nothing in it that could make a line of its own.
#[derive(Clone, Copy)]
pub struct Excerpt<'a>(pub &'a str);

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        if text.len() <= SHOWN_BYTES {
            return write!(f, "{text:?}");
        }
        let shown = &text[..text.floor_char_boundary(SHOWN_BYTES)];
        write!(f, "{shown:?}… ({} bytes)", text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_shown_whole_and_quoted() {
        assert_eq!(format!("{:?}", Excerpt("a\nb")), r#""a\nb""#);
        let longest = "x".repeat(SHOWN_BYTES);
        assert_eq!(format!("{:?}", Excerpt(&longest)), format!("{longest:?}"));
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let long = format!("{}é{}", "x".repeat(SHOWN_BYTES - 1), "y".repeat(65_000));
        let shown = format!("{:?}", Excerpt(&long));
        assert_eq!(
            shown,
            format!("\"{}\"… (65257 bytes)", "x".repeat(SHOWN_BYTES - 1))
        );
    }
}
