//! From a document to its statements: nothing is skipped, nothing is guessed.

use std::str::FromStr;

use serde::Serialize;

use crate::action::{ActionSet, nearest_action};
use crate::arn::Resource;
use crate::error::{PolicyError, Problem};
use crate::json::{Member, Node, at};
use crate::shown::{WORD_MAX_CHARS, nearest, shown};

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
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    text: Box<str>,
    statements: Box<[Statement]>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) sid: Option<Box<str>>,
    pub(crate) effect: Effect,
    pub(crate) actions: ActionSet,
    pub(crate) resources: Box<[Resource]>,
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

    /// Reads a document of a size that the caller allows.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn parse_within(text: &str, limits: &Limits) -> Result<Self, PolicyError> {
        check_size(text, limits)?;
        Ok(Self {
            text: text.into(),
            statements: read_document(&Node::read(text)?)?,
        })
    }

    /// The document, byte for byte as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn statements(&self) -> &[Statement] {
        &self.statements
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn check_size(text: &str, limits: &Limits) -> Result<(), PolicyError> {
    let max = limits.document_max_bytes;
    if text.len() > max {
        return Err(at(
            text,
            max,
            Problem::TooManyBytes {
                bytes: text.len(),
                max,
            },
        ));
    }
    let max = limits.document_max_visible_chars;
    let mut visible = text.char_indices().filter(|(_, c)| !c.is_whitespace());
    if let Some((offset, _)) = visible.nth(max) {
        let chars = max + 1 + visible.count();
        return Err(at(
            text,
            offset,
            Problem::TooManyVisibleChars { chars, max },
        ));
    }
    if text.starts_with('\u{feff}') {
        return Err(at(text, 0, Problem::ByteOrderMark));
    }
    Ok(())
}

/// Puts a member into its slot, which must be empty still.
fn fill<'t>(
    slot: &mut Option<Node<'t>>,
    member: Member<'t>,
    of: &'static str,
) -> Result<(), PolicyError> {
    if slot.is_some() {
        let key = shown(&member.key, WORD_MAX_CHARS);
        return Err(member.key_node.error(Problem::DuplicateKey { of, key }));
    }
    *slot = Some(member.value);
    Ok(())
}

fn unknown_key(
    member: &Member<'_>,
    of: &'static str,
    known: &'static str,
    words: &[&'static str],
) -> PolicyError {
    member.key_node.error(Problem::UnknownKey {
        of,
        key: shown(&member.key, WORD_MAX_CHARS),
        known,
        nearest: nearest(&member.key, words),
    })
}

fn read_document(document: &Node<'_>) -> Result<Box<[Statement]>, PolicyError> {
    const OF: &str = "the document";
    let (mut version, mut id, mut statement) = (None, None, None);
    for member in document.members(OF, "an object with Version and Statement")? {
        match member.key.as_str() {
            "Version" => fill(&mut version, member, OF)?,
            "Id" => fill(&mut id, member, OF)?,
            "Statement" => fill(&mut statement, member, OF)?,
            _ => {
                let words = ["Version", "Id", "Statement"];
                return Err(unknown_key(
                    &member,
                    OF,
                    "Version, Id and Statement",
                    &words,
                ));
            }
        }
    }
    let missing = |key| document.error(Problem::MissingKey { of: OF, key });
    let version = read_version(&version.ok_or_else(|| missing("Version"))?)?;
    if let Some(id) = id {
        id.text("Id", "a string")?;
    }
    statement
        .ok_or_else(|| missing("Statement"))?
        .one_or_many("Statement")?
        .iter()
        .map(|node| read_statement(node, version))
        .collect()
}

fn read_version(node: &Node<'_>) -> Result<Version, PolicyError> {
    let text = node.text("Version", "a string")?;
    match text.value.as_str() {
        "2012-10-17" => Ok(Version::WithVariables),
        "2008-10-17" => Ok(Version::WithoutVariables),
        _ => Err(text.error(Problem::UnknownVersion {
            found: text.shown(),
        })),
    }
}

fn read_statement(node: &Node<'_>, version: Version) -> Result<Statement, PolicyError> {
    const OF: &str = "a statement";
    let (mut sid, mut effect, mut action, mut resource) = (None, None, None, None);
    for member in node.members(OF, "an object with Effect, Action and Resource")? {
        match member.key.as_str() {
            "Sid" => fill(&mut sid, member, OF)?,
            "Effect" => fill(&mut effect, member, OF)?,
            "Action" => fill(&mut action, member, OF)?,
            "Resource" => fill(&mut resource, member, OF)?,
            _ => {
                let words = ["Sid", "Effect", "Action", "Resource"];
                return Err(unknown_key(
                    &member,
                    OF,
                    "Sid, Effect, Action and Resource",
                    &words,
                ));
            }
        }
    }
    let missing = |key| node.error(Problem::MissingKey { of: OF, key });
    let sid = match sid {
        Some(sid) => Some(sid.text("Sid", "a string")?.value.into_boxed_str()),
        None => None,
    };
    Ok(Statement {
        sid,
        effect: read_effect(&effect.ok_or_else(|| missing("Effect"))?)?,
        actions: read_actions(&action.ok_or_else(|| missing("Action"))?)?,
        resources: resource
            .ok_or_else(|| missing("Resource"))?
            .one_or_many("Resource")?
            .iter()
            .map(|node| {
                Resource::read(
                    &node.text("Resource", "a string or a list of strings")?,
                    version,
                )
            })
            .collect::<Result<_, _>>()?,
    })
}

fn read_effect(node: &Node<'_>) -> Result<Effect, PolicyError> {
    let text = node.text("Effect", "a string")?;
    match text.value.as_str() {
        "Allow" => Ok(Effect::Allow),
        "Deny" => Ok(Effect::Deny),
        other => {
            let nearest = nearest(other, &["Allow", "Deny"]);
            Err(text.error(Problem::UnknownEffect {
                found: text.shown(),
                nearest,
            }))
        }
    }
}

fn read_actions(node: &Node<'_>) -> Result<ActionSet, PolicyError> {
    let mut actions = ActionSet::default();
    for node in node.one_or_many("Action")? {
        let text = node.text("Action", "a string or a list of strings")?;
        let named = ActionSet::named_by(&text.value);
        if named.is_empty() {
            let nearest = nearest_action(&text.value);
            return Err(text.error(Problem::UnknownAction {
                found: text.shown(),
                nearest,
            }));
        }
        actions = actions.union(named);
    }
    Ok(actions)
}
