//! Resources of a statement: ARN patterns, read field by field.
//!
//! The fields are told apart before any wildcard is looked at, so a `*` in the region or the
//! account can never reach into the name: `arn:aws:iot:us-east-1:*:client/a` does not match
//! the topic `x:client/a`.

use crate::action::{Kind, glob};
use crate::coverage;
use crate::document::Dialect;
use crate::error::{PolicyError, Problem};
use crate::json::Text;
use crate::pattern::{Pattern, Token, Values};
use crate::shown::{WORD_MAX_CHARS, nearest, shown};
use crate::tokens::{Variable, tokens};

/// One `Resource` of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// As written in the document.
    pub(crate) text: Box<str>,
    region: Field,
    account: Field,
    /// Variables that must have a value before this resource matches anything, by number.
    pub(crate) variables: Box<[u16]>,
    /// What is left of the pattern once it has eaten the kind of resource. A wildcard in the
    /// kind (`top*`) leaves several.
    names: Box<[(KindSet, Pattern)]>,
}

/// A field of the ARN that names the realm.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Any,
    Literal(Box<str>),
    Glob(Box<str>),
}

type KindSet = u8;

impl Field {
    fn new(pattern: &str) -> Self {
        if pattern.bytes().all(|b| b == b'*') {
            Field::Any
        } else if pattern.contains(['*', '?']) {
            Field::Glob(pattern.into())
        } else {
            Field::Literal(pattern.into())
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Field::Any => true,
            Field::Literal(literal) => **literal == *text,
            Field::Glob(pattern) => glob(pattern, text),
        }
    }
}

impl Resource {
    /// Reads one `Resource` string.
    pub(crate) fn read(
        text: &Text<'_>,
        dialect: Dialect,
        variables: &mut Vec<Variable>,
    ) -> Result<Self, PolicyError> {
        let value = text.value.as_str();
        if !value.is_empty() && value.bytes().all(|b| b == b'*') {
            return Ok(Self {
                text: value.into(),
                region: Field::Any,
                account: Field::Any,
                variables: Box::default(),
                names: Box::new([(KindSet::MAX, Pattern::compile(&[Token::Star]))]),
            });
        }
        let not_an_arn = || {
            text.error(Problem::NotAnArn {
                found: text.shown(),
            })
        };
        let mut fields = value.splitn(6, ':');
        let mut field = || fields.next().ok_or_else(not_an_arn);
        let (scheme, partition, service) = (field()?, field()?, field()?);
        let (region, account, name) = (field()?, field()?, field()?);
        if scheme != "arn" {
            return Err(not_an_arn());
        }
        let field_error = |field, found, expected| {
            let found = shown(found, WORD_MAX_CHARS);
            text.error(Problem::ArnField {
                field,
                found,
                expected,
            })
        };
        if !dialect.lenient {
            if !glob(partition, "aws") {
                return Err(field_error("partition", partition, "aws"));
            }
            if !glob(service, "iot") {
                return Err(field_error("service", service, "iot"));
            }
            let spelt = |field: &str, allowed: fn(u8) -> bool| {
                !field.is_empty() && field.bytes().all(|b| allowed(b) || b == b'*' || b == b'?')
            };
            if !spelt(region, |b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
            }) {
                return Err(field_error("region", region, "one like us-east-1 or local"));
            }
            if !spelt(account, |b| b.is_ascii_digit()) {
                return Err(field_error(
                    "account",
                    account,
                    "the digits of an account id",
                ));
            }
        }
        let name_start = value.len() - name.len();
        let mut tokens = tokens(text, name_start, dialect, variables)?;
        // Stars side by side are one: `residues` relies on it for its bound.
        tokens.dedup_by(|next, last| *next == Token::Star && *last == Token::Star);
        let kind_end = tokens.iter().position(|token| *token == Token::Char('/'));
        let in_kind = tokens
            .get(..kind_end.unwrap_or(tokens.len()))
            .unwrap_or_default();
        let variable_in_kind = in_kind.iter().any(|t| matches!(t, Token::Variable(_)));
        if variable_in_kind && !dialect.lenient {
            let at = name_start + name.find("${").unwrap_or_default();
            return Err(text.error_at(at, Problem::VariableInKind));
        }
        let foreign = !glob(partition, "aws") || !glob(service, "iot");
        let names = if variable_in_kind || foreign {
            Box::default()
        } else {
            // Of `t*?` the `?` may stand in the kind: what is left then is a `*`.
            residues(&coverage::spread(&tokens))
        };
        if names.is_empty() && !dialect.lenient {
            let kind = name.split_once('/').map_or(name, |(kind, _)| kind);
            let known = Kind::NAMED.map(|kind| kind.prefix().trim_end_matches('/'));
            let nearest = nearest(kind, &known);
            let found = shown(name, WORD_MAX_CHARS);
            return Err(text.error_at(name_start, Problem::UnknownKind { found, nearest }));
        }
        let mut names = names.into_vec();
        let open = in_kind.iter().any(|t| !matches!(t, Token::Char(_)));
        if dialect.lenient && !foreign && (names.is_empty() || open) {
            names.push((Kind::Other.bit(), Pattern::compile(&tokens)));
        }
        let mut held = Vec::new();
        for token in &tokens {
            if let Token::Variable(variable) = token
                && !held.contains(variable)
            {
                held.push(*variable);
            }
        }
        Ok(Self {
            text: value.into(),
            region: Field::new(region),
            account: Field::new(account),
            variables: held.into(),
            names: names.into(),
        })
    }

    /// Whether the ARN's region and account are these; no region stands for any.
    #[inline]
    pub(crate) fn is_in(&self, region: Option<&str>, account: &str) -> bool {
        self.account.matches(account) && region.is_none_or(|region| self.region.matches(region))
    }

    /// Whether each of its variables has a value.
    pub(crate) fn is_resolved(&self, values: Values<'_>) -> bool {
        self.values(values).all(|value| value.is_some())
    }

    /// Whether a value in it would be a wildcard to MQTT.
    pub(crate) fn holds_mqtt_wild(&self, values: Values<'_>) -> bool {
        self.values(values)
            .flatten()
            .any(|value| value.contains(['+', '#']))
    }

    fn values<'v>(&self, values: Values<'v>) -> impl Iterator<Item = Option<&'v str>> {
        let value = move |variable: &u16| values.get(usize::from(*variable))?.as_deref();
        self.variables.iter().map(value)
    }

    /// The same resource with a star for each variable that has no value.
    pub(crate) fn opened(&self, values: Values<'_>) -> Self {
        let opened = |(kinds, pattern): &(KindSet, Pattern)| (*kinds, pattern.opened(values));
        Self {
            text: self.text.clone(),
            region: self.region.clone(),
            account: self.account.clone(),
            variables: self.variables.clone(),
            names: self.names.iter().map(opened).collect(),
        }
    }

    /// What names must match, whatever their kind.
    pub(crate) fn all_patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.names.iter().map(|(_, pattern)| pattern)
    }

    /// What the name of a resource of this kind must match (any one of them).
    #[inline]
    pub(crate) fn patterns(&self, kind: Kind) -> impl Iterator<Item = &Pattern> {
        self.names
            .iter()
            .filter(move |(kinds, _)| kinds & kind.bit() != 0)
            .map(|(_, p)| p)
    }
}

