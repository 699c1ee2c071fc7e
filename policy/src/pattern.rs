//! Patterns over names: `*` any characters, `?` one, variables by their value.
//!
//! A pattern is cut at its stars. The piece before the first star must begin the name, the
//! piece behind the last must end it, and each piece between is taken where it comes first,
//! which is always as good as any later place: nothing is ever tried again, so there is no
//! backtracking, no recursion and no memory. A literal between stars is found in linear time;
//! a piece with `?` or variables inside is compared at each place where its first character
//! stands, at worst `name × piece` bytes compared, at the pace of `memcmp`.
//!
//! A variable's value is text. Nothing in it is a wildcard here. Where one has no value, nothing
//! matches.

use std::sync::Arc;

/// The values of a document's variables in one connection, by their number.
pub(crate) type Values<'v> = &'v [Option<Arc<str>>];

/// A pattern, character by character, as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    One,
    Star,
    /// By its number among the document's variables.
    Variable(u16),
}

/// A piece of a compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    One,
    Star,
    Variable(u16),
}

/// A compiled pattern. No two literals or stars stand side by side, and no `?` behind a star
/// (`*?` is `?*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Box<[Segment]>);

impl Pattern {
    pub(crate) fn compile(tokens: &[Token]) -> Self {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut star = false;
        for token in tokens {
            if let Token::Char(c) = token {
                if std::mem::take(&mut star) {
                    segments.push(Segment::Star);
                }
                literal.push(*c);
                continue;
            }
            if !literal.is_empty() {
                segments.push(Segment::Literal(std::mem::take(&mut literal).into()));
            }
            match token {
                Token::Star => star = true,
                Token::One => segments.push(Segment::One),
                Token::Variable(variable) => {
                    if std::mem::take(&mut star) {
                        segments.push(Segment::Star);
                    }
                    segments.push(Segment::Variable(*variable));
                }
                Token::Char(_) => {}
            }
        }
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal.into()));
        }
        if star {
            segments.push(Segment::Star);
        }
        Self(segments.into())
    }

    /// The pattern taken apart again, with the values of its variables; `None` where one has
    /// none.
    pub(crate) fn tokens(&self, values: Values<'_>) -> Option<Vec<Token>> {
        self.expand(|variable, tokens| {
            tokens.extend(value(values, variable)?.chars().map(Token::Char));
            Some(())
        })
    }

    /// The pattern taken apart again, variables by their number.
    pub(crate) fn raw(&self) -> Vec<Token> {
        let kept = self.expand(|variable, tokens| {
            tokens.push(Token::Variable(variable));
            Some(())
        });
        kept.unwrap_or_default()
    }

    /// The same pattern with a star for each variable that has no value.
    pub(crate) fn opened(&self, values: Values<'_>) -> Self {
        let tokens = self.expand(|variable, tokens| {
            tokens.push(match value(values, variable) {
                Some(_) => Token::Variable(variable),
                None => Token::Star,
            });
            Some(())
        });
        Self::compile(&tokens.unwrap_or_default())
    }

    fn expand(&self, variable: impl Fn(u16, &mut Vec<Token>) -> Option<()>) -> Option<Vec<Token>> {
        let mut tokens = Vec::new();
        for segment in &self.0 {
            match segment {
                Segment::Literal(literal) => tokens.extend(literal.chars().map(Token::Char)),
                Segment::One => tokens.push(Token::One),
                Segment::Star => tokens.push(Token::Star),
                Segment::Variable(number) => variable(*number, &mut tokens)?,
            }
        }
        Some(tokens)
    }

    /// Whether the whole of `name` matches.
    pub(crate) fn matches(&self, name: &str, values: Values<'_>) -> bool {
        let is_star = |segment: &Segment| *segment == Segment::Star;
        let mut pieces = self.0.split(is_star);
        let Some(mut left) = pieces
            .next()
            .and_then(|first| strip_start(name, first, values))
        else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return left.is_empty();
        };
        // The end is settled first: what the pieces between may use is then known.
        let Some(middle) = strip_end(left, last, values) else {
            return false;
        };
        left = middle;
        for piece in pieces {
            match find(left, piece, values) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    }
}

fn value<'v>(values: Values<'v>, variable: u16) -> Option<&'v str> {
    values.get(usize::from(variable))?.as_deref()
}

