//! The operators of conditions, as IAM has them.

use std::cmp::Ordering;
use std::fmt;

use crate::values::Comparison;

/// An operator with what stands before and behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) quantifier: Option<Quantifier>,
    name: &'static str,
    pub(crate) family: Family,
    /// Met where the plain operator is not.
    pub(crate) negated: bool,
    /// Met where the key is absent.
    pub(crate) if_exists: bool,
}

/// How the several values of a key count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    /// Each must be met; none is met.
    ForAllValues,
    /// One must be met; none is not met.
    ForAnyValue,
}

/// What is compared, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Text(Comparison),
    Arn,
    Numeric(Order),
    Date(Order),
    Bool,
    Binary,
    Address,
    Null,
}

/// How a key's value must stand to the condition's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    pub(crate) fn holds(self, ordering: Option<Ordering>) -> bool {
        ordering.is_some_and(|ordering| match self {
            Order::Equal => ordering.is_eq(),
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        })
    }
}

/// Every operator: its name, what it compares, whether it is negated.
pub(crate) const OPERATORS: [(&str, Family, bool); 27] = [
    ("StringEquals", Family::Text(Comparison::Exact), false),
    ("StringNotEquals", Family::Text(Comparison::Exact), true),
    (
        "StringEqualsIgnoreCase",
        Family::Text(Comparison::IgnoringCase),
        false,
    ),
    (
        "StringNotEqualsIgnoreCase",
        Family::Text(Comparison::IgnoringCase),
        true,
    ),
    ("StringLike", Family::Text(Comparison::Like), false),
    ("StringNotLike", Family::Text(Comparison::Like), true),
    ("NumericEquals", Family::Numeric(Order::Equal), false),
    ("NumericNotEquals", Family::Numeric(Order::Equal), true),
    ("NumericLessThan", Family::Numeric(Order::Less), false),
    (
        "NumericLessThanEquals",
        Family::Numeric(Order::LessOrEqual),
        false,
    ),
    ("NumericGreaterThan", Family::Numeric(Order::Greater), false),
    (
        "NumericGreaterThanEquals",
        Family::Numeric(Order::GreaterOrEqual),
        false,
    ),
    ("DateEquals", Family::Date(Order::Equal), false),
    ("DateNotEquals", Family::Date(Order::Equal), true),
    ("DateLessThan", Family::Date(Order::Less), false),
    (
        "DateLessThanEquals",
        Family::Date(Order::LessOrEqual),
        false,
    ),
    ("DateGreaterThan", Family::Date(Order::Greater), false),
    (
        "DateGreaterThanEquals",
        Family::Date(Order::GreaterOrEqual),
        false,
    ),
    ("Bool", Family::Bool, false),
    ("BinaryEquals", Family::Binary, false),
    ("IpAddress", Family::Address, false),
    ("NotIpAddress", Family::Address, true),
    ("ArnEquals", Family::Arn, false),
    ("ArnLike", Family::Arn, false),
    ("ArnNotEquals", Family::Arn, true),
    ("ArnNotLike", Family::Arn, true),
    ("Null", Family::Null, false),
];

const IF_EXISTS: &str = "IfExists";

impl Operator {
    /// Reads an operator's name, as in `ForAnyValue:StringLikeIfExists`.
    pub(crate) fn named(text: &str) -> Option<Self> {
        let (quantifier, rest) = match text.split_once(':') {
            Some(("ForAllValues", rest)) => (Some(Quantifier::ForAllValues), rest),
            Some(("ForAnyValue", rest)) => (Some(Quantifier::ForAnyValue), rest),
            Some(_) => return None,
            None => (None, text),
        };
        let (base, if_exists) = match rest.strip_suffix(IF_EXISTS) {
            Some(base) => (base, true),
            None => (rest, false),
        };
        let (name, family, negated) = OPERATORS.into_iter().find(|(name, ..)| *name == base)?;
        // Null itself asks whether the key exists, and not of each value.
        let alone = family != Family::Null || (quantifier.is_none() && !if_exists);
        alone.then_some(Self {
            quantifier,
            name,
            family,
            negated,
            if_exists,
        })
    }
}

impl Operator {
    /// Whether it compares values and does not say how several count.
    pub(crate) fn wants_quantifier(self) -> bool {
        self.quantifier.is_none() && self.family != Family::Null
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.quantifier {
            Some(Quantifier::ForAllValues) => "ForAllValues:",
            Some(Quantifier::ForAnyValue) => "ForAnyValue:",
            None => "",
        })?;
        f.write_str(self.name)?;
        f.write_str(if self.if_exists { IF_EXISTS } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_read_as_it_is_written() {
        for (name, ..) in OPERATORS {
            for before in ["", "ForAllValues:", "ForAnyValue:"] {
                for behind in ["", "IfExists"] {
                    let text = format!("{before}{name}{behind}");
                    let read = Operator::named(&text);
                    if name == "Null" && text != "Null" {
                        assert_eq!(read, None, "{text}");
                    } else {
                        assert_eq!(read.unwrap().to_string(), text);
                    }
                }
            }
        }
        for none in ["", "stringequals", "ForAll:Bool", "BoolIfexists", "Bool:"] {
            assert_eq!(Operator::named(none), None, "{none}");
        }
    }
}
