//! JSON with places: every value knows where in the document it stands, and no key is lost.
//!
//! `serde_json` reads; each level is taken apart as raw slices of the document, so the place of
//! a word is the distance of two slices, a repeated key is seen, and nesting costs no stack (a
//! value's inside is skipped without recursion until somebody asks for it).

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{PolicyError, Problem};
use crate::shown::{WORD_MAX_CHARS, shown};

/// A value of a document and its place in it.
#[derive(Clone, Copy)]
pub(crate) struct Node<'t> {
    document: &'t str,
    raw: &'t str,
}

/// A member of an object: the decoded key, where the key stands, and the value.
pub(crate) struct Member<'t> {
    pub(crate) key: String,
    pub(crate) key_node: Node<'t>,
    pub(crate) value: Node<'t>,
}

/// A decoded string and where it stands.
pub(crate) struct Text<'t> {
    pub(crate) value: String,
    node: Node<'t>,
}

impl<'t> Node<'t> {
    /// Reads a whole document; all of its syntax is checked here.
    pub(crate) fn read(document: &'t str) -> Result<Self, PolicyError> {
        match serde_json::from_str::<&RawValue>(document) {
            Ok(raw) => Ok(Self {
                document,
                raw: raw.get(),
            }),
            Err(error) => {
                let line_start = document
                    .split_inclusive('\n')
                    .take(error.line().saturating_sub(1))
                    .map(str::len)
                    .sum::<usize>();
                let offset = line_start.saturating_add(error.column().saturating_sub(1));
                Err(at(document, offset, syntax(&error)))
            }
        }
    }

    /// The error `problem` at this value.
    pub(crate) fn error(&self, problem: Problem) -> PolicyError {
        at(self.document, self.offset(), problem)
    }

    /// The byte of the document at which it begins.
    pub(crate) fn offset(&self) -> usize {
        self.raw
            .as_ptr()
            .addr()
            .saturating_sub(self.document.as_ptr().addr())
    }

    fn child(&self, raw: &'t RawValue) -> Self {
        Self {
            document: self.document,
            raw: raw.get(),
        }
    }

    /// What kind of value this is, with its article.
    fn found(&self) -> &'static str {
        match self.raw.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    fn wrong_type(&self, of: &'static str, expected: &'static str) -> PolicyError {
        self.error(Problem::WrongType {
            of,
            expected,
            found: self.found(),
        })
    }

    pub(crate) fn is_list(&self) -> bool {
        self.raw.starts_with('[')
    }

    /// The members of an object in their order, repeated keys included.
    pub(crate) fn members(
        &self,
        of: &'static str,
        expected: &'static str,
    ) -> Result<Vec<Member<'t>>, PolicyError> {
        if !self.raw.starts_with('{') {
            return Err(self.wrong_type(of, expected));
        }
        let entries: Entries<'t> =
            serde_json::from_str(self.raw).map_err(|error| self.error(syntax(&error)))?;
        let member = |(key, value)| {
            let key_node = self.child(key);
            let key = key_node.text("a key", "a string")?.value;
            Ok(Member {
                key,
                key_node,
                value: self.child(value),
            })
        };
        entries.0.into_iter().map(member).collect()
    }

    /// The items of a list, of which there must be one; any other value is a list of itself.
    pub(crate) fn one_or_many(&self, of: &'static str) -> Result<Vec<Node<'t>>, PolicyError> {
        if !self.is_list() {
            return Ok(vec![*self]);
        }
        let items: Items<'t> =
            serde_json::from_str(self.raw).map_err(|error| self.error(syntax(&error)))?;
        if items.0.is_empty() {
            return Err(self.error(Problem::EmptyList { of }));
        }
        Ok(items.0.into_iter().map(|raw| self.child(raw)).collect())
    }

    /// The items of a list, none included; any other value is a list of itself.
    pub(crate) fn any_number(&self) -> Result<Vec<Node<'t>>, PolicyError> {
        let empty = self.is_list()
            && self
                .raw
                .get(1..)
                .is_some_and(|rest| rest.trim_start().starts_with(']'));
        if empty {
            return Ok(Vec::new());
        }
        self.one_or_many("a list")
    }

    /// The text of a string, of a number or of true or false.
    pub(crate) fn scalar(&self, of: &'static str) -> Result<Text<'t>, PolicyError> {
        if self.raw.starts_with(['{', '[', 'n']) {
            return Err(self.wrong_type(of, "a string, a number, true or false"));
        }
        if self.raw.starts_with('"') {
            return self.text(of, "a string");
        }
        Ok(Text {
            value: self.raw.to_owned(),
            node: *self,
        })
    }

    /// The text of a string.
    pub(crate) fn text(
        &self,
        of: &'static str,
        expected: &'static str,
    ) -> Result<Text<'t>, PolicyError> {
        if !self.raw.starts_with('"') {
            return Err(self.wrong_type(of, expected));
        }
        let value = serde_json::from_str(self.raw).map_err(|error| self.error(syntax(&error)))?;
        Ok(Text { value, node: *self })
    }
}

impl Text<'_> {
    /// The error `problem` at the byte `index` of this text, or at its beginning where escapes
    /// make the two differ.
    pub(crate) fn error_at(&self, index: usize, problem: Problem) -> PolicyError {
        let plain = self.node.raw.len() == self.value.len() + 2;
        let within = if plain && index > 0 { index + 1 } else { 0 };
        at(self.node.document, self.node.offset() + within, problem)
    }

    pub(crate) fn error(&self, problem: Problem) -> PolicyError {
        self.error_at(0, problem)
    }

    /// The text as an error repeats it.
    pub(crate) fn shown(&self) -> String {
        shown(&self.value, WORD_MAX_CHARS)
    }
}

fn syntax(error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(text, _)| text);
    Problem::Syntax(shown(message, 4 * WORD_MAX_CHARS))
}

/// The error `problem` at a byte of the document, as line and column.
pub(crate) fn at(document: &str, offset: usize, problem: Problem) -> PolicyError {
    let before = document
        .get(..document.floor_char_boundary(offset))
        .unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    PolicyError {
        line: before.bytes().filter(|b| *b == b'\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        problem,
        statement: None,
    }
}

struct Entries<'t>(Vec<(&'t RawValue, &'t RawValue)>);
struct Items<'t>(Vec<&'t RawValue>);
struct Collect<T>(PhantomData<T>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect::<Self>(PhantomData))
    }
}

impl<'de> Visitor<'de> for Collect<Entries<'de>> {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Collect::<Self>(PhantomData))
    }
}

impl<'de> Visitor<'de> for Collect<Items<'de>> {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Items(items))
    }
}
