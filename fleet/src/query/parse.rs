//! Reads a query by recursive descent. Words side by side are joined by AND, which binds closer than OR; `-` before a
//! condition is NOT.

use super::{
    Bound, CONDITIONS_LIMIT_ITEMS, DEPTH_LIMIT_LEVELS, Expression, Field, QUERY_LIMIT_BYTES,
    QueryError, Test,
    pattern::{Part, Pattern},
};

/// Every field there is, for whoever asks for another.
const FIELDS: &str = "thingName, thingId, thingTypeName, thingGroupNames, attributes.NAME, registry.version and \
                      connectivity.connected";

pub(super) fn expression(text: &str) -> Result<Expression, QueryError> {
    if text.len() > QUERY_LIMIT_BYTES {
        let reason = format!("a query has at most {QUERY_LIMIT_BYTES} bytes");
        return Err(QueryError { at: 1, reason });
    }
    let mut reader = Reader {
        text: text.chars().collect(),
        at: 0,
        conditions: 0,
    };
    reader.space();
    if reader.peek().is_none() {
        return Err(reader.wrong("it is empty: `*` asks for all things"));
    }
    let read = reader.any_of(0)?;
    match reader.peek() {
        None => Ok(read),
        Some(')') => Err(reader.wrong("this parenthesis was never opened")),
        Some(c) => Err(reader.wrong(&format!("{c:?} is not expected here"))),
    }
}

struct Reader {
    text: Vec<char>,
    at: usize,
    conditions: usize,
}

