//! What an operator claims of all devices at once.

use serde::{Deserialize, Serialize};

use super::search::Seek;
use crate::action::Action;
use crate::shown::{NAME_MAX_CHARS, shown};

/// Bytes of the longest topic filter that is claimed about.
const FILTER_MAX_BYTES: usize = 4096;

/// What stands for a device's name in a namespace.
const THING: &str = "${thing}";

/// A claim as it is written down. One of `owned` and `topic` says what about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct InvariantText {
    /// A namespace in which each device has a part of its own, such as `dt/${thing}/#`: no device
    /// reaches the part of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owned: Option<String>,
    /// A topic filter that nobody reaches, or only a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The group whose members alone reach `topic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_group: Option<String>,
    /// What reaching is: `publish`, `subscribe`, `receive`, `getRetainedMessage`, `retainPublish`; the first four
    /// where none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}

/// A claim that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvariantError {
    /// Not one of the forms.
    #[error(
        "a claim names either an owned namespace such as \"dt/${{thing}}/#\" or a topic, with the group that alone reaches it or without: {found}"
    )]
    Form {
        /// What is there instead.
        found: &'static str,
    },
    /// Not a topic filter.
    #[error("topic filter {filter:?} is not understood: {expected}")]
    Filter {
        /// The filter.
        filter: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Not an action on topics.
    #[error(
        "action {found:?} reaches no topic: publish, subscribe, receive, getRetainedMessage or retainPublish"
    )]
    Action {
        /// What was given.
        found: String,
    },
}

/// A claim that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invariant {
    /// The topics, as one or two patterns: `a/#` is also `a`.
    pub(super) wanted: Vec<Vec<Seek>>,
    /// Who may reach them.
    pub(super) only_group: Option<Box<str>>,
    /// Whether the topics are another's.
    pub(super) owned: bool,
    pub(super) actions: Vec<Action>,
}

impl InvariantText {
    /// Reads the claim.
    ///
    /// # Errors
    /// What in it is not understood.
    pub fn read(&self) -> Result<Invariant, InvariantError> {
        let form = |found| Err(InvariantError::Form { found });
        let (filter, owned) = match (&self.owned, &self.topic) {
            (Some(_), Some(_)) => return form("it names both"),
            (None, None) => return form("it names neither"),
            (Some(_), None) if self.only_group.is_some() => {
                return form("it names a group for an owned namespace");
            }
            (Some(filter), None) => (filter, true),
            (None, Some(filter)) => (filter, false),
        };
        let mut actions = Vec::new();
        for word in &self.actions {
            let action = word.parse::<Action>().ok().filter(|action| {
                matches!(
                    action,
                    Action::Publish
                        | Action::Subscribe
                        | Action::Receive
                        | Action::GetRetainedMessage
                        | Action::RetainPublish
                )
            });
            let found = || shown(word, NAME_MAX_CHARS);
            actions.push(action.ok_or_else(|| InvariantError::Action { found: found() })?);
        }
        if actions.is_empty() {
            actions = vec![
                Action::Publish,
                Action::Subscribe,
                Action::Receive,
                Action::GetRetainedMessage,
            ];
        }
        Ok(Invariant {
            wanted: read_filter(filter, owned)?,
            only_group: self.only_group.as_deref().map(Into::into),
            owned,
            actions,
        })
    }
}

impl std::fmt::Display for InvariantText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let actions = match self.actions.is_empty() {
            true => "reaches".to_owned(),
            false => format!("can {}", self.actions.join(" or ")),
        };
        let filter = self.owned.as_ref().or(self.topic.as_ref());
        let filter = shown(filter.map_or("", String::as_str), NAME_MAX_CHARS);
        match (&self.owned, &self.only_group) {
            (Some(_), _) => write!(f, "no device {actions} another's {filter}"),
            (None, Some(group)) => {
                let group = shown(group, NAME_MAX_CHARS);
                write!(f, "no device outside group {group} {actions} {filter}")
            }
            (None, None) => write!(f, "no device {actions} {filter}"),
        }
    }
}

fn read_filter(text: &str, owned: bool) -> Result<Vec<Vec<Seek>>, InvariantError> {
    let wrong = |expected| InvariantError::Filter {
        filter: shown(text, NAME_MAX_CHARS),
        expected,
    };
    if text.is_empty() || text.len() > FILTER_MAX_BYTES {
        return Err(wrong("it has 1 to 4096 bytes"));
    }
    if text.starts_with("$share/") {
        return Err(wrong(
            "leave $share/GROUP/ out: shared subscriptions count anyway",
        ));
    }
    if owned != (text.matches(THING).count() == 1) || text.replace(THING, "").contains("${") {
        return Err(wrong(if owned {
            "an owned namespace holds ${thing} once, as in dt/${thing}/#"
        } else {
            "only an owned namespace holds ${thing}"
        }));
    }
    let mut wanted = Vec::new();
    let levels: Vec<&str> = text.split('/').collect();
    for (index, level) in levels.iter().enumerate() {
        if index > 0 {
            wanted.push(Seek::Char('/'));
        }
        match *level {
            "+" => wanted.push(Seek::Level),
            "#" if index + 1 == levels.len() => wanted.push(Seek::Rest),
            level if level.contains(['+', '#', '\0']) => {
                return Err(wrong("+ fills a level, # the last"));
            }
            level => {
                let mut rest = level;
                while let Some(c) = rest.chars().next() {
                    if let Some(behind) = rest.strip_prefix(THING) {
                        wanted.push(Seek::Other);
                        rest = behind;
                    } else {
                        wanted.push(Seek::Char(c));
                        rest = rest.get(c.len_utf8()..).unwrap_or_default();
                    }
                }
            }
        }
    }
    let parent = match wanted.as_slice() {
        [before @ .., Seek::Char('/'), Seek::Rest] if !before.is_empty() => Some(before.to_vec()),
        _ => None,
    };
    Ok(std::iter::once(wanted).chain(parent).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_or_refused_with_the_mend() {
        let owned = |text: &str| InvariantText {
            owned: Some(text.into()),
            ..InvariantText::default()
        };
        let topic = |text: &str| InvariantText {
            topic: Some(text.into()),
            ..InvariantText::default()
        };
        assert_eq!(owned("dt/${thing}/#").read().unwrap().wanted.len(), 2);
        assert_eq!(topic("a/+/b").read().unwrap().wanted.len(), 1);
        for (text, word) in [
            (InvariantText::default(), "neither"),
            (owned("dt/#"), "${thing} once"),
            (owned("${thing}/${thing}"), "${thing} once"),
            (topic("dt/${thing}/#"), "only an owned"),
            (owned("${thing}/${x}"), "${thing} once"),
            (topic(""), "1 to 4096"),
            (topic("a/#/b"), "# the last"),
            (topic("a+"), "+ fills a level"),
            (topic("$share/g/a"), "leave $share"),
            (
                InvariantText {
                    actions: vec!["connect".into()],
                    ..topic("a")
                },
                "\"connect\" reaches no topic",
            ),
            (
                InvariantText {
                    only_group: Some("g".into()),
                    ..owned("${thing}")
                },
                "group for an owned",
            ),
        ] {
            let error = text.read().unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
