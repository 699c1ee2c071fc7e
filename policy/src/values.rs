//! The values that conditions compare with: texts, numbers, dates, networks.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use crate::context::Context;
use crate::document::Dialect;
use crate::error::PolicyError;
use crate::json::Text;
use crate::key::Key;
use crate::pattern::{Pattern, Token};
use crate::tokens::{Variable, tokens};

/// How texts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Character by character; `*` and `?` are characters.
    Exact,
    /// The same, upper and lower case being one.
    IgnoringCase,
    /// `*` and `?` are wildcards.
    Like,
}

/// A text with variables.
#[derive(Debug, PartialEq)]
pub(crate) struct Template {
    pattern: Pattern,
    variables: Box<[Variable]>,
    ignore_case: bool,
}

impl Template {
    pub(crate) fn read(
        text: &Text<'_>,
        comparison: Comparison,
        dialect: Dialect,
    ) -> Result<Self, PolicyError> {
        let mut variables = Vec::new();
        let mut read = tokens(text, 0, dialect, &mut variables)?;
        if comparison != Comparison::Like {
            for token in &mut read {
                match token {
                    Token::Star => *token = Token::Char('*'),
                    Token::One => *token = Token::Char('?'),
                    Token::Char(_) | Token::Variable(_) => {}
                }
            }
        }
        let ignore_case = comparison == Comparison::IgnoringCase;
        if ignore_case {
            let lower = |token| match token {
                Token::Char(c) => c.to_lowercase().map(Token::Char).collect(),
                other => vec![other],
            };
            read = read.into_iter().flat_map(lower).collect();
        }
        Ok(Self {
            pattern: Pattern::compile(&read),
            variables: variables.into(),
            ignore_case,
        })
    }

    /// The fields of an ARN, each with wildcards of its own; one where it is no ARN.
    pub(crate) fn read_fields(
        text: &Text<'_>,
        dialect: Dialect,
    ) -> Result<Box<[Self]>, PolicyError> {
        let mut variables = Vec::new();
        let read = tokens(text, 0, dialect, &mut variables)?;
        let mut rest = read.as_slice();
        let mut fields = Vec::new();
        while fields.len() < 5
            && let Some(colon) = rest.iter().position(|token| *token == Token::Char(':'))
        {
            let (field, behind) = rest.split_at(colon);
            fields.push(field);
            rest = behind.get(1..).unwrap_or_default();
        }
        fields.push(rest);
        let template = |field| Self {
            pattern: Pattern::compile(field),
            variables: variables.clone().into(),
            ignore_case: false,
        };
        Ok(fields.into_iter().map(template).collect())
    }

    pub(crate) fn matches(&self, value: &str, context: &Context) -> bool {
        let values = self.variables.iter().map(|v| v.value(context));
        if self.ignore_case {
            // Letter by letter as the pattern was: a text as a whole knows a final sigma.
            let lower = |text: &str| {
                text.chars()
                    .flat_map(char::to_lowercase)
                    .collect::<String>()
            };
            let values: Vec<Option<Arc<str>>> = values
                .map(|value| value.map(|value| lower(&value).into()))
                .collect();
            return self.pattern.matches(&lower(value), &values);
        }
        self.pattern.matches(value, &values.collect::<Vec<_>>())
    }

    /// The text, where no variable and no wildcard stands in it.
    pub(crate) fn word(&self) -> Option<String> {
        let tokens = self.pattern.tokens(&[])?;
        let plain = |token| match token {
            Token::Char(c) => Some(c),
            _ => None,
        };
        tokens.into_iter().map(plain).collect()
    }

    pub(crate) fn is_fixed(&self) -> bool {
        self.variables.is_empty()
    }

    pub(crate) fn is_unresolved(&self, context: &Context) -> bool {
        self.variables.iter().any(|v| v.value(context).is_none())
    }

    /// Whether a variable for a key of Muster's own has no value.
    pub(crate) fn lacks_own(&self, context: &Context) -> bool {
        let own = |variable: &&Variable| matches!(variable.key, Key::Own(_));
        let mut owns = self.variables.iter().filter(own);
        owns.any(|variable| variable.value(context).is_none())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.variables.iter().map(|variable| &variable.key)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in self.pattern.raw() {
            match token {
                Token::Char(c) => f.write_char(c)?,
                Token::One => f.write_char('?')?,
                Token::Star => f.write_char('*')?,
                Token::Variable(number) => match self.variables.get(usize::from(number)) {
                    Some(variable) => write!(f, "${{{}}}", variable.key)?,
                    None => f.write_str("${?}")?,
                },
            }
        }
        Ok(())
    }
}

/// A number, exact where it is whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Whole(i128),
    Decimal(f64),
}

