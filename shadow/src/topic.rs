//! The topics of shadows: `$aws/things/<thing>/shadow/<verb>` of the classic one,
//! `$aws/things/<thing>/shadow/name/<name>/<verb>` of one with a name.

use std::fmt;
use std::str::FromStr;

const BEGIN: &str = "$aws/things/";
const SHADOW: &str = "/shadow/";
/// Longest name of a shadow.
const NAME_MAX_BYTES: usize = 64;

/// The name of a shadow: 1 to 64 letters, digits, `$`, `:`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShadowName(String);

/// A name that no shadow has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a shadow has 1 to 64 letters, digits, $, :, _ and -")]
pub struct NotAName;

impl ShadowName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShadowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShadowName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'$' | b':' | b'_' | b'-');
        let right = (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(fits);
        right.then(|| Self(text.to_owned())).ok_or(NotAName)
    }
}

/// What is asked of a shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// To tell it.
    Get,
    /// To change it.
    Update,
    /// To delete it.
    Delete,
}

impl Verb {
    /// As it stands in topics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Update => "update",
            Verb::Delete => "delete",
        }
    }
}

/// One shadow of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The thing, as it was written.
    pub thing: String,
    /// `None` for the classic one.
    pub name: Option<ShadowName>,
}

impl Place {
    /// A topic of this shadow, such as that of `update/accepted`.
    #[must_use]
    pub fn topic(&self, end: &str) -> String {
        match &self.name {
            None => format!("{BEGIN}{}{SHADOW}{end}", self.thing),
            Some(name) => format!("{BEGIN}{}{SHADOW}name/{name}/{end}", self.thing),
        }
    }
}

impl fmt::Display for Place {
    /// As AWS names it in errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.thing)?;
        match &self.name {
            None => Ok(()),
            Some(name) => write!(f, "~{name}"),
        }
    }
}

/// Whether a topic is one of shadows, understood or not.
#[must_use]
pub fn is_ours(topic: &str) -> bool {
    split(topic).is_some()
}

/// The thing, and what stands behind `shadow/`.
fn split(topic: &str) -> Option<(&str, &str)> {
    let (thing, rest) = topic.strip_prefix(BEGIN)?.split_once('/')?;
    Some((thing, rest.strip_prefix("shadow/")?))
}

/// The shadow that a request is about, and what it asks; `None` for a topic that nobody publishes requests to.
#[must_use]
pub fn read(topic: &str) -> Option<(Place, Verb)> {
    let (thing, rest) = split(topic)?;
    let (name, verb) = match rest.strip_prefix("name/") {
        Some(named) => {
            let (name, verb) = named.split_once('/')?;
            (Some(name.parse().ok()?), verb)
        }
        None => (None, rest),
    };
    let verb = match verb {
        "get" => Verb::Get,
        "update" => Verb::Update,
        "delete" => Verb::Delete,
        _ => return None,
    };
    let thing = thing.to_owned();
    Some((Place { thing, name }, verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_everything_else() {
        for (topic, name, verb) in [
            ("$aws/things/lamp-1/shadow/get", None, Verb::Get),
            (
                "$aws/things/lamp-1/shadow/name/a$b:_-1/update",
                Some("a$b:_-1"),
                Verb::Update,
            ),
            (
                "$aws/things/lamp-1/shadow/name/get/delete",
                Some("get"),
                Verb::Delete,
            ),
        ] {
            let (place, read) = read(topic).unwrap();
            assert_eq!(
                (place.name.as_ref().map(ShadowName::as_str), read),
                (name, verb)
            );
            assert_eq!(place.topic(verb.as_str()), topic);
            assert!(is_ours(topic));
        }
        for topic in [
            "$aws/things/lamp-1/shadow/update/accepted",
            "$aws/things/lamp-1/shadow/name/a/get/accepted",
            "$aws/things/lamp-1/shadow/name/a",
            "$aws/things/lamp-1/shadow/name//get",
            "$aws/things/lamp-1/shadow/name/a.b/get",
            "$aws/things/lamp-1/shadow/",
        ] {
            assert!(is_ours(topic) && read(topic).is_none(), "{topic}");
        }
        for topic in [
            "$aws/things/lamp-1/jobs/get",
            "$aws/things/shadow/get",
            "dt/shadow/get",
        ] {
            assert!(!is_ours(topic), "{topic}");
        }
        assert!("x".repeat(64).parse::<ShadowName>().is_ok());
        for wrong in ["", "a/b", "a b", &"x".repeat(65)] {
            assert_eq!(wrong.parse::<ShadowName>(), Err(NotAName));
        }
    }
}
