//! The `Condition` element, operator by operator.

use std::cmp::Ordering;

use data_encoding::BASE64;
use serde_json::Value;

use policy::UnresolvedDeny;

use super::facts::{is_own, known, month_days, year_days};
use super::letter::{Token, list, matches, written};
use super::{Case, Unread};

/// All operators and all their keys must be met.
pub(super) fn met(
    condition: &Value,
    allows: bool,
    variables: bool,
    case: &Case,
) -> Result<bool, Unread> {
    let mut all = true;
    for (operator, keys) in condition.as_object().unwrap() {
        for (key, values) in keys.as_object().unwrap() {
            let mut wanted = Vec::new();
            for value in list(values) {
                wanted.push(match value {
                    Value::String(text) => text.clone(),
                    Value::Bool(flag) => flag.to_string(),
                    // Other numbers are written in more than one way.
                    Value::Number(number) if number.is_i64() => number.to_string(),
                    _ => return Err(Unread),
                });
            }
            let asked = Asked {
                key,
                wanted,
                allows,
                variables,
                case,
            };
            all &= asked.is_met(operator)?;
        }
    }
    Ok(all)
}

struct Asked<'a> {
    key: &'a str,
    wanted: Vec<String>,
    allows: bool,
    variables: bool,
    case: &'a Case,
}

impl Asked<'_> {
    fn is_met(&self, operator: &str) -> Result<bool, Unread> {
        let mut values = known(self.key, self.case)?.values;
        if operator == "Null" {
            let absent = values.is_empty().to_string();
            return Ok(self
                .wanted
                .iter()
                .any(|wanted| wanted.to_lowercase() == absent));
        }
        let (set, operator) = match operator.split_once(':') {
            Some((set, operator)) => (Some(set), operator),
            None => (None, operator),
        };
        let (operator, if_exists) = match operator.strip_suffix("IfExists") {
            Some(operator) => (operator, true),
            None => (operator, false),
        };
        // StringNotEquals, NotIpAddress: the other way about.
        let plain = operator.replacen("Not", "", 1);
        let negated = plain != operator;
        if !self.allows
            && self.case.realm.unresolved_deny == UnresolvedDeny::Closed
            && self.lacks(&plain)?
        {
            return Ok(true);
        }
        // Of Muster's keys, what is not known never meets a condition of an Allow; that a known address lies in no
        // network is known.
        if self.allows && is_own(self.key) && values.is_empty() {
            let of_network = self.key.eq_ignore_ascii_case("muster:SourceNetwork");
            let is_known = of_network && self.case.context.source_ip.is_some();
            return Ok(is_known
                && match set {
                    Some(set) => set == "ForAllValues",
                    None => negated,
                });
        }
        // Neither does one that compares with what is not known of them.
        if self.allows && self.lacks_own(&plain)? {
            return Ok(false);
        }
        if set.is_some() {
            // "… or if the key value resolves to a null data set, such as an empty string."
            values.retain(|value| !value.is_empty());
        }
        let mut each = Vec::new();
        for value in &values {
            let mut agrees = false;
            for wanted in &self.wanted {
                agrees |= self.agrees(&plain, value, wanted)?;
            }
            each.push(agrees != negated);
        }
        // Texts are read even where no value is there to compare.
        self.lacks(&plain)?;
        Ok(match set {
            Some("ForAllValues") => each.iter().all(|met| *met),
            Some("ForAnyValue") => each.contains(&true) || each.is_empty() && if_exists,
            Some(_) => return Err(Unread),
            None if each.is_empty() => negated || if_exists,
            None if negated => each.iter().all(|met| *met),
            None => each.contains(&true),
        })
    }

    /// Whether a variable in the condition's values has no value.
    fn lacks(&self, operator: &str) -> Result<bool, Unread> {
        let mut lacks = false;
        if ["String", "Arn", "Bool"]
            .iter()
            .any(|family| operator.starts_with(family))
        {
            for wanted in &self.wanted {
                lacks |= written(wanted, self.variables, self.case)?.lacks();
            }
        }
        Ok(lacks)
    }

    /// Whether one of Muster's own keys has no value there.
    fn lacks_own(&self, operator: &str) -> Result<bool, Unread> {
        let mut lacks = false;
        if ["String", "Arn", "Bool"]
            .iter()
            .any(|family| operator.starts_with(family))
        {
            for wanted in &self.wanted {
                lacks |= written(wanted, self.variables, self.case)?.lacks_own;
            }
        }
        Ok(lacks)
    }

    /// Whether a value is as one of the condition's says.
    fn agrees(&self, operator: &str, value: &str, wanted: &str) -> Result<bool, Unread> {
        let read = |text: &str| written(text, self.variables, self.case);
        let order = |holds: &str, order: Option<Ordering>| {
            Ok(order.is_some_and(|order| match holds {
                "Equals" => order.is_eq(),
                "LessThan" => order.is_lt(),
                "LessThanEquals" => order.is_le(),
                "GreaterThan" => order.is_gt(),
                _ => order.is_ge(),
            }))
        };
        match operator {
            "StringLike" => Ok(matches(&read(wanted)?.tokens, value)),
            "StringEquals" => Ok(matches(&letters(read(wanted)?.tokens), value)),
            "StringEqualsIgnoreCase" | "Bool" => {
                let lower = |token| match token {
                    Token::Char(c) => c.to_lowercase().map(Token::Char).collect(),
                    other => vec![other],
                };
                let wanted = letters(read(wanted)?.tokens).into_iter().flat_map(lower);
                let value: String = value.chars().flat_map(char::to_lowercase).collect();
                Ok(matches(&wanted.collect::<Vec<_>>(), &value))
            }
            "ArnEquals" | "ArnLike" => self.arn(value, wanted),
            "BinaryEquals" => Ok(BASE64.encode(value.as_bytes()) == wanted),
            "IpAddress" => Ok(address(value).is_some_and(|bits| in_network(&bits, wanted))),
            _ => {
                if let Some(holds) = operator.strip_prefix("Numeric") {
                    return order(
                        holds,
                        number(value)
                            .zip(number(wanted))
                            .and_then(|(value, wanted)| value.compare(&wanted)),
                    );
                }
                let holds = operator.strip_prefix("Date").ok_or(Unread)?;
                if is_own(self.key) {
                    // Times of day: 08:30 is 08:30:00.
                    let full = |text: &str| {
                        if text.len() == 5 {
                            format!("{text}:00")
                        } else {
                            text.to_owned()
                        }
                    };
                    return order(holds, Some(full(value).cmp(&full(wanted))));
                }
                let wanted = date(wanted)?.ok_or(Unread)?;
                order(holds, date(value)?.map(|value| value.cmp(&wanted)))
            }
        }
    }

    /// "Each of the six colon-delimited components is checked separately."
    fn arn(&self, value: &str, wanted: &str) -> Result<bool, Unread> {
        let value: Vec<&str> = value.splitn(6, ':').collect();
        if value.len() != 6 {
            return Ok(false);
        }
        if wanted == "*" {
            return Ok(true);
        }
        let wanted: Vec<&str> = wanted.splitn(6, ':').collect();
        if wanted.len() != 6 || wanted[..5].iter().any(|field| field.contains('$')) {
            return Err(Unread);
        }
        let mut all = true;
        for (at, (wanted, value)) in wanted.iter().zip(value).enumerate() {
            // A live server takes any region for its own.
            if at != 3 || self.case.realm.region.is_some() {
                all &= matches(&written(wanted, self.variables, self.case)?.tokens, value);
            }
        }
        Ok(all)
    }
}

