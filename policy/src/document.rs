//! A policy document, compiled.

mod reading;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use serde::Serialize;

use crate::action::ActionSet;
use crate::arn::Resource;
use crate::asked::Asked;
use crate::condition::Condition;
use crate::error::PolicyError;
use crate::gate::Gate;
use crate::json::Node;
use crate::tokens::Variable;

/// Characters besides white space that AWS takes in one document.
pub const AWS_DOCUMENT_MAX_VISIBLE_CHARS: usize = 2048;

/// Bounds on a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole document, white space included.
    pub document_max_bytes: usize,
    /// Characters besides white space; [`AWS_DOCUMENT_MAX_VISIBLE_CHARS`] keeps a document
    /// portable to AWS.
    pub document_max_visible_chars: usize,
}

impl Limits {
    /// No bound: for documents that were taken before, under bounds that may have been others.
    pub const NONE: Self = Self {
        document_max_bytes: usize::MAX,
        document_max_visible_chars: usize::MAX,
    };
}

impl Default for Limits {
    /// 64 KiB, of which every character may be visible.
    fn default() -> Self {
        Self {
            document_max_bytes: 64 * 1024,
            document_max_visible_chars: 64 * 1024,
        }
    }
}

/// What a statement does with what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// Grants, unless a Deny speaks.
    Allow,
    /// Refuses, whatever else is granted.
    Deny,
}

/// A policy document that was understood whole, compiled.
///
/// Share one between all who hold it (`Arc`): it does not know whom it judges.
#[derive(Debug, PartialEq)]
pub struct Policy {
    text: Box<str>,
    statements: Box<[Statement]>,
    /// Of each statement.
    gates: Box<[Gate]>,
    /// The variables of all resources, each once.
    variables: Box<[Variable]>,
    /// What they ask for of a connection.
    asked: Asked,
    /// Its number among the versions of its policy, where somebody counts them.
    number: Option<u32>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Statement {
    /// The byte of the document at which it begins.
    pub(crate) offset: usize,
    pub(crate) sid: Option<Box<str>>,
    pub(crate) effect: Effect,
    pub(crate) actions: ActionSet,
    /// Those that it names by themselves, without a wildcard.
    pub(crate) named: ActionSet,
    /// Whether it speaks of all but its resources (`NotResource`).
    pub(crate) but: bool,
    pub(crate) resources: Box<[Resource]>,
    pub(crate) conditions: Box<[Condition]>,
}

/// How a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) version: Version,
    /// Takes actions, keys and resources of other services, as AWS does; they match nothing.
    pub(crate) lenient: bool,
}

/// Which of the language's versions a document is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// `2008-10-17`: `${…}` is plain text.
    WithoutVariables,
    /// `2012-10-17`.
    WithVariables,
}

impl Policy {
    /// Reads a document within the default [`Limits`].
    ///
    /// # Errors
    /// The first thing in the document that is not understood, with its place.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        Self::parse_within(text, &Limits::default())
    }

    /// The text of a document as it lies in a file.
    ///
    /// # Errors
    /// [`PolicyError`] with the place of the first byte that is no UTF-8.
    pub fn text_of(bytes: Vec<u8>) -> Result<String, PolicyError> {
        String::from_utf8(bytes).map_err(|error| reading::not_utf8(&error))
    }

    /// Reads a document of a size that the caller allows.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_within(text: &str, limits: &Limits) -> Result<Self, PolicyError> {
        Self::read(text, limits, false)
    }

    /// Reads a document as AWS does: what is of another service matches nothing.
    pub(crate) fn parse_leniently(text: &str) -> Result<Self, PolicyError> {
        Self::read(text, &Limits::default(), true)
    }

    fn read(text: &str, limits: &Limits, lenient: bool) -> Result<Self, PolicyError> {
        reading::check_size(text, limits)?;
        let mut variables = Vec::new();
        let statements = reading::statements(&Node::read(text)?, lenient, &mut variables)?;
        Ok(Self {
            text: text.into(),
            gates: statements.iter().map(Gate::of).collect(),
            asked: Asked::by(&statements, &variables),
            statements,
            variables: variables.into(),
            number: None,
        })
    }

    /// The same as the version of this number, for explanations.
    #[must_use]
    pub fn numbered(self, number: u32) -> Self {
        Self {
            number: Some(number),
            ..self
        }
    }

    /// The number it was given.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.number
    }

    /// The document, byte for byte as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn gates(&self) -> &[Gate] {
        &self.gates
    }

    pub(crate) fn statements(&self) -> &[Statement] {
        &self.statements
    }

    pub(crate) fn variables(&self) -> &[Variable] {
        &self.variables
    }

    pub(crate) fn asked(&self) -> Asked {
        self.asked
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}