/// What is left of `text` behind `piece`, which must begin it.
fn strip_start<'t>(text: &'t str, piece: &[Segment], values: Values<'_>) -> Option<&'t str> {
    piece.iter().try_fold(text, |left, segment| match segment {
        Segment::Literal(literal) => left.strip_prefix(&**literal),
        Segment::Variable(variable) => left.strip_prefix(value(values, *variable)?),
        Segment::One => {
            let mut chars = left.chars();
            chars.next().map(|_| chars.as_str())
        }
        Segment::Star => None,
    })
}

/// What is left of `text` before `piece`, which must end it.
fn strip_end<'t>(text: &'t str, piece: &[Segment], values: Values<'_>) -> Option<&'t str> {
    piece
        .iter()
        .rev()
        .try_fold(text, |left, segment| match segment {
            Segment::Literal(literal) => left.strip_suffix(&**literal),
            Segment::Variable(variable) => left.strip_suffix(value(values, *variable)?),
            Segment::One => {
                let mut chars = left.chars();
                chars.next_back().map(|_| chars.as_str())
            }
            Segment::Star => None,
        })
}

/// What is left of `text` behind the first place where `piece` stands.
fn find<'t>(text: &'t str, piece: &[Segment], values: Values<'_>) -> Option<&'t str> {
    let first = match piece.first()? {
        Segment::Literal(literal) => &**literal,
        Segment::Variable(variable) => value(values, *variable)?,
        // `compile` puts no `?` and no star behind a star.
        Segment::One | Segment::Star => return None,
    };
    if piece.len() == 1 {
        let place = text.find(first)?;
        return text.get(place + first.len()..);
    }
    let start = first.chars().next()?;
    let mut left = text;
    loop {
        left = left.get(left.find(start)?..)?;
        if let Some(rest) = strip_start(left, piece, values) {
            return Some(rest);
        }
        left = left.get(start.len_utf8()..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME_MAX_BYTES: usize = 65_535;

    fn pattern(text: &str) -> Pattern {
        let tokens = text.chars().map(|c| match c {
            '*' => Token::Star,
            '?' => Token::One,
            '$' => Token::Variable(0),
            c => Token::Char(c),
        });
        Pattern::compile(&tokens.collect::<Vec<_>>())
    }

    fn matches_for(client_id: &str, text: &str, name: &str) -> bool {
        pattern(text).matches(name, &[Some(client_id.into())])
    }

    #[test]
    fn wildcards_and_literals() {
        for (text, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("a/*", "a/", true),
            ("a/*", "a", false),
            ("a/*/c", "a/b/b/c", true),
            ("a*a", "a", false),
            ("?", "é", true),
            ("?", "", false),
            ("??", "é", false),
            ("*?", "", false),
            ("*?*?*", "ab", true),
            ("*?*?*", "a", false),
            ("a?*?b", "a12b", true),
            ("a?*?b", "a1b", false),
            ("*ab?c*", "abab.c", true),
            ("*é?", "ééé", true),
            ("some/+/x", "some/a/x", false),
            ("a/#", "a/b", false),
            ("a\0b", "a\0b", true),
            ("a", "a\0", false),
        ] {
            assert_eq!(matches_for("", text, name), expected, "{text} {name}");
        }
    }

    #[test]
    fn values_are_text() {
        assert!(matches_for("*", "dt/$/x", "dt/*/x"));
        assert!(!matches_for("*", "dt/$/x", "dt/lamp/x"));
        assert!(!matches_for("?", "dt/$/x", "dt/a/x"));
        assert!(matches_for("aab", "*$x*", "aaabx"));
        assert!(matches_for("a", "*$$*", "baab"));
        assert!(!matches_for("a", "*$?$", "aa"));
    }

    #[test]
    fn a_star_cannot_share_what_the_end_took() {
        assert!(!matches_for("", "ab*ba", "aba"));
        assert!(matches_for("", "ab*ba", "abba"));
        assert!(!matches_for("", "*ab*ab", "cab"));
    }

    #[test]
    fn hostile_patterns_finish() {
        let name = "a".repeat(NAME_MAX_BYTES);
        assert!(!matches_for("", &("*a".repeat(30_000) + "*b"), &name));
        assert!(!matches_for("", &("*a".repeat(30_000) + "b*"), &name));
        assert!(matches_for("", &"*a".repeat(30_000), &name));
        assert!(!matches_for(
            "",
            &format!("*{}b*", "a".repeat(2_000)),
            &name
        ));
        assert!(!matches_for("", &format!("*a{}b*", "?".repeat(200)), &name));
        // The dearest shape: a long value compared at every place.
        assert!(!matches_for(&"a".repeat(30_000), "*$?b*", &name));
    }
}
