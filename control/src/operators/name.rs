use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ControlError;

/// Longest operator name.
const MAX_NAME_BYTES: usize = 32;

/// An operator's name: 1 to 32 of a-z, 0-9 and hyphen, beginning with a letter, so that it can
/// be a file's name and stand in a log line as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperatorName(String);

impl OperatorName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperatorName {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let is_name = text.len() <= MAX_NAME_BYTES
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(ControlError::Name(text.chars().take(64).collect()))
        }
    }
}

impl TryFrom<String> for OperatorName {
    type Error = ControlError;

    fn try_from(text: String) -> Result<Self, ControlError> {
        text.parse()
    }
}

impl From<OperatorName> for String {
    fn from(name: OperatorName) -> Self {
        name.0
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_NAME_BYTES, OperatorName};

    #[test]
    fn a_name_is_a_plain_word() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for good in ["admin", "a", "ci-2", &longest] {
            assert!(good.parse::<OperatorName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in [
            "", "-a", "1a", "A", "a/b", "../x", "a b", "ä", "a\n", &too_long,
        ] {
            assert!(bad.parse::<OperatorName>().is_err(), "{bad}");
        }
    }
}