/// What each kind's `client/`, `topic/`, `topicfilter/` leaves of the pattern: the positions a
/// pattern can be in after matching that prefix, simulated all at once. At each of its dozen
/// characters at most one token and one star are passed, so the positions are few.
fn residues(tokens: &[Token]) -> Box<[(KindSet, Pattern)]> {
    let mut residues: Vec<(usize, KindSet)> = Vec::new();
    for kind in Kind::NAMED {
        let mut positions = vec![0];
        for c in kind.prefix().chars() {
            let mut next = Vec::new();
            for mut position in positions {
                // A star may stay where it is, or be done: then the token behind it is asked too.
                while let Some(Token::Star) = tokens.get(position) {
                    insert(&mut next, position);
                    position += 1;
                }
                match tokens.get(position) {
                    Some(Token::One) => insert(&mut next, position + 1),
                    Some(Token::Char(t)) if *t == c => insert(&mut next, position + 1),
                    // A variable never stands before the prefix's "/" (`read` refuses it).
                    _ => {}
                }
            }
            positions = next;
        }
        for position in positions {
            match residues.iter_mut().find(|(p, _)| *p == position) {
                Some((_, kinds)) => *kinds |= kind.bit(),
                None => residues.push((position, kind.bit())),
            }
        }
    }
    let compiled = |(position, kinds)| {
        (
            kinds,
            Pattern::compile(tokens.get(position..).unwrap_or_default()),
        )
    };
    residues.into_iter().map(compiled).collect()
}

