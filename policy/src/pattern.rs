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
pub(crate) struct Pattern {
    segments: Box<[Segment]>,
    /// Where the first star and the last one stand; behind the end where there is none.
    first_star: u32,
    last_star: u32,
}

/// Bytes of a name that a [`Prefix`] looks at.
const PREFIX_BYTES: usize = 8;

/// The first bytes of all names that a pattern can match, as far as they are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    bytes: u64,
    /// Which of them count.
    mask: u64,
}

impl Prefix {
    /// Of any name.
    pub(crate) const ANY: Self = Self { bytes: 0, mask: 0 };

    fn of(text: &str) -> Self {
        let mask = match text.len().min(PREFIX_BYTES) {
            PREFIX_BYTES => u64::MAX,
            bytes => (1 << (8 * bytes)) - 1,
        };
        let bytes = beginning(text);
        Self { bytes, mask }
    }

    /// What both have in common.
    pub(crate) fn common(self, other: Self) -> Self {
        let same = (self.bytes ^ other.bytes).trailing_zeros() / 8;
        let same = 1_u64.checked_shl(8 * same).map_or(u64::MAX, |bit| bit - 1);
        let mask = self.mask & other.mask & same;
        let bytes = self.bytes & mask;
        Self { bytes, mask }
    }

    /// Whether a name with this [`beginning`] can be meant.
    #[inline]
    pub(crate) fn begins(self, beginning: u64) -> bool {
        (self.bytes ^ beginning) & self.mask == 0
    }
}

/// The first bytes of a name, zeros behind its end.
#[inline]
pub(crate) fn beginning(name: &str) -> u64 {
    match name.as_bytes().first_chunk::<PREFIX_BYTES>() {
        Some(first) => u64::from_le_bytes(*first),
        None => {
            let bytes = name.bytes().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(byte))
        }
    }
}

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
        let is_star = |segment: &Segment| *segment == Segment::Star;
        let place = |place: Option<usize>| u32::try_from(place.unwrap_or(segments.len()));
        let first_star = place(segments.iter().position(is_star)).unwrap_or(u32::MAX);
        let last_star = place(segments.iter().rposition(is_star)).unwrap_or(u32::MAX);
        Self {
            segments: segments.into(),
            first_star,
            last_star,
        }
    }

    /// How every name begins that it can match.
    pub(crate) fn prefix(&self) -> Prefix {
        match self.segments.first() {
            Some(Segment::Literal(literal)) => Prefix::of(literal),
            _ => Prefix::ANY,
        }
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
        for segment in &self.segments {
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
    #[inline]
    pub(crate) fn matches(&self, name: &str, values: Values<'_>) -> bool {
        let (first, last) = (self.first_star as usize, self.last_star as usize);
        let Some((head, rest)) = self.segments.split_at_checked(first) else {
            return false;
        };
        let Some(left) = strip_start(name, head, values) else {
            return false;
        };
        let Some((Segment::Star, rest)) = rest.split_first() else {
            return left.is_empty();
        };
        // Nearly all end by their only star.
        if rest.is_empty() {
            return true;
        }
        let Some((middle, tail)) = self
            .segments
            .split_at_checked(last)
            .and_then(|(before, tail)| Some((before.get(first..)?, tail.get(1..)?)))
        else {
            return false;
        };
        // The end is settled first: what the pieces between may use is then known.
        let Some(mut left) = strip_end(left, tail, values) else {
            return false;
        };
        let pieces = middle.split(|segment| *segment == Segment::Star);
        // Before the first star of the middle nothing stands.
        for piece in pieces.skip(1) {
            match find(left, piece, values) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    }
}

#[inline]
fn value<'v>(values: Values<'v>, variable: u16) -> Option<&'v str> {
    values.get(usize::from(variable))?.as_deref()
}

/// What is left of `text` behind `with`, which must begin it.
#[inline]
fn strip<'t>(text: &'t str, with: &str) -> Option<&'t str> {
    steps::add(with.len());
    // Most that differ do so at once.
    match (text.as_bytes().first(), with.as_bytes().first()) {
        (Some(is), Some(wanted)) if is != wanted => None,
        _ => text.strip_prefix(with),
    }
}

/// What is left of `text` behind `piece`, which must begin it.
#[inline]
fn strip_start<'t>(mut text: &'t str, piece: &[Segment], values: Values<'_>) -> Option<&'t str> {
    for segment in piece {
        text = match segment {
            Segment::Literal(literal) => strip(text, literal)?,
            Segment::Variable(variable) => strip(text, value(values, *variable)?)?,
            Segment::One => {
                steps::add(1);
                let mut chars = text.chars();
                chars.next().map(|_| chars.as_str())?
            }
            Segment::Star => return None,
        };
    }
    Some(text)
}

