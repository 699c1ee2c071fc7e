//! Text with wildcards, escapes and variables, taken apart.

use std::sync::Arc;

use crate::context::Context;
use crate::document::{Dialect, Version};
use crate::error::{PolicyError, Problem};
use crate::json::Text;
use crate::key::Key;
use crate::pattern::Token;
use crate::shown::{WORD_MAX_CHARS, shown};

/// A variable as a text holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) key: Key,
    /// What stands there where the key has no value: `${iot:ClientId, 'nobody'}`.
    pub(crate) default: Option<Arc<str>>,
}

impl Variable {
    /// Its value in a connection.
    pub(crate) fn value(&self, context: &Context) -> Option<Arc<str>> {
        context
            .substitute(&self.key)
            .or_else(|| self.default.clone())
    }

    fn read(reference: &str, dialect: Dialect) -> Option<Self> {
        // The name of an attribute may hold a comma.
        if let Some(key) = Key::named(reference) {
            return Some(Self { key, default: None });
        }
        let (name, default) = match reference.split_once(',') {
            Some((name, default)) => {
                let default = default
                    .trim_start()
                    .strip_prefix('\'')?
                    .strip_suffix('\'')?;
                (name.trim_end(), Some(default.into()))
            }
            None => (reference, None),
        };
        let foreign = || (dialect.lenient).then(|| Key::Foreign(name.into()));
        let key = Key::named(name).or_else(foreign)?;
        Some(Self { key, default })
    }
}

/// Takes the text from the byte `start` on apart. Variables are numbered by their place in
/// `variables`, which grows by those it does not hold yet.
pub(crate) fn tokens(
    text: &Text<'_>,
    start: usize,
    dialect: Dialect,
    variables: &mut Vec<Variable>,
) -> Result<Vec<Token>, PolicyError> {
    let mut tokens = Vec::new();
    let mut rest = text.value.get(start..).unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let here = text.value.len() - rest.len();
        let mut after = rest.get(c.len_utf8()..).unwrap_or_default();
        let token = match c {
            '*' => Token::Star,
            '?' => Token::One,
            '$' if after.starts_with('{') && dialect.version == Version::WithVariables => {
                let Some((reference, behind)) = rest.split_once('}') else {
                    return Err(text.error_at(here, Problem::UnclosedVariable));
                };
                after = behind;
                let name = reference.strip_prefix("${").unwrap_or(reference);
                match name {
                    "*" => Token::Char('*'),
                    "?" => Token::Char('?'),
                    "$" => Token::Char('$'),
                    _ => {
                        let variable = Variable::read(name, dialect).ok_or_else(|| {
                            let found = shown(&format!("{reference}}}"), WORD_MAX_CHARS);
                            let nearest = Key::nearest(name);
                            text.error_at(here, Problem::UnknownVariable { found, nearest })
                        })?;
                        Token::Variable(number(variable, variables).ok_or_else(|| {
                            text.error_at(here, Problem::TooManyVariables { max: u16::MAX })
                        })?)
                    }
                }
            }
            c => Token::Char(c),
        };
        tokens.push(token);
        rest = after;
    }
    Ok(tokens)
}

fn number(variable: Variable, variables: &mut Vec<Variable>) -> Option<u16> {
    let place = variables.iter().position(|known| *known == variable);
    let place = place.unwrap_or_else(|| {
        variables.push(variable);
        variables.len() - 1
    });
    u16::try_from(place).ok()
}
