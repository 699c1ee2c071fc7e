//! Questions about things, as AWS IoT's fleet index takes them: `thingName:lamp* AND attributes.site:bonn AND NOT
//! attributes.version:[3 TO 5]`. Pure: text in, an expression that fits a thing or does not. What is not understood
//! whole is refused by name, because a group's policies may hang on it.

mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use crate::{GroupName, Thing, ThingName, ThingTypeName};
use pattern::Pattern;
use std::{cmp::Ordering, collections::BTreeSet, fmt, str::FromStr};

/// Longest query (AWS IoT: 1,000).
pub const QUERY_LIMIT_BYTES: usize = 1_000;
/// Most conditions of one query.
pub const CONDITIONS_LIMIT_ITEMS: usize = 64;
/// Deepest nesting of parentheses and negations.
pub const DEPTH_LIMIT_LEVELS: usize = 16;
/// The version of the language (AWS IoT's).
pub const QUERY_VERSION: &str = "2017-09-30";

/// Why a query was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query refused at character {at}: {reason}")]
pub struct QueryError {
    /// Counted from 1.
    pub at: usize,
    /// What is wrong there, and what would be right.
    pub reason: String,
}

/// A question that has been understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    text: String,
    expression: Expression,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All,
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Condition(Field, Test),
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    /// A word without a field: name, type, groups and attributes.
    Any,
    Name,
    Id,
    Type,
    Groups,
    Version,
    Attribute(String),
    Connected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Is(Pattern),
    Between(Option<Bound>, Option<Bound>),
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    value: String,
    inclusive: bool,
}

/// A thing as a query sees it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The thing.
    pub thing: &'a Thing,
    /// The groups it is in.
    pub groups: &'a BTreeSet<GroupName>,
    /// Whether a session of its is connected; `None` where nobody knows.
    pub connected: Option<bool>,
}

/// Where all things that fit can be found without looking at every one there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Narrow {
    /// It is this one, if any.
    One(ThingName),
    /// Their names begin so.
    Name(String),
    /// They are in this group.
    Group(GroupName),
    /// They are of this type.
    Type(ThingTypeName),
    /// Anywhere.
    All,
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        Ok(Query {
            expression: parse::expression(text)?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Query {
    /// Whether a thing is one that is asked for.
    pub fn fits(&self, subject: &Subject<'_>) -> bool {
        self.expression.fits(subject)
    }

    /// Whether it asks who is connected, which no row of the registry says.
    pub fn asks_connectivity(&self) -> bool {
        self.expression
            .any(&mut |field| matches!(field, Field::Connected))
    }

    /// Whether what groups a thing is in can decide.
    pub(crate) fn asks_groups(&self) -> bool {
        self.expression
            .any(&mut |field| matches!(field, Field::Groups | Field::Any))
    }

    /// The first group that it names and that is wanted.
    pub(crate) fn names_group(&self, wanted: impl Fn(&str) -> bool) -> Option<&str> {
        self.expression.group_named(&wanted)
    }

    pub(crate) fn narrow(&self) -> Narrow {
        let conditions: Vec<&Expression> = match &self.expression {
            Expression::And(all) => all.iter().collect(),
            one => vec![one],
        };
        let mut best = Narrow::All;
        for condition in conditions {
            let Expression::Condition(field, Test::Is(pattern)) = condition else {
                continue;
            };
            match field {
                Field::Name if !pattern.prefix().is_empty() => {
                    let exact = pattern.exact().and_then(|name| name.parse().ok());
                    return match exact {
                        Some(name) => Narrow::One(name),
                        None => Narrow::Name(pattern.prefix().to_owned()),
                    };
                }
                Field::Groups => {
                    if let Some(name) = pattern.exact().and_then(|name| name.parse().ok()) {
                        best = Narrow::Group(name);
                    }
                }
                Field::Type if best == Narrow::All => {
                    if let Some(name) = pattern.exact().and_then(|name| name.parse().ok()) {
                        best = Narrow::Type(name);
                    }
                }
                _ => {}
            }
        }
        best
    }
}

impl Expression {
    fn fits(&self, subject: &Subject<'_>) -> bool {
        match self {
            Expression::All => true,
            Expression::And(all) => all.iter().all(|one| one.fits(subject)),
            Expression::Or(any) => any.iter().any(|one| one.fits(subject)),
            Expression::Not(one) => !one.fits(subject),
            Expression::Condition(field, test) => field.fits(test, subject),
        }
    }

    fn group_named(&self, wanted: &dyn Fn(&str) -> bool) -> Option<&str> {
        match self {
            Expression::And(these) | Expression::Or(these) => {
                these.iter().find_map(|one| one.group_named(wanted))
            }
            Expression::Not(one) => one.group_named(wanted),
            Expression::Condition(Field::Groups, Test::Is(pattern)) => {
                pattern.exact().filter(|name| wanted(name))
            }
            Expression::All | Expression::Condition(..) => None,
        }
    }

    fn any(&self, wanted: &mut dyn FnMut(&Field) -> bool) -> bool {
        match self {
            Expression::All => false,
            Expression::And(these) | Expression::Or(these) => {
                these.iter().any(|one| one.any(wanted))
            }
            Expression::Not(one) => one.any(wanted),
            Expression::Condition(field, _) => wanted(field),
        }
    }
}

impl Field {
    fn fits(&self, test: &Test, subject: &Subject<'_>) -> bool {
        let thing = subject.thing;
        let type_name = || thing.type_name.as_ref().map(ThingTypeName::as_str);
        match self {
            Field::Name => test.holds(thing.name.as_str()),
            Field::Id => test.holds(&thing.id()),
            Field::Type => type_name().is_some_and(|name| test.holds(name)),
            Field::Groups => subject.groups.iter().any(|name| test.holds(name.as_str())),
            Field::Version => test.holds(&thing.version.to_string()),
            Field::Attribute(name) => {
                let value = thing.attributes.get(name);
                value.is_some_and(|value| test.holds(value))
            }
            Field::Connected => match subject.connected {
                Some(true) => test.holds("true"),
                Some(false) => test.holds("false"),
                None => false,
            },
            Field::Any => {
                test.holds(thing.name.as_str())
                    || type_name().is_some_and(|name| test.holds(name))
                    || subject.groups.iter().any(|name| test.holds(name.as_str()))
                    || thing.attributes.values().any(|value| test.holds(value))
            }
        }
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Test::Is(pattern) => pattern.matches(value),
            Test::Between(low, high) => {
                low.as_ref().is_none_or(|low| low.is_below(value))
                    && high.as_ref().is_none_or(|high| high.is_above(value))
            }
        }
    }
}

impl Bound {
    fn is_below(&self, value: &str) -> bool {
        self.admits(compare(&self.value, value), Ordering::Less)
    }

    fn is_above(&self, value: &str) -> bool {
        self.admits(compare(&self.value, value), Ordering::Greater)
    }

    fn admits(&self, found: Option<Ordering>, wanted: Ordering) -> bool {
        found == Some(wanted) || (self.inclusive && found == Some(Ordering::Equal))
    }
}

/// Numbers as numbers, texts as texts, and nothing between one and the other.
fn compare(bound: &str, value: &str) -> Option<Ordering> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
    match (number(bound), number(value)) {
        (Some(bound), Some(value)) => bound.partial_cmp(&value),
        (None, None) => Some(bound.cmp(value)),
        _ => None,
    }
}
