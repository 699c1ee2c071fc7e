//! The actions a statement can speak of, and sets of them.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::shown::{WORD_MAX_CHARS, nearest, shown};

/// What a device wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Connect under a client id.
    Connect,
    /// Publish to a topic.
    Publish,
    /// Subscribe to a topic filter.
    Subscribe,
    /// Be delivered a message of a topic.
    Receive,
    /// Publish to a topic with the retain flag (asked besides [`Action::Publish`]).
    RetainPublish,
    /// Read a retained message over HTTPS.
    GetRetainedMessage,
    /// List the retained messages over HTTPS.
    ListRetainedMessages,
    /// Read a thing's shadow over HTTPS, as the next three.
    GetThingShadow,
    /// Change a thing's shadow.
    UpdateThingShadow,
    /// Delete a thing's shadow.
    DeleteThingShadow,
    /// List a thing's named shadows.
    ListNamedShadowsForThing,
    /// Read a job execution over HTTPS, as the next three.
    DescribeJobExecution,
    /// List the jobs that wait for a thing.
    GetPendingJobExecutions,
    /// Take the next job.
    StartNextPendingJobExecution,
    /// Report on a job.
    UpdateJobExecution,
    /// Get credentials for a role.
    AssumeRoleWithCertificate,
    /// End a client's connection over HTTPS.
    DeleteConnection,
}

/// The kind of resource that an action acts on, as the first word of an ARN's last field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Client,
    Topic,
    TopicFilter,
    Thing,
    RoleAlias,
    /// The whole field of an ARN of any other kind.
    Other,
    /// No ARN but `*`, of actions that act on everything.
    Everything,
}

impl Kind {
    /// The kinds that an ARN names.
    pub(crate) const NAMED: [Kind; 5] = [
        Kind::Client,
        Kind::Topic,
        Kind::TopicFilter,
        Kind::Thing,
        Kind::RoleAlias,
    ];

    /// What stands before the name in an ARN's last field.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Kind::Client => "client/",
            Kind::Topic => "topic/",
            Kind::TopicFilter => "topicfilter/",
            Kind::Thing => "thing/",
            Kind::RoleAlias => "rolealias/",
            Kind::Other | Kind::Everything => "",
        }
    }

    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Action {
    /// Every action of the language.
    pub const ALL: [Action; 17] = [
        Action::Connect,
        Action::Publish,
        Action::Subscribe,
        Action::Receive,
        Action::RetainPublish,
        Action::GetRetainedMessage,
        Action::ListRetainedMessages,
        Action::GetThingShadow,
        Action::UpdateThingShadow,
        Action::DeleteThingShadow,
        Action::ListNamedShadowsForThing,
        Action::DescribeJobExecution,
        Action::GetPendingJobExecutions,
        Action::StartNextPendingJobExecution,
        Action::UpdateJobExecution,
        Action::AssumeRoleWithCertificate,
        Action::DeleteConnection,
    ];

    /// The name without the service, as in `Publish`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.full_name().trim_start_matches("iot:")
    }

    /// Whether this server ever asks for it; what grants another grants nothing.
    pub(crate) fn is_served(self) -> bool {
        self != Action::AssumeRoleWithCertificate
    }

    /// Whether it is asked over HTTPS, where there is no client id.
    pub(crate) fn is_over_https(self) -> bool {
        !matches!(self, Action::Connect | Action::Subscribe | Action::Receive)
    }

    /// Whether it is asked over MQTT.
    pub(crate) fn is_over_mqtt(self) -> bool {
        matches!(
            self,
            Action::Connect
                | Action::Publish
                | Action::Subscribe
                | Action::Receive
                | Action::RetainPublish
        )
    }

    fn full_name(self) -> &'static str {
        match self {
            Action::Connect => "iot:Connect",
            Action::Publish => "iot:Publish",
            Action::Subscribe => "iot:Subscribe",
            Action::Receive => "iot:Receive",
            Action::RetainPublish => "iot:RetainPublish",
            Action::GetRetainedMessage => "iot:GetRetainedMessage",
            Action::ListRetainedMessages => "iot:ListRetainedMessages",
            Action::GetThingShadow => "iot:GetThingShadow",
            Action::UpdateThingShadow => "iot:UpdateThingShadow",
            Action::DeleteThingShadow => "iot:DeleteThingShadow",
            Action::ListNamedShadowsForThing => "iot:ListNamedShadowsForThing",
            Action::DescribeJobExecution => "iot:DescribeJobExecution",
            Action::GetPendingJobExecutions => "iot:GetPendingJobExecutions",
            Action::StartNextPendingJobExecution => "iot:StartNextPendingJobExecution",
            Action::UpdateJobExecution => "iot:UpdateJobExecution",
            Action::AssumeRoleWithCertificate => "iot:AssumeRoleWithCertificate",
            Action::DeleteConnection => "iot:DeleteConnection",
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Action::Connect | Action::DeleteConnection => Kind::Client,
            Action::Publish
            | Action::Receive
            | Action::RetainPublish
            | Action::GetRetainedMessage => Kind::Topic,
            Action::Subscribe => Kind::TopicFilter,
            Action::ListRetainedMessages => Kind::Everything,
            Action::AssumeRoleWithCertificate => Kind::RoleAlias,
            Action::GetThingShadow
            | Action::UpdateThingShadow
            | Action::DeleteThingShadow
            | Action::ListNamedShadowsForThing
            | Action::DescribeJobExecution
            | Action::GetPendingJobExecutions
            | Action::StartNextPendingJobExecution
            | Action::UpdateJobExecution => Kind::Thing,
        }
    }

    #[inline]
    fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.full_name())
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.full_name())
    }
}

