//! The `Condition` of a statement: what must hold of a connection for the statement to count.
//!
//! Nearly everything a condition asks is known when a connection's grant is made, so conditions
//! are judged then and cost a message nothing. Time goes on: [`Condition::turns`] says when a
//! condition on it may come out otherwise. And what is asked of a message is judged with it.

use std::fmt;
use std::sync::Arc;

use crate::context::{Context, MessageFacts};
use crate::document::{Dialect, Effect};
use crate::error::{PolicyError, Problem};
use crate::json::{Node, Text};
use crate::key::Key;
use crate::operator::{Family, OPERATORS, Operator, Quantifier};
use crate::own::{Own, time_of_day};
use crate::shown::{WORD_MAX_CHARS, nearest, shown};
use crate::values::{Comparison, Network, Number, Template, date, number};

/// One operator on one key with its values.
#[derive(Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) operator: Operator,
    pub(crate) key: Key,
    values: Values,
}

#[derive(Debug, PartialEq)]
enum Values {
    Texts(Box<[Template]>),
    /// Six fields each, or one star for any.
    Arns(Box<[Box<[Template]>]>),
    Numbers(Box<[Number]>),
    /// Nanoseconds since 1970.
    Dates(Box<[i128]>),
    Bytes(Box<[Box<[u8]>]>),
    Networks(Box<[Network]>),
    Flags(Box<[bool]>),
}

/// Reads a `Condition` element.
pub(crate) fn read(node: &Node<'_>, dialect: Dialect) -> Result<Box<[Condition]>, PolicyError> {
    const OF: &str = "Condition";
    let mut conditions = Vec::new();
    let mut seen = Vec::new();
    for member in node.members(OF, "an object of operators")? {
        let operator = Operator::named(&member.key).ok_or_else(|| {
            member.key_node.error(Problem::UnknownOperator {
                found: shown(&member.key, WORD_MAX_CHARS),
                nearest: nearest_operator(&member.key),
            })
        })?;
        if seen.contains(&member.key) {
            let key = shown(&member.key, WORD_MAX_CHARS);
            return Err(member.key_node.error(Problem::DuplicateKey { of: OF, key }));
        }
        seen.push(member.key);
        let mut keys = Vec::new();
        for member in member
            .value
            .members("an operator of Condition", "an object of condition keys")?
        {
            // A slip in one of Muster's own is a slip in a test file, too.
            let foreign = || {
                let other = dialect.lenient && !Key::is_own(&member.key);
                other.then(|| Key::Foreign(member.key.as_str().into()))
            };
            let key = Key::named(&member.key).or_else(foreign).ok_or_else(|| {
                member.key_node.error(Problem::UnknownConditionKey {
                    found: shown(&member.key, WORD_MAX_CHARS),
                    nearest: Key::nearest(&member.key),
                })
            })?;
            if keys.contains(&key) {
                let key = shown(&member.key, WORD_MAX_CHARS);
                let of = "an operator of Condition";
                return Err(member.key_node.error(Problem::DuplicateKey { of, key }));
            }
            let timeless = !matches!(
                operator.family,
                Family::Date(_) | Family::Numeric(_) | Family::Null
            );
            if matches!(key, Key::CurrentTime | Key::EpochTime) && timeless && !dialect.lenient {
                let key = key.to_string();
                return Err(member.key_node.error(Problem::TimeAsText { key }));
            }
            if let Key::Own(own) = &key
                && let Some(expected) = own.mismatch(operator.family)
            {
                let (key, operator) = (key.to_string(), operator.to_string());
                return Err(member.key_node.error(Problem::OperatorOfKey {
                    key,
                    operator,
                    expected,
                }));
            }
            let values = Values::read(operator, &key, &member.value, dialect)?;
            conditions.push(Condition {
                operator,
                key: key.clone(),
                values,
            });
            keys.push(key);
        }
    }
    Ok(conditions.into())
}

