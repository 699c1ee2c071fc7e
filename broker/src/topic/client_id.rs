use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{TopicError, check_text};

/// Longest client identifier in bytes. The standard asks for 23 at least [MQTT-3.1.3-5] [MQTT311-3.1.3-5]; this is what
/// AWS IoT takes.
pub const CLIENT_ID_MAX_BYTES: usize = 128;

/// A client identifier, never empty: where a client sends none, one is assigned before anything else is decided.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The identifier as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        check_text(text, CLIENT_ID_MAX_BYTES)?;
        Ok(Self(text.into()))
    }
}

impl AsRef<str> for ClientId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-3.1.3-5] [MQTT311-3.1.3-5]
    #[test]
    fn identifiers_are_printable_and_bounded() {
        let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for len in 1..=23 {
            for start in 0..=alphabet.len() - len {
                let text = &alphabet[start..start + len];
                assert_eq!(text.parse::<ClientId>().unwrap().as_str(), text);
            }
        }
        assert!("a".repeat(CLIENT_ID_MAX_BYTES).parse::<ClientId>().is_ok());
        assert!(
            "a".repeat(CLIENT_ID_MAX_BYTES + 1)
                .parse::<ClientId>()
                .is_err()
        );
        assert_eq!("".parse::<ClientId>(), Err(TopicError::Empty));
        assert_eq!("a\0".parse::<ClientId>(), Err(TopicError::Nul));
        assert!("a\nb".parse::<ClientId>().is_err());
    }
}