/// Wildcards as the letters they are.
fn letters(tokens: Vec<Token>) -> Vec<Token> {
    let letter = |token| match token {
        Token::Star => Token::Char('*'),
        Token::One => Token::Char('?'),
        other => other,
    };
    tokens.into_iter().map(letter).collect()
}

/// A number: whole, or with a fraction.
enum Number {
    Whole(i128),
    Decimal(f64),
}

impl Number {
    fn compare(&self, other: &Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Whole(one), Number::Whole(other)) => Some(one.cmp(other)),
            (one, other) => one.float().partial_cmp(&other.float()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "compared with a fraction")]
    fn float(&self) -> f64 {
        match self {
            Number::Whole(number) => *number as f64,
            Number::Decimal(number) => *number,
        }
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit())
        || !digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        return None;
    }
    text.parse()
        .map(Number::Whole)
        .ok()
        .or_else(|| text.parse().map(Number::Decimal).ok())
}

/// Seconds since 1970 of a date of the W3C's profile in UTC, or of such seconds; `Err` for what may be a date in a form
/// that is not read here.
fn date(text: &str) -> Result<Option<i64>, Unread> {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let (year, month, day, second) = match shape.as_str() {
        "0000" => (part(0, 4), 1, 1, 0),
        "0000-00" => (part(0, 4), part(5, 7), 1, 0),
        "0000-00-00" => (part(0, 4), part(5, 7), part(8, 10), 0),
        "0000-00-00T00:00:00Z" => {
            let (hour, minute, second) = (part(11, 13), part(14, 16), part(17, 19));
            if hour > 23 || minute > 59 || second > 59 {
                return Err(Unread);
            }
            (
                part(0, 4),
                part(5, 7),
                part(8, 10),
                hour * 3600 + minute * 60 + second,
            )
        }
        digits if !digits.is_empty() && digits.len() < 12 && digits.chars().all(|c| c == '0') => {
            return Ok(Some(text.parse().unwrap()));
        }
        // No form of a date has so few or such characters.
        other if !other.contains('0') => return Ok(None),
        _ => return Err(Unread),
    };
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > month_days(year, month) {
        return Err(Unread);
    }
    let years: i64 = (1970..year).map(year_days).sum();
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    Ok(Some((years + months + day - 1) * 86_400 + second))
}

/// An address as its bits, one character each; an IPv4 address in IPv6 form is the IPv4 address.
pub(super) fn address(text: &str) -> Option<String> {
    let address: std::net::IpAddr = text.parse().ok()?;
    Some(match address.to_canonical() {
        std::net::IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        std::net::IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    })
}

/// Whether an address lies in `10.1.0.0/16` or is the address itself.
pub(super) fn in_network(bits: &str, network: &str) -> bool {
    let (base, length) = network.split_once('/').unwrap_or((network, "128"));
    let Ok(base) = base.parse::<std::net::IpAddr>() else {
        return false;
    };
    let base = match base {
        std::net::IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        std::net::IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    };
    let length = length.parse::<usize>().unwrap_or(0).min(base.len());
    base.len() == bits.len() && base[..length] == bits[..length]
}