fn nearest_operator(word: &str) -> Option<String> {
    let (quantifier, rest) = match word.split_once(':') {
        Some((quantifier, rest)) => {
            let quantifier = nearest(quantifier, &["ForAllValues", "ForAnyValue"])?;
            (format!("{quantifier}:"), rest)
        }
        None => (String::new(), word),
    };
    let (base, suffix) = match rest.len().checked_sub("IfExists".len()) {
        Some(at) if rest.is_char_boundary(at) => {
            let (base, suffix) = rest.split_at(at);
            if suffix.eq_ignore_ascii_case("IfExists") {
                (base, "IfExists")
            } else {
                (rest, "")
            }
        }
        _ => (rest, ""),
    };
    let base = nearest(base, &OPERATORS.map(|(name, ..)| name))?;
    Some(format!("{quantifier}{base}{suffix}"))
}

impl Values {
    fn read(
        operator: Operator,
        key: &Key,
        node: &Node<'_>,
        dialect: Dialect,
    ) -> Result<Self, PolicyError> {
        let texts = node
            .any_number()?
            .iter()
            .map(|node| node.scalar("a value of Condition"))
            .collect::<Result<Vec<_>, _>>()?;
        let wrong = |text: &Text<'_>, expected| {
            let found = text.shown();
            text.error(Problem::ConditionValue {
                operator: operator.to_string(),
                found,
                expected,
            })
        };
        fn all<T>(
            texts: &[Text<'_>],
            read: impl Fn(&Text<'_>) -> Result<T, PolicyError>,
        ) -> Result<Box<[T]>, PolicyError> {
            texts.iter().map(read).collect()
        }
        Ok(match operator.family {
            Family::Text(comparison) => Self::Texts(all(&texts, |text| {
                let template = Template::read(text, comparison, dialect)?;
                if let (Key::Own(own), Some(_)) = (key, template.word())
                    && let Some(expected) = own.unknown_word(operator.family, &text.value)
                {
                    return Err(wrong(text, expected));
                }
                Ok(template)
            })?),
            Family::Bool => Self::Texts(all(&texts, |text| {
                let template = Template::read(text, Comparison::IgnoringCase, dialect)?;
                let flag = |word: &str| text.value.eq_ignore_ascii_case(word);
                if template.is_fixed() && !flag("true") && !flag("false") && !dialect.lenient {
                    return Err(wrong(text, "true or false"));
                }
                Ok(template)
            })?),
            Family::Arn => Self::Arns(all(&texts, |text| {
                let fields = text.value.splitn(6, ':').count();
                if text.value != "*" && fields != 6 && !dialect.lenient {
                    return Err(wrong(
                        text,
                        "an ARN of six fields, arn:aws:iot:REGION:ACCOUNT:…",
                    ));
                }
                Template::read_fields(text, dialect)
            })?),
            Family::Numeric(_) => Self::Numbers(all(&texts, |text| {
                number(&text.value).ok_or_else(|| wrong(text, "a whole or decimal number"))
            })?),
            Family::Date(_) => Self::Dates(all(&texts, |text| {
                moment(key, &text.value).ok_or_else(|| {
                    let expected = match key {
                        Key::Own(_) => "a time of day like 08:30 or 08:30:59",
                        _ => "a date like 2026-01-31T23:59:59Z or seconds since 1970",
                    };
                    wrong(text, expected)
                })
            })?),
            Family::Binary => Self::Bytes(all(&texts, |text| {
                data_encoding::BASE64
                    .decode(text.value.as_bytes())
                    .map(Vec::into_boxed_slice)
                    .map_err(|_| wrong(text, "base64"))
            })?),
            Family::Address => Self::Networks(all(&texts, |text| {
                Network::read(&text.value)
                    .ok_or_else(|| wrong(text, "an address or a network like 10.1.0.0/16"))
            })?),
            Family::Null => Self::Flags(all(&texts, |text| {
                match text.value.to_ascii_lowercase().as_str() {
                    "true" => Ok(true),
                    "false" => Ok(false),
                    _ => Err(wrong(
                        text,
                        "true (the key is absent) or false (it is there)",
                    )),
                }
            })?),
        })
    }
}

impl Condition {
    /// Whether it is met for a statement of this effect. In a server of any region
    /// (`any_region`) the region of an ARN is its own.
    pub(crate) fn holds(
        &self,
        effect: Effect,
        context: &Context,
        message: &MessageFacts,
        any_region: bool,
    ) -> bool {
        let mut values = context.values_for(&self.key, message);
        if let Values::Flags(flags) = &self.values {
            return flags.contains(&values.is_empty());
        }
        if effect == Effect::Allow && values.is_empty() && matches!(self.key, Key::Own(_)) {
            // What is not known grants nothing, whatever the operator makes of absence.
            return self.key == Key::Own(Own::SourceNetwork)
                && context.source_ip.is_some()
                && self.holds_for_none();
        }
        if effect == Effect::Allow && self.compares_with_unknown(context) {
            return false;
        }
        let negated = self.operator.negated;
        let agrees = |value: &Arc<str>| self.agrees(value, context, any_region) != negated;
        if self.operator.quantifier.is_some() {
            // An empty text is an empty set.
            values.retain(|value| !value.is_empty());
        }
        let absent = values.is_empty();
        match self.operator.quantifier {
            Some(Quantifier::ForAllValues) => values.iter().all(agrees),
            Some(Quantifier::ForAnyValue) if absent => self.operator.if_exists,
            Some(Quantifier::ForAnyValue) => values.iter().any(agrees),
            None if absent => negated || self.operator.if_exists,
            None if negated => values.iter().all(agrees),
            None => values.iter().any(agrees),
        }
    }

