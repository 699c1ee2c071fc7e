//! The name of a policy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::shown::{WORD_MAX_CHARS, shown};

/// Bytes in the longest policy name (all of them ASCII).
const NAME_MAX_BYTES: usize = 128;

/// A policy's name: `[\w+=,.@-]{1,128}`, as in the AWS IoT API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName(Box<str>);

impl PolicyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that cannot name a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no policy name: use 1 to 128 of the letters A-Z a-z, the digits and _ + = , . @ -"
)]
pub struct InvalidPolicyName(String);

impl FromStr for PolicyName {
    type Err = InvalidPolicyName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
        if (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPolicyName(shown(text, WORD_MAX_CHARS)))
        }
    }
}

impl TryFrom<String> for PolicyName {
    type Error = InvalidPolicyName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for PolicyName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_api_alphabet_up_to_the_bound() {
        assert!("device-default".parse::<PolicyName>().is_ok());
        assert!("aZ_0+=,.@-".parse::<PolicyName>().is_ok());
        assert!("a".repeat(NAME_MAX_BYTES).parse::<PolicyName>().is_ok());
        assert!(
            "a".repeat(NAME_MAX_BYTES + 1)
                .parse::<PolicyName>()
                .is_err()
        );
        for bad in ["", "a b", "a/b", "..\\", "é", "a\n", "a\0"] {
            assert!(bad.parse::<PolicyName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn serde_does_not_go_round_the_check() {
        let name: PolicyName = serde_json::from_str("\"fleet.read\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"fleet.read\"");
        assert!(serde_json::from_str::<PolicyName>("\"a/b\"").is_err());
    }
}
