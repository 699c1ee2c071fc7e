//! Topic names, topic filters and client identifiers: types that cannot hold an invalid value.

mod client_id;
mod filter;
mod matching;
mod name;

pub use client_id::{CLIENT_ID_MAX_BYTES, ClientId};
pub use filter::TopicFilter;
pub use matching::matches;
pub use name::TopicName;

/// Longest topic name or filter in bytes: what the wire's two length bytes can say [MQTT-4.7.3-3] [MQTT311-4.7.3-3].
pub const TOPIC_MAX_BYTES: usize = 65_535;

/// Most levels of a topic name or filter. The standard sets none; thirty thousand levels are an attack on the tree.
pub const TOPIC_MAX_LEVELS: usize = 128;

/// Why a text is no topic name, topic filter or client identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1] [MQTT311-4.7.3-1]
    #[error("it is empty: give it at least one character")]
    Empty,
    /// [MQTT-4.7.3-3], and the bound on client identifiers.
    #[error("it has {bytes} bytes: at most {max_bytes} are accepted")]
    TooLong {
        /// The length that was given.
        bytes: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// [`TOPIC_MAX_LEVELS`]
    #[error("it has more than {TOPIC_MAX_LEVELS} levels: use fewer `/`")]
    TooDeep,
    /// [MQTT-1.5.4-1] [MQTT311-1.5.3-1]
    #[error("it is not UTF-8")]
    NotUtf8,
    /// [MQTT-1.5.4-2, 4.7.3-2] [MQTT311-1.5.3-2, 4.7.3-2]
    #[error("it holds U+0000")]
    Nul,
    /// MQTT 5 §1.5.4, MQTT 3.1.1 §1.5.3: control characters and non-characters may be refused, and are.
    #[error("it holds the control or non-character U+{:04X}", *.0 as u32)]
    Unprintable(char),
    /// [MQTT-3.3.2-2, 4.7.0-1] [MQTT311-3.3.2-2, 4.7.1-1]
    #[error("a topic name has no wildcards: remove `+` and `#`")]
    WildcardInName,
    /// [MQTT-4.7.1-1, -2] [MQTT311-4.7.1-2, -3]
    #[error("a wildcard stands alone in its level, and `#` only in the last")]
    WildcardMisplaced,
    /// [MQTT-4.8.2-1, -2]
    #[error("a shared subscription is `$share/NAME/FILTER`, NAME without `/`, `+`, `#`")]
    Share,
}

/// What names, filters and client identifiers have in common.
fn check_text(text: &str, max_bytes: usize) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > max_bytes {
        return Err(TopicError::TooLong {
            bytes: text.len(),
            max_bytes,
        });
    }
    // Printable ASCII needs no look at characters; it is what nearly every topic is made of.
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    text.chars().try_for_each(check_char)
}

fn check_char(c: char) -> Result<(), TopicError> {
    let code = c as u32;
    let non_character = (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE;
    match c {
        '\0' => Err(TopicError::Nul),
        _ if c.is_control() || non_character => Err(TopicError::Unprintable(c)),
        _ => Ok(()),
    }
}

fn check_levels(text: &str) -> Result<(), TopicError> {
    if text.bytes().filter(|byte| *byte == b'/').count() < TOPIC_MAX_LEVELS {
        Ok(())
    } else {
        Err(TopicError::TooDeep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-4.7.3-2] [MQTT311-4.7.3-2]
    #[test]
    fn control_and_non_characters_are_refused_and_ordinary_text_is_not() {
        for (text, error) in [
            ("a\0", TopicError::Nul),
            ("a\n", TopicError::Unprintable('\n')),
            ("\u{7f}", TopicError::Unprintable('\u{7f}')),
            ("\u{9f}", TopicError::Unprintable('\u{9f}')),
            ("\u{fdd0}", TopicError::Unprintable('\u{fdd0}')),
            ("\u{ffff}", TopicError::Unprintable('\u{ffff}')),
            ("\u{1fffe}", TopicError::Unprintable('\u{1fffe}')),
            ("", TopicError::Empty),
        ] {
            assert_eq!(check_text(text, 10), Err(error), "{text:?}");
        }
        for text in ["a b", "grün", "\u{feff}", "\u{fffd}", "火"] {
            assert_eq!(check_text(text, 10), Ok(()), "{text:?}");
        }
    }
}