    /// Whether a value of the connection is one of the condition's, negation aside.
    fn agrees(&self, value: &str, context: &Context, any_region: bool) -> bool {
        match (&self.values, self.operator.family) {
            (Values::Texts(texts), _) => texts.iter().any(|text| text.matches(value, context)),
            (Values::Arns(arns), _) => {
                let fields: Vec<&str> = value.splitn(6, ':').collect();
                arns.iter().any(|arn| match &**arn {
                    [any] => any.matches(value, context) && fields.len() == 6,
                    arn => {
                        arn.len() == fields.len()
                            && arn.iter().zip(&fields).enumerate().all(|(at, (want, is))| {
                                at == REGION_FIELD && any_region || want.matches(is, context)
                            })
                    }
                })
            }
            (Values::Numbers(numbers), Family::Numeric(order)) => {
                number(value).is_some_and(|value| {
                    numbers
                        .iter()
                        .any(|limit| order.holds(value.compare(*limit)))
                })
            }
            (Values::Dates(dates), Family::Date(order)) => {
                moment(&self.key, value).is_some_and(|value| {
                    dates
                        .iter()
                        .any(|limit| order.holds(Some(value.cmp(limit))))
                })
            }
            (Values::Bytes(all), _) => all.iter().any(|bytes| **bytes == *value.as_bytes()),
            (Values::Networks(networks), _) => value
                .parse()
                .is_ok_and(|address| networks.iter().any(|network| network.contains(address))),
            _ => false,
        }
    }

    /// Whether one of its values holds a key of Muster's own that is not known here: that grants
    /// nothing either, whatever the operator makes of it.
    fn compares_with_unknown(&self, context: &Context) -> bool {
        let mut texts: Box<dyn Iterator<Item = &Template>> = match &self.values {
            Values::Texts(texts) => Box::new(texts.iter()),
            Values::Arns(arns) => Box::new(arns.iter().flatten()),
            _ => return false,
        };
        texts.any(|text| text.lacks_own(context))
    }

    /// Whether one of its values holds a variable that stands for nothing here.
    pub(crate) fn is_unresolved(&self, context: &Context) -> bool {
        let lacks = |text: &Template| text.is_unresolved(context);
        match &self.values {
            Values::Texts(texts) => texts.iter().any(lacks),
            Values::Arns(arns) => arns.iter().flatten().any(lacks),
            _ => false,
        }
    }