impl Reader {
    fn wrong(&self, reason: &str) -> QueryError {
        QueryError {
            at: self.at + 1,
            reason: reason.to_owned(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += 1;
        }
        found
    }

    /// Whether a word stands here by itself; passes it if so.
    fn word(&mut self, word: &str) -> bool {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = word.chars().count();
        let stands = rest.iter().take(length).copied().eq(word.chars())
            && rest
                .get(length)
                .is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')'));
        if stands {
            self.at += length;
            self.space();
        }
        stands
    }

    fn any_of(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut these = vec![self.all_of(depth)?];
        while self.word("OR") {
            these.push(self.all_of(depth)?);
        }
        Ok(match these.len() {
            1 => these.remove(0),
            _ => Expression::Or(these),
        })
    }

    fn all_of(&mut self, depth: usize) -> Result<Expression, QueryError> {
        let mut these = vec![self.one(depth)?];
        loop {
            let joined = self.word("AND");
            let ends = self.peek().is_none_or(|c| c == ')') || self.is_or();
            if joined && ends {
                return Err(self.wrong("a condition is missing behind AND"));
            }
            if ends {
                break;
            }
            these.push(self.one(depth)?);
        }
        Ok(match these.len() {
            1 => these.remove(0),
            _ => Expression::And(these),
        })
    }

    fn is_or(&mut self) -> bool {
        let before = self.at;
        let found = self.word("OR");
        self.at = before;
        found
    }

    fn one(&mut self, depth: usize) -> Result<Expression, QueryError> {
        if depth >= DEPTH_LIMIT_LEVELS {
            return Err(self.wrong(&format!(
                "parentheses and negations nest at most {DEPTH_LIMIT_LEVELS} deep"
            )));
        }
        if self.word("NOT") || self.take('-') {
            self.space();
            return Ok(Expression::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take('(') {
            self.space();
            let inner = self.any_of(depth + 1)?;
            if !self.take(')') {
                return Err(self.wrong("a parenthesis is not closed"));
            }
            self.space();
            return Ok(inner);
        }
        self.condition()
    }

    fn condition(&mut self) -> Result<Expression, QueryError> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_LIMIT_ITEMS {
            return Err(self.wrong(&format!(
                "a query has at most {CONDITIONS_LIMIT_ITEMS} conditions"
            )));
        }
        let start = self.at;
        let (parts, quoted) = self.value(true)?;
        let before_space = self.at;
        self.space();
        if !quoted && self.take(':') {
            self.space();
            let field = self.field(start, &parts)?;
            let test = self.test()?;
            self.space();
            return check(field, test, self);
        }
        if !quoted && let Some((low, inclusive)) = self.comparison() {
            let field = self.field(start, &parts)?;
            self.space();
            let (value, _) = self.value(false)?;
            let bound = Some(Bound {
                value: self.plain(&value)?,
                inclusive,
            });
            let test = match low {
                true => Test::Between(bound, None),
                false => Test::Between(None, bound),
            };
            self.space();
            return check(field, test, self);
        }
        self.at = before_space;
        self.space();
        let pattern = Pattern::new(parts);
        if pattern.is_anything() && !quoted {
            return Ok(Expression::All);
        }
        Ok(Expression::Condition(Field::Any, Test::Is(pattern)))
    }

    /// `>`, `>=`, `<`, `<=`: whether it gives the low end, and whether the end belongs to it.
    fn comparison(&mut self) -> Option<(bool, bool)> {
        let low = match self.peek() {
            Some('>') => true,
            Some('<') => false,
            _ => return None,
        };
        self.at += 1;
        Some((low, self.take('=')))
    }

    fn field(&self, start: usize, parts: &[Part]) -> Result<Field, QueryError> {
        let wrong = |reason: String| QueryError {
            at: start + 1,
            reason,
        };
        let name: Option<String> = parts
            .iter()
            .map(|part| match part {
                Part::One(c) => Some(*c),
                Part::AnyOne | Part::Any => None,
            })
            .collect();
        let name = name.ok_or_else(|| wrong("a field's name has no wildcard".to_owned()))?;
        Ok(match name.as_str() {
            "thingName" => Field::Name,
            "thingId" => Field::Id,
            "thingTypeName" | "registry.thingTypeName" => Field::Type,
            "thingGroupNames" | "registry.thingGroupNames" => Field::Groups,
            "registry.version" => Field::Version,
            "connectivity.connected" => Field::Connected,
            other => match other.strip_prefix("attributes.") {
                Some(attribute) if !attribute.is_empty() => Field::Attribute(attribute.to_owned()),
                _ => {
                    let shown: String = other.chars().take(80).collect();
                    return Err(wrong(format!(
                        "there is no field {shown:?}; there are {FIELDS}"
                    )));
                }
            },
        })
    }

    fn test(&mut self) -> Result<Test, QueryError> {
        if let Some((low, inclusive)) = self.comparison() {
            self.space();
            let (value, _) = self.value(false)?;
            let bound = Some(Bound {
                value: self.plain(&value)?,
                inclusive,
            });
            return Ok(match low {
                true => Test::Between(bound, None),
                false => Test::Between(None, bound),
            });
        }
        let Some(open @ ('[' | '{')) = self.peek() else {
            let (parts, _) = self.value(false)?;
            return Ok(Test::Is(Pattern::new(parts)));
        };
        self.at += 1;
        self.space();
        let low = self.end_of_range(open == '[')?;
        if !self.word("TO") {
            return Err(
                self.wrong("a range is written [LOW TO HIGH], or {LOW TO HIGH} without its ends")
            );
        }
        let before = self.at;
        let high = self.end_of_range(true)?;
        let close = self.peek();
        if !matches!(close, Some(']' | '}')) {
            self.at = before;
            return Err(self.wrong("a range is not closed by ] or }"));
        }
        self.at += 1;
        let high = high.map(|high| Bound {
            inclusive: close == Some(']'),
            ..high
        });
        if low.is_none() && high.is_none() {
            return Err(self.wrong("a range has one end at least"));
        }
        Ok(Test::Between(low, high))
    }

    /// `*` is no end at all.
    fn end_of_range(&mut self, inclusive: bool) -> Result<Option<Bound>, QueryError> {
        let (parts, quoted) = self.value(false)?;
        self.space();
        if !quoted && parts == [Part::Any] {
            return Ok(None);
        }
        let value = self.plain(&parts)?;
        Ok(Some(Bound { value, inclusive }))
    }

    fn plain(&self, parts: &[Part]) -> Result<String, QueryError> {
        let text = parts.iter().map(|part| match part {
            Part::One(c) => Some(*c),
            Part::AnyOne | Part::Any => None,
        });
        text.collect::<Option<String>>()
            .ok_or_else(|| self.wrong("the end of a range has no wildcard"))
    }

    /// A word, or a phrase in quotation marks; `\` takes the meaning from what follows. With `before_colon` a word
    /// ends at `:` and comparisons too.
    fn value(&mut self, before_colon: bool) -> Result<(Vec<Part>, bool), QueryError> {
        let mut parts = Vec::new();
        if self.take('"') {
            loop {
                match self.next_escaped()? {
                    None => return Err(self.wrong("a quotation mark is not closed")),
                    Some(('"', false)) => return Ok((parts, true)),
                    Some((c, _)) => parts.push(Part::One(c)),
                }
            }
        }
        while let Some(c) = self.peek() {
            let ends = c.is_whitespace()
                || matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '"')
                || (before_colon && matches!(c, ':' | '<' | '>'));
            if ends {
                break;
            }
            parts.push(match self.next_escaped()? {
                Some(('*', false)) => Part::Any,
                Some(('?', false)) => Part::AnyOne,
                Some((c, _)) => Part::One(c),
                None => break,
            });
        }
        if parts.is_empty() {
            return Err(self.wrong("a value is missing here: put an empty one in quotation marks"));
        }
        Ok((parts, false))
    }

    /// The next character, and whether `\` stood before it.
    fn next_escaped(&mut self) -> Result<Option<(char, bool)>, QueryError> {
        let Some(c) = self.peek() else {
            return Ok(None);
        };
        self.at += 1;
        if c != '\\' {
            return Ok(Some((c, false)));
        }
        match self.peek() {
            None => Err(self.wrong("nothing follows the last backslash")),
            Some(escaped) => {
                self.at += 1;
                Ok(Some((escaped, true)))
            }
        }
    }
}

/// Holds a condition to what its field can be.
fn check(field: Field, test: Test, reader: &Reader) -> Result<Expression, QueryError> {
    if field == Field::Connected {
        let known =
            matches!(&test, Test::Is(pattern) if matches!(pattern.exact(), Some("true" | "false")));
        if !known {
            return Err(reader.wrong("connectivity.connected is true or false"));
        }
    }
    Ok(Expression::Condition(field, test))
}