impl Number {
    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => a.float().partial_cmp(&b.float()),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "compared with a decimal, which is no more precise"
    )]
    fn float(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Decimal(n) => n,
        }
    }

    /// The whole number at or below it.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "float to integer saturates"
    )]
    pub(crate) fn floor(self) -> i128 {
        match self {
            Number::Whole(n) => n,
            Number::Decimal(n) => n.floor() as i128,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(n) => n.fmt(f),
            Number::Decimal(n) => n.fmt(f),
        }
    }
}

/// Reads a whole or decimal number.
pub(crate) fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let begins = digits.starts_with(|c: char| c.is_ascii_digit());
    if !begins || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    match text.parse() {
        Ok(whole) => Some(Number::Whole(whole)),
        Err(_) => text.parse().ok().map(Number::Decimal),
    }
}

/// Reads a moment in one of the W3C's forms of ISO 8601 or in seconds since 1970, as nanoseconds
/// since 1970. Without a zone it is UTC.
pub(crate) fn date(text: &str) -> Option<i128> {
    const NANOS: i128 = 1_000_000_000;
    if text.len() != 4
        && let Some(seconds) = number(text)
    {
        return match seconds {
            Number::Whole(seconds) => seconds.checked_mul(NANOS),
            Number::Decimal(_) => {
                let (whole, fraction) = text.split_once('.')?;
                let nanos: String = fraction
                    .chars()
                    .chain("000000000".chars())
                    .take(9)
                    .collect();
                let nanos: i128 = nanos.parse().ok()?;
                let whole: i128 = whole.parse().ok()?;
                let nanos = if text.starts_with('-') { -nanos } else { nanos };
                whole.checked_mul(NANOS)?.checked_add(nanos)
            }
        };
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(moment.as_nanosecond());
    }
    let whole = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        _ => text.to_owned(),
    };
    let civil: jiff::civil::DateTime = whole.parse().ok()?;
    let moment = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(moment.timestamp().as_nanosecond())
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    /// Leading bits that count.
    prefix: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// Reads `10.1.0.0/16`, or an address alone, which is a network of itself.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|b| b.is_ascii_digit()) => prefix.parse().ok()?,
            Some(_) => return None,
            None => bits,
        };
        (prefix <= bits).then_some(Self { address, prefix })
    }

    /// The address that it is written with.
    pub(crate) fn first(&self) -> String {
        self.address.to_string()
    }

    /// Whether it holds all addresses of its family.
    pub(crate) fn is_all(&self, v4: bool) -> bool {
        self.prefix == 0 && self.address.is_ipv4() == v4
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                u128::from(network.to_bits() ^ address.to_bits()) << 96
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => network.to_bits() ^ address.to_bits(),
            _ => return false,
        };
        differ.leading_zeros() >= u32::from(self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_form() {
        let second = |n: i128| Some(n * 1_000_000_000);
        for (text, expected) in [
            ("2020-01-01T00:00:01Z", second(1_577_836_801)),
            ("2020-01-01T01:00:01+01:00", second(1_577_836_801)),
            ("2020-01-01T00:00Z", second(1_577_836_800)),
            ("2020-01-01T00:00:00", second(1_577_836_800)),
            ("2020-01-01", second(1_577_836_800)),
            ("2020-01", second(1_577_836_800)),
            ("2020", second(1_577_836_800)),
            ("1577836800", second(1_577_836_800)),
            ("1577836800.5", Some(1_577_836_800_500_000_000)),
            ("2020-01-01T00:00:00.5Z", Some(1_577_836_800_500_000_000)),
            ("0", second(0)),
            ("", None),
            ("2020-13", None),
            ("20x0", None),
            ("2020-01-01T", None),
            ("tomorrow", None),
        ] {
            assert_eq!(date(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_exact_where_they_are_whole() {
        let big = "340282366920938463463374607431768211";
        let near = "340282366920938463463374607431768210";
        let order = |a: &str, b: &str| number(a).unwrap().compare(number(b).unwrap()).unwrap();
        assert_eq!(order(big, near), Ordering::Greater);
        assert_eq!(order("1.50", "1.5"), Ordering::Equal);
        assert_eq!(order("-2", "1"), Ordering::Less);
        for none in [
            "", "-", "1e3", "0x1", "NaN", "inf", "1.2.3", "+1", ".5", " 1",
        ] {
            assert_eq!(number(none), None, "{none}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.9/24", "10.1.2.3", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("2001:DB8:1234:5678::/64", "2001:db8:1234:5678::9", true),
            ("2001:DB8:1234:5678::/64", "2001:db8:1234:5679::9", false),
            ("::/0", "2001::", true),
        ] {
            let read = Network::read(network).unwrap();
            assert_eq!(
                read.contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
        for none in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
        ] {
            assert_eq!(Network::read(none), None, "{none}");
        }
    }
}