    /// What it comes to over an empty set of values that is known to be empty.
    fn holds_for_none(&self) -> bool {
        match self.operator.quantifier {
            Some(Quantifier::ForAllValues) => true,
            Some(Quantifier::ForAnyValue) => false,
            None => self.operator.negated,
        }
    }

    /// The first second after the context's at which it may come out otherwise; only time moves.
    pub(crate) fn turns(&self, context: &Context) -> Option<i64> {
        const NANOS: i128 = 1_000_000_000;
        if !self.key.is_moving() {
            return None;
        }
        let seconds: Vec<i128> = match &self.values {
            Values::Dates(dates) => dates.iter().map(|date| date.div_euclid(NANOS)).collect(),
            Values::Numbers(numbers) => numbers.iter().map(|number| number.floor()).collect(),
            _ => Vec::new(),
        };
        if let Key::Own(own) = &self.key {
            return own.turns(context, &seconds);
        }
        let now = context.now?;
        seconds
            .into_iter()
            .flat_map(|second| [second, second.saturating_add(1)])
            .filter(|second| *second > i128::from(now))
            .min()
            .and_then(|second| i64::try_from(second).ok())
    }

    /// Whether no value meets it, because it names none.
    pub(crate) fn is_met_by_none(&self) -> bool {
        let empty = match &self.values {
            Values::Texts(all) => all.is_empty(),
            Values::Arns(all) => all.is_empty(),
            Values::Numbers(all) => all.is_empty(),
            Values::Dates(all) => all.is_empty(),
            Values::Bytes(all) => all.is_empty(),
            Values::Networks(all) => all.is_empty(),
            Values::Flags(all) => all.is_empty(),
        };
        let all = self.operator.quantifier == Some(Quantifier::ForAllValues);
        empty && !self.operator.negated && !self.operator.if_exists && !all
    }

    /// The words that it compares whole, where it does and none of them holds a variable.
    pub(crate) fn exact_words(&self) -> Option<Vec<String>> {
        let whole = matches!(
            self.operator.family,
            Family::Text(Comparison::Exact | Comparison::IgnoringCase)
        );
        match &self.values {
            Values::Texts(texts) if whole => texts.iter().map(Template::word).collect(),
            _ => None,
        }
    }

    /// A word that stands for itself where its author may have meant a pattern.
    pub(crate) fn wild_word(&self) -> Option<String> {
        // A client id, a topic or a name in a certificate may hold a star.
        let named = matches!(
            self.key,
            Key::ThingName | Key::ThingTypeName | Key::Attribute(_) | Key::Own(_)
        );
        let mut words = self
            .exact_words()
            .filter(|_| named && !self.operator.negated)?
            .into_iter();
        words.find(|word| word.contains(['*', '?']))
    }

    /// Values that stand for all that it can tell apart; `None` where they would be too many.
    pub(crate) fn probes(&self) -> Option<Vec<String>> {
        match (&self.values, self.operator.family) {
            (Values::Texts(_), Family::Bool) => Some(vec!["true".into(), "false".into()]),
            (Values::Texts(_), _) => {
                let words = self.exact_words()?.into_iter();
                let cases = |word: String| [word.to_uppercase(), word.to_lowercase(), word];
                // And one that nobody names.
                let other = std::iter::once("\u{1}".to_owned());
                Some(words.flat_map(cases).chain(other).collect())
            }
            (Values::Numbers(numbers), _) => {
                let around = |number: &Number| {
                    let whole = number.floor();
                    let all = (-1..=2).map(move |step| whole.saturating_add(step));
                    let half = format!("{whole}.5");
                    all.map(|n| n.to_string()).chain([half])
                };
                Some(numbers.iter().flat_map(around).collect())
            }
            _ => None,
        }
    }