/// A word that is no action of the language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{word:?} is no action of a device: use iot:Connect, iot:Publish, iot:Subscribe, iot:Receive, iot:RetainPublish or one of those over HTTPS{instead}"
)]
pub struct UnknownAction {
    word: String,
    instead: String,
}

pub(crate) fn did_you_mean(nearest: &Option<impl AsRef<str>>) -> String {
    nearest.as_ref().map_or_else(String::new, |word| {
        format!("; did you mean {:?}?", word.as_ref())
    })
}

/// Actions that AWS has added for devices and that nobody asks for here; policies do not take them.
const OF_AWS_ALONE: [&str; 3] = [
    "iot:GetConnection",
    "iot:ListSubscriptions",
    "iot:SendDirectMessage",
];

/// What is to be said of a word that is no action: which is meant, or that AWS alone has it.
pub(crate) fn not_an_action(word: &str) -> String {
    let alone = OF_AWS_ALONE.into_iter().find(|one| {
        let short = one.trim_start_matches("iot:");
        word.eq_ignore_ascii_case(one) || word.eq_ignore_ascii_case(short)
    });
    match alone {
        Some(one) => format!(
            "; {one} is AWS's, and Muster does not serve its operation: leave it out, nobody asks for it here"
        ),
        None => did_you_mean(&nearest_action(word)),
    }
}

fn nearest_action(word: &str) -> Option<&'static str> {
    let full = Action::ALL.map(Action::full_name);
    let short = Action::ALL.map(Action::name);
    nearest(word, &full).or_else(|| {
        let word = nearest(word, &short)?;
        Action::ALL
            .iter()
            .find(|a| a.name() == word)
            .map(|a| a.full_name())
    })
}

impl FromStr for Action {
    type Err = UnknownAction;

    /// Reads `iot:Publish` or `publish`; upper and lower case are one, as in policies.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Action::ALL
            .into_iter()
            .find(|action| {
                text.eq_ignore_ascii_case(action.full_name())
                    || text.eq_ignore_ascii_case(action.name())
            })
            .ok_or_else(|| UnknownAction {
                word: shown(text, WORD_MAX_CHARS),
                instead: not_an_action(text),
            })
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ActionSet(u32);

impl ActionSet {
    #[inline]
    pub(crate) fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every action that is not in the set.
    pub(crate) fn complement(self) -> Self {
        let all = Action::ALL.iter().fold(0, |set, action| set | action.bit());
        Self(all & !self.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The actions that an `Action` value of a statement names: upper and lower case are one,
    /// `*` stands for any characters and `?` for one. Empty when it names none.
    pub(crate) fn named_by(pattern: &str) -> Self {
        let mut set = 0;
        for action in Action::ALL {
            if glob(pattern, action.full_name()) {
                set |= action.bit();
            }
        }
        Self(set)
    }
}

/// Whether `pattern` with `*` and `?` matches the whole of `text`, upper and lower case being
/// one. For the short texts of actions and ARN fields; never recurses, and steps back only to
/// the last star, so at most `pattern × text` steps.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (mut rest, mut left) = (pattern.chars(), text.chars());
    let mut retry = None;
    loop {
        let mut next = rest.clone();
        let mut ahead = left.clone();
        match (next.next(), ahead.next()) {
            (Some('*'), _) => {
                rest = next;
                retry = Some((rest.clone(), left.clone()));
            }
            (None, None) => return true,
            (Some(p), Some(t)) if p == '?' || p.eq_ignore_ascii_case(&t) => {
                (rest, left) = (next, ahead);
            }
            _ => {
                let Some((star, from)) = &mut retry else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                (rest, left) = (star.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings_in_any_case() {
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
            assert_eq!(action.name().to_lowercase().parse(), Ok(action));
        }
        assert_eq!("IOT:publish".parse(), Ok(Action::Publish));
        assert!("iot:*".parse::<Action>().is_err());
        let error = "iot:Pubish".parse::<Action>().unwrap_err().to_string();
        assert!(error.ends_with("did you mean \"iot:Publish\"?"), "{error}");
        let error = "iot:GetConnection"
            .parse::<Action>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("iot:GetConnection is AWS's") && !error.contains("did you mean"));
    }

    #[test]
    fn wildcards_name_sets() {
        let names = |pattern| {
            let set = ActionSet::named_by(pattern);
            Action::ALL
                .into_iter()
                .filter(|a| set.contains(*a))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("*"), Action::ALL);
        assert_eq!(names("iot:*"), Action::ALL);
        assert_eq!(names("iot:Pub*"), [Action::Publish]);
        assert_eq!(
            names("IOT:*PUBLISH"),
            [Action::Publish, Action::RetainPublish]
        );
        assert_eq!(names("iot:?ublish"), [Action::Publish]);
        for none in [
            "",
            "iot:",
            "Publish",
            "iot:Publish ",
            "s3:*",
            "iot:Gat*",
            "iot:Publishx",
        ] {
            assert_eq!(names(none), [], "{none:?}");
        }
    }

    #[test]
    fn glob_is_bounded_on_hostile_patterns() {
        let pattern = "*a".repeat(5_000) + "b";
        assert!(!glob(&pattern, &"a".repeat(5_000)));
        assert!(glob("**a*", "xay"));
        assert!(!glob("a?", "a"));
    }
}