/// What is left of `text` before `piece`, which must end it.
fn strip_end<'t>(text: &'t str, piece: &[Segment], values: Values<'_>) -> Option<&'t str> {
    piece
        .iter()
        .rev()
        .try_fold(text, |left, segment| match segment {
            Segment::Literal(literal) => {
                steps::add(literal.len());
                left.strip_suffix(&**literal)
            }
            Segment::Variable(variable) => {
                let value = value(values, *variable)?;
                steps::add(value.len());
                left.strip_suffix(value)
            }
            Segment::One => {
                steps::add(1);
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
        // Linear in both, by the two-way algorithm.
        let Some(place) = text.find(first) else {
            steps::add(text.len());
            return None;
        };
        steps::add(place + first.len());
        return text.get(place + first.len()..);
    }
    let start = first.chars().next()?;
    let mut left = text;
    loop {
        let Some(place) = left.find(start) else {
            steps::add(left.len());
            return None;
        };
        steps::add(place + 1);
        left = left.get(place..)?;
        if let Some(rest) = strip_start(left, piece, values) {
            return Some(rest);
        }
        left = left.get(start.len_utf8()..)?;
    }
}

/// Counts the bytes looked at, so that tests can hold the bound; nothing otherwise.
mod steps {
    #[cfg(test)]
    thread_local!(pub(super) static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

    #[cfg(test)]
    pub(super) fn add(bytes: usize) {
        TAKEN.set(TAKEN.get() + bytes);
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub(super) fn add(_: usize) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn beginnings_are_told_apart_and_shared() {
        let prefix = |text: &str| pattern(text).prefix();
        for (text, name, expected) in [
            ("dt/*", "dt/a", true),
            ("dt/*", "dt", false),
            ("dt/*", "cmd/a", false),
            ("abcdefghi*", "abcdefghx", true),
            ("abcdefgh", "abcdefgx", false),
            ("*", "", true),
            ("?a", "xa", true),
            ("$a", "b", true),
            ("é", "è", false),
        ] {
            assert_eq!(
                prefix(text).begins(beginning(name)),
                expected,
                "{text} {name}"
            );
        }
        let both = prefix("dt/a").common(prefix("dt/bcd"));
        assert_eq!(both, prefix("dt/*"));
        assert_eq!(prefix("dt").common(prefix("dt/x")), prefix("dt"));
        assert_eq!(prefix("a").common(prefix("b")).mask, 0);
        assert_eq!(
            prefix("abcdefgh").common(prefix("abcdefgh")),
            prefix("abcdefgh")
        );
        assert_eq!(prefix("a").common(Prefix::ANY), Prefix::ANY);
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

    /// Bytes looked at to match, and the most that the module promises: each byte of the name once,
    /// and at each of its places a piece that holds more than a literal.
    fn steps(client_id: &str, text: &str, name: &str) -> (usize, usize) {
        let values = [Some(client_id.into())];
        let pattern = pattern(text);
        steps::TAKEN.set(0);
        _ = pattern.matches(name, &values);
        let bytes = |segment: &Segment| match segment {
            Segment::Literal(literal) => literal.len(),
            Segment::Variable(_) => client_id.len(),
            Segment::One | Segment::Star => 1,
        };
        let all: usize = pattern.segments.iter().map(bytes).sum();
        let pieces = pattern.segments.split(|segment| *segment == Segment::Star);
        let composed = pieces.filter(|piece| piece.len() > 1);
        let dearest = composed.map(|piece| piece.iter().map(bytes).sum::<usize>());
        let most = name.len() * (1 + dearest.max().unwrap_or(0)) + 2 * all;
        (steps::TAKEN.get(), most)
    }

    #[test]
    fn hostile_patterns_are_linear_in_the_name() {
        for text in [
            "*a*a*a*a*a*a*a*a*b".to_owned(),
            "*a".repeat(1_000) + "*b",
            "*aa".repeat(1_000) + "*b*",
            "*ab".repeat(500) + "*aab",
            "*a".repeat(1_000),
            "a*".repeat(1_000),
            "*a?b*".to_owned(),
            "*a?".repeat(100) + "b*",
            "*$?b*".to_owned(),
            format!("*{}b*", "?".repeat(500)),
            format!("*a{}b*", "?".repeat(500)),
        ] {
            for length in [4_000, 8_000, 16_000, 32_000, 64_000] {
                let (taken, most) = steps("aaaaaaaa", &text, &"a".repeat(length));
                assert!(taken <= most, "{text}: {taken} steps for {length}");
                if !text.contains(['?', '$']) {
                    assert!(taken <= length + 2 * text.len(), "{text}: {taken}");
                }
            }
        }
    }

    /// A value makes the piece longer that holds it, whatever it is made of: the longest client id
    /// and the longest certificate value cost what a pattern of that text would, and a
    /// longer name costs by its length.
    #[test]
    fn long_values_are_linear_in_the_name_too() {
        for bytes in [128, 1_024] {
            let near = "a".repeat(bytes - 1) + "b";
            for value in ["a".repeat(bytes), near] {
                for text in [
                    "*$*b".to_owned(),
                    "*$?b*".to_owned(),
                    "*$$b*".to_owned(),
                    "*a$?$?$b*".to_owned(),
                    "*$?".repeat(20) + "b*",
                    "*$*a".repeat(20) + "*b",
                    "$*$?$*$".to_owned(),
                ] {
                    let taken = [32_000, 48_000, 64_000].map(|length| {
                        let (taken, most) = steps(&value, &text, &"a".repeat(length));
                        assert!(taken <= most, "{text}: {taken} steps, {most} at most");
                        taken
                    });
                    // As much again costs as much again, but for where the pattern stands in the name.
                    let once = 2 * text.len() * (bytes + 1);
                    let [first, second] = [taken[1] - taken[0], taken[2] - taken[1]];
                    assert!(second <= first + once, "{text}: {taken:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_pattern_takes_more_steps_than_promised(
            text in "[ab?*$]{0,40}",
            name in "[ab]{0,200}|a{0,200}",
            client_id in "[ab]{0,8}|a{64,128}",
        ) {
            let (taken, most) = steps(&client_id, &text, &name);
            prop_assert!(taken <= most, "{} steps, {}", taken, most);
            let values = [Some(client_id.into())];
            if pattern(&text).matches(&name, &values) {
                prop_assert!(pattern(&text).prefix().begins(beginning(&name)));
            }
        }
    }
}