    /// The whole of it, with its values.
    pub(crate) fn told(&self) -> String {
        let values: Vec<String> = match &self.values {
            Values::Texts(texts) => texts.iter().map(ToString::to_string).collect(),
            Values::Arns(arns) => {
                let fields =
                    |arn: &[Template]| arn.iter().map(ToString::to_string).collect::<Vec<_>>();
                arns.iter().map(|arn| fields(arn).join(":")).collect()
            }
            Values::Numbers(all) => all.iter().map(ToString::to_string).collect(),
            Values::Dates(all) => all.iter().map(|nanos| when(&self.key, *nanos)).collect(),
            Values::Bytes(all) => all
                .iter()
                .map(|b| data_encoding::BASE64.encode(b))
                .collect(),
            Values::Networks(all) => all.iter().map(ToString::to_string).collect(),
            Values::Flags(all) => all.iter().map(ToString::to_string).collect(),
        };
        let values: Vec<String> = values
            .iter()
            .map(|value| format!("\"{}\"", shown(value, WORD_MAX_CHARS)))
            .collect();
        format!("{self} {}", values.join(" or "))
    }

    /// Whether a value of its key meets it.
    pub(crate) fn takes(&self, value: &str) -> bool {
        self.agrees(value, &Context::default(), true) != self.operator.negated
    }

    /// Its words with nothing in the place of a `*`, and the addresses of its networks.
    pub(crate) fn plain_words(&self) -> Vec<String> {
        match &self.values {
            Values::Texts(texts) => {
                let plain = |text: &Template| text.to_string().replace('*', "").replace('?', "x");
                texts.iter().map(plain).collect()
            }
            Values::Networks(networks) => networks.iter().map(Network::first).collect(),
            _ => Vec::new(),
        }
    }

    /// Of a condition on the clock: seconds since 1970 at and beside its moments.
    pub(crate) fn seconds_around(&self) -> Vec<i64> {
        const NANOS: i128 = 1_000_000_000;
        let seconds: Vec<i128> = match &self.values {
            Values::Dates(dates) => dates.iter().map(|date| date.div_euclid(NANOS)).collect(),
            Values::Numbers(numbers) => numbers.iter().map(|number| number.floor()).collect(),
            _ => Vec::new(),
        };
        let around = seconds
            .into_iter()
            .flat_map(|second| [second.saturating_add(1), second, second.saturating_sub(1)]);
        around
            .filter_map(|second| i64::try_from(second).ok())
            .collect()
    }

    /// Of `Null`: whether it is met where the key has a value.
    pub(crate) fn asks_for_presence(&self) -> bool {
        matches!(&self.values, Values::Flags(flags) if flags.contains(&false))
    }

    /// Whether its networks hold all addresses that there are.
    pub(crate) fn names_every_address(&self) -> bool {
        let Values::Networks(networks) = &self.values else {
            return false;
        };
        let all = |v4: bool| networks.iter().any(|network| network.is_all(v4));
        all(true) && all(false)
    }

    /// All that it asks for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.key).chain(self.variables())
    }

    /// The variables in its values.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &Key> {
        let texts: Box<dyn Iterator<Item = &Template>> = match &self.values {
            Values::Texts(texts) => Box::new(texts.iter()),
            Values::Arns(arns) => Box::new(arns.iter().flatten()),
            _ => Box::new(std::iter::empty()),
        };
        texts.flat_map(Template::keys)
    }
}

/// Reads what a Date operator compares for a key: a time of day, or a moment.
fn moment(key: &Key, text: &str) -> Option<i128> {
    match key {
        Key::Own(_) => time_of_day(text),
        _ => date(text),
    }
}

/// A moment, or a time of day, as a policy writes it.
fn when(key: &Key, nanos: i128) -> String {
    const NANOS: i128 = 1_000_000_000;
    if let Key::Own(_) = key {
        let second = nanos.div_euclid(NANOS);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        return format!("{hour:02}:{minute:02}:{:02}", second % 60);
    }
    let moment = jiff::Timestamp::from_nanosecond(nanos);
    moment.map_or_else(|_| nanos.div_euclid(NANOS).to_string(), |at| at.to_string())
}

/// Where an ARN holds its region.
const REGION_FIELD: usize = 3;

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator, shown(&self.key.to_string(), 256))
    }
}
