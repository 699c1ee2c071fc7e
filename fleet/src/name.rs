//! Names of things and groups: types that cannot hold an invalid one.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// Longest thing or group name, in characters (AWS IoT: `[a-zA-Z0-9:_-]{1,128}`).
pub(crate) const NAME_LIMIT_CHARS: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a {what} name may not be empty")]
    Empty {
        /// `thing`, `thing type` or `group`.
        what: &'static str,
    },
    /// The name is longer than [`NAME_LIMIT_CHARS`].
    #[error("a {what} name has at most {NAME_LIMIT_CHARS} characters; this one has {len}")]
    TooLong {
        /// `thing`, `thing type` or `group`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The name holds a character that is not allowed.
    #[error(
        "a {what} name has letters a-z and A-Z, digits, '-', '_' and ':' only; {name:?} has {found:?}"
    )]
    BadCharacter {
        /// `thing`, `thing type` or `group`.
        what: &'static str,
        /// The name as given.
        name: String,
        /// The first character refused.
        found: char,
    },
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name.len() > NAME_LIMIT_CHARS {
        return Err(NameError::TooLong {
            what,
            len: name.len(),
        });
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':')))
    {
        Some(found) => Err(NameError::BadCharacter {
            what,
            name: name.to_owned(),
            found,
        }),
        None => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

name_type!(
    /// The name of a thing: a device in the registry, and the client id it connects with.
    ThingName,
    "thing"
);
name_type!(
    /// The name of a thing type.
    ThingTypeName,
    "thing type"
);
name_type!(
    /// The name of a static thing group.
    GroupName,
    "group"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_aws_takes() {
        for good in ["lamp-1", "a", "A:b_c-9", &"x".repeat(NAME_LIMIT_CHARS)] {
            assert_eq!(good.parse::<ThingName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn refuses_what_could_be_mistaken_in_a_topic_path_or_policy() {
        for bad in [
            "",
            "a/b",
            "a+",
            "#",
            "a b",
            "ä",
            "..",
            "a\0",
            "${x}",
            "*",
            "?",
            &"x".repeat(NAME_LIMIT_CHARS + 1),
        ] {
            assert!(bad.parse::<ThingName>().is_err(), "{bad:?}");
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stored_name_is_checked_again_when_read() {
        assert!(serde_json::from_str::<ThingName>("\"a/b\"").is_err());
    }
}
