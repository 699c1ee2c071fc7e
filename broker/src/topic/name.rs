use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use bytes::Bytes;
use bytes_utils::Str;

use super::{TOPIC_MAX_BYTES, TopicError, check_levels, check_text};

/// The topic a message is published to: no wildcard, no control character, bounded length and depth.
///
/// Cheap to clone. A name that was decoded from the wire shares the read buffer; [`TopicName::detached`] copies it out
/// where it is kept for long.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicName(Str);

impl TopicName {
    /// Takes shared bytes without copying them.
    ///
    /// # Errors
    /// Says which rule of the standard the bytes break.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, TopicError> {
        let text = Str::from_inner(bytes).map_err(|_| TopicError::NotUtf8)?;
        check_text(&text, TOPIC_MAX_BYTES)?;
        if text.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Err(TopicError::WildcardInName);
        }
        check_levels(&text)?;
        Ok(Self(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels between the slashes; `/a` has two, the first empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('/')
    }

    /// A copy that keeps no read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Str::from(self.as_str()))
    }
}

impl FromStr for TopicName {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }
}

/// As its text, by which it is looked for.
impl Hash for TopicName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::TOPIC_MAX_LEVELS;
    use super::*;

    fn parse(text: &str) -> Result<TopicName, TopicError> {
        text.parse()
    }

    /// [MQTT-3.3.2-2, 4.7.0-1, 4.7.3-1] [MQTT311-3.3.2-2, 4.7.1-1, 4.7.3-1]
    #[test]
    fn names_follow_the_standard() {
        for good in ["a", "/", "/a", "a/", "a//b", "$aws/things/x", "a b", "ü/ß"] {
            assert_eq!(parse(good).unwrap().as_str(), good);
        }
        assert_eq!(parse(""), Err(TopicError::Empty));
        for bad in ["a/+", "#", "a+b", "a#"] {
            assert_eq!(parse(bad), Err(TopicError::WildcardInName));
        }
        assert_eq!(
            TopicName::from_bytes(Bytes::from_static(&[0xc3, 0x28])),
            Err(TopicError::NotUtf8)
        );
    }

    /// [MQTT-4.7.3-3] [MQTT311-4.7.3-3]
    #[test]
    fn length_and_depth_hold_at_the_bound_and_not_past_it() {
        assert!(parse(&"a".repeat(TOPIC_MAX_BYTES)).is_ok());
        assert!(parse(&"a".repeat(TOPIC_MAX_BYTES + 1)).is_err());
        assert!(parse(&"/".repeat(TOPIC_MAX_LEVELS - 1)).is_ok());
        assert_eq!(
            parse(&"/".repeat(TOPIC_MAX_LEVELS)),
            Err(TopicError::TooDeep)
        );
    }

    #[test]
    fn a_decoded_name_shares_its_buffer_and_a_detached_one_does_not() {
        let buffer = Bytes::from(b"dt/lamp-1".to_vec());
        let name = TopicName::from_bytes(buffer.clone()).unwrap();
        assert_eq!(name.as_str().as_ptr(), buffer.as_ptr());
        assert_ne!(name.detached().as_str().as_ptr(), buffer.as_ptr());
        assert_eq!(name.detached(), name);
    }
}
