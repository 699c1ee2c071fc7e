//! Resources of a statement: ARN patterns, read field by field.
//!
//! The fields are told apart before any wildcard is looked at, so a `*` in the region or the
//! account can never reach into the name: `arn:aws:iot:us-east-1:*:client/a` does not match
//! the topic `x:client/a`.

use crate::action::{Kind, glob};
use crate::document::Version;
use crate::error::{PolicyError, Problem};
use crate::json::Text;
use crate::pattern::{Pattern, Token, Variable, VariableSet};
use crate::shown::{WORD_MAX_CHARS, nearest, shown};

/// One `Resource` of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// As written in the document.
    pub(crate) text: Box<str>,
    region: Field,
    account: Field,
    /// Variables that must have a value before this resource matches anything.
    pub(crate) variables: VariableSet,
    /// What is left of the pattern once it has eaten the kind of resource. A wildcard in the
    /// kind (`top*`) leaves several.
    names: Box<[(KindSet, Pattern)]>,
}

/// A field of the ARN that names the realm.
#[derive(Debug, PartialEq, Eq)]
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
    pub(crate) fn read(text: &Text<'_>, version: Version) -> Result<Self, PolicyError> {
        let value = text.value.as_str();
        if !value.is_empty() && value.bytes().all(|b| b == b'*') {
            return Ok(Self {
                text: value.into(),
                region: Field::Any,
                account: Field::Any,
                variables: VariableSet::default(),
                names: residues(&[Token::Star]),
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
        let name_start = value.len() - name.len();
        let tokens = tokens(text, name_start, version)?;
        let names = residues(&tokens);
        if names.is_empty() {
            let kind = name.split_once('/').map_or(name, |(kind, _)| kind);
            let nearest = nearest(kind, &["client", "topic", "topicfilter"]);
            let found = shown(name, WORD_MAX_CHARS);
            return Err(text.error_at(name_start, Problem::UnknownKind { found, nearest }));
        }
        let variables = tokens.iter().filter_map(|token| match token {
            Token::Variable(variable) => Some(*variable),
            _ => None,
        });
        Ok(Self {
            text: value.into(),
            region: Field::new(region),
            account: Field::new(account),
            variables: variables.collect(),
            names,
        })
    }

    /// Whether the ARN's region and account are these; no region stands for any.
    pub(crate) fn is_in(&self, region: Option<&str>, account: &str) -> bool {
        self.account.matches(account) && region.is_none_or(|region| self.region.matches(region))
    }

    /// What the name of a resource of this kind must match (any one of them).
    pub(crate) fn patterns(&self, kind: Kind) -> impl Iterator<Item = &Pattern> {
        self.names
            .iter()
            .filter(move |(kinds, _)| kinds & kind.bit() != 0)
            .map(|(_, p)| p)
    }
}

/// Takes the ARN's last field apart.
fn tokens(text: &Text<'_>, start: usize, version: Version) -> Result<Vec<Token>, PolicyError> {
    let mut tokens = Vec::new();
    let mut kind_ended = false;
    let mut rest = text.value.get(start..).unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let here = text.value.len() - rest.len();
        let mut after = rest.get(c.len_utf8()..).unwrap_or_default();
        let token = match c {
            '*' => Token::Star,
            '?' => Token::One,
            '$' if after.starts_with('{') && version == Version::WithVariables => {
                let Some((reference, behind)) = rest.split_once('}') else {
                    return Err(text.error_at(here, Problem::UnclosedVariable));
                };
                let name = reference.strip_prefix("${").unwrap_or(reference);
                let Some(variable) = Variable::named(name) else {
                    let found = shown(&format!("{reference}}}"), WORD_MAX_CHARS);
                    let nearest = Variable::nearest(name);
                    return Err(text.error_at(here, Problem::UnknownVariable { found, nearest }));
                };
                if !kind_ended {
                    return Err(text.error_at(here, Problem::VariableInKind));
                }
                after = behind;
                Token::Variable(variable)
            }
            c => Token::Char(c),
        };
        // Stars side by side are one: `residues` relies on it for its bound.
        if token != Token::Star || tokens.last() != Some(&Token::Star) {
            tokens.push(token);
        }
        kind_ended |= c == '/';
        rest = after;
    }
    Ok(tokens)
}

/// What each kind's `client/`, `topic/`, `topicfilter/` leaves of the pattern: the positions a
/// pattern can be in after matching that prefix, simulated all at once. At each of its dozen
/// characters at most one token and one star are passed, so the positions are few.
fn residues(tokens: &[Token]) -> Box<[(KindSet, Pattern)]> {
    let mut residues: Vec<(usize, KindSet)> = Vec::new();
    for kind in Kind::ALL {
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
                    // A variable never stands before the prefix's "/" (`tokens` refuses it).
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
    use crate::json::Node;

    fn read(resource: &str) -> Result<Resource, PolicyError> {
        let document = serde_json::to_string(resource).unwrap();
        let node = Node::read(&document).unwrap();
        Resource::read(
            &node.text("Resource", "a string").unwrap(),
            Version::WithVariables,
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
                "arn:aws:iot:local:1:thing/a",
                "column 22: \"thing/a\" is no client/…",
            ),
            ("arn:aws:iot:local:1:topics/a", "did you mean \"topic\"?"),
            ("arn:aws:iot:local:1:Topic/a", "did you mean \"topic\"?"),
            ("arn:aws:iot:local:1:topic", "\"topic\" is no client/…"),
            (
                "arn:aws:iot:local:1:topic/${iot:ClientId",
                "column 28: a variable begins",
            ),
            (
                "arn:aws:iot:local:1:topic/${iot:clientid}",
                "did you mean \"iot:ClientId\"?",
            ),
            (
                "arn:aws:iot:local:1:topic/a${*}",
                "column 29: variable \"${*}\" is not known",
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
            Kind::ALL.map(|kind| resource.patterns(kind).count() > 0)
        };
        assert_eq!(kinds("*"), [true, true, true]);
        assert_eq!(kinds("topic/x"), [false, true, false]);
        assert_eq!(kinds("topic*"), [false, true, true]);
        // The "?" is the slash: this is the topic "/x".
        assert_eq!(kinds("topic?/x"), [false, true, false]);
        assert!(read("arn:aws:iot:local:1:t?/x").is_err());
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