fn insert(positions: &mut Vec<usize>, position: usize) {
    if !positions.contains(&position) {
        positions.push(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Version;
    use crate::json::Node;

    fn read(resource: &str) -> Result<Resource, PolicyError> {
        let document = serde_json::to_string(resource).unwrap();
        let node = Node::read(&document).unwrap();
        Resource::read(
            &node.text("Resource", "a string").unwrap(),
            Dialect {
                version: Version::WithVariables,
                lenient: false,
            },
            &mut Vec::new(),
        )
    }

    fn message(resource: &str) -> String {
        read(resource).expect_err(resource).to_string()
    }

    #[test]
    fn fields_are_matched_one_by_one() {
        let resource = read("arn:aws:iot:eu-*:1?3:topic/a").unwrap();
        assert!(resource.is_in(Some("eu-west-1"), "123"));
        assert!(resource.is_in(None, "123"));
        assert!(!resource.is_in(Some("us-east-1"), "123"));
        assert!(!resource.is_in(None, "1234"));
        assert!(read("*").unwrap().is_in(Some("x"), "y"));
        assert!(read("arn:*:i?t:*:*:topic/*").unwrap().is_in(Some("x"), "y"));
    }

    #[test]
    fn what_is_no_device_resource_is_refused_with_its_place() {
        for (resource, expected) in [
            ("", "resource \"\" is not understood"),
            ("topic/a", "resource \"topic/a\" is not understood"),
            (
                "arn:aws:iot:*",
                "is not understood: write \"*\" or arn:aws:iot:REGION:ACCOUNT",
            ),
            ("arn:aws:iot:us-east-1:*topic/a", "is not understood"),
            ("urn:aws:iot:local:1:topic/a", "is not understood"),
            ("arn:aws-cn:iot:local:1:topic/a", "partition \"aws-cn\""),
            ("arn:aws:s3:local:1:topic/a", "service \"s3\""),
            ("arn:aws:iot::1:topic/a", "region \"\""),
            ("arn:aws:iot:US:1:topic/a", "region \"US\""),
            ("arn:aws:iot:local::topic/a", "account \"\""),
            (
                "arn:aws:iot:local:<account>:topic/a",
                "account \"<account>\"",
            ),
            (
                "arn:aws:iot:local:1:job/a",
                "column 22: \"job/a\" is no client/…",
            ),
            ("arn:aws:iot:local:1:topics/a", "did you mean \"topic\"?"),
            ("arn:aws:iot:local:1:Topic/a", "did you mean \"topic\"?"),
            ("arn:aws:iot:local:1:topic", "\"topic\" is no client/…"),
            (
                "arn:aws:iot:local:1:topic/${iot:ClientId",
                "column 28: a variable begins",
            ),
            (
                "arn:aws:iot:local:1:topic/${iot:clientidd}",
                "did you mean \"iot:ClientId\"?",
            ),
            (
                "arn:aws:iot:local:1:topic/a${+}",
                "column 29: variable \"${+}\" is not known",
            ),
            (
                "arn:aws:iot:local:1:topic/${${iot:ClientId}}",
                "is not known",
            ),
            (
                "arn:aws:iot:local:1:*${iot:ClientId}",
                "column 23: a variable stands before",
            ),
        ] {
            let message = message(resource);
            assert!(message.contains(expected), "{resource}: {message}");
        }
    }

    #[test]
    fn a_wildcard_in_the_kind_leaves_every_name_it_could() {
        let kinds = |resource: &str| {
            let resource = read(&format!("arn:aws:iot:local:1:{resource}")).unwrap();
            [Kind::Client, Kind::Topic, Kind::TopicFilter]
                .map(|kind| resource.patterns(kind).count() > 0)
        };
        assert_eq!(kinds("*"), [true, true, true]);
        assert_eq!(kinds("topic/x"), [false, true, false]);
        assert_eq!(kinds("topic*"), [false, true, true]);
        // The "?" is the slash: this is the topic "/x".
        assert_eq!(kinds("topic?/x"), [false, true, false]);
        assert!(read("arn:aws:iot:local:1:t?/x").is_err());
        assert!(read("*").unwrap().patterns(Kind::Everything).count() > 0);
        let all = read("arn:aws:iot:local:1:*").unwrap();
        assert_eq!(all.patterns(Kind::Everything).count(), 0);
        assert!(all.patterns(Kind::Thing).count() > 0);
    }

    #[test]
    fn stars_without_number_cost_no_more_than_one() {
        let stars = "*".repeat(60_000);
        let resource = read(&format!("arn:aws:iot:local:1:{stars}t{stars}x")).unwrap();
        assert!(resource.patterns(Kind::Topic).count() <= 3);
        let mixed = "*?".repeat(30_000);
        let resource = read(&format!("arn:aws:iot:local:1:{mixed}")).unwrap();
        assert!(resource.patterns(Kind::Topic).count() <= 2 * "topicfilter/".len());
    }
}
