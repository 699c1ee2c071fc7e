//! From a document to its statements: nothing is skipped, nothing is guessed.

use std::string::FromUtf8Error;

use super::{Dialect, Effect, Limits, Statement, Version};
use crate::action::{ActionSet, not_an_action};
use crate::arn::Resource;
use crate::condition;
use crate::error::{PolicyError, Problem};
use crate::json::{Member, Node, at};
use crate::shown::{WORD_MAX_CHARS, nearest, shown};
use crate::tokens::Variable;

pub(super) fn check_size(text: &str, limits: &Limits) -> Result<(), PolicyError> {
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

pub(super) fn not_utf8(error: &FromUtf8Error) -> PolicyError {
    let bytes = error.as_bytes();
    let place = error.utf8_error().valid_up_to();
    let before = bytes.get(..place).unwrap_or_default();
    let before = std::str::from_utf8(before).unwrap_or_default();
    let problem = Problem::NotUtf8 {
        byte: bytes.get(place).copied().unwrap_or_default(),
        wide: matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]),
    };
    at(before, before.len(), problem)
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

pub(super) fn statements(
    document: &Node<'_>,
    lenient: bool,
    variables: &mut Vec<Variable>,
) -> Result<Box<[Statement]>, PolicyError> {
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
    let version = match version {
        Some(version) => read_version(&version)?,
        // IAM's default.
        None if lenient => Version::WithoutVariables,
        None => return Err(missing("Version")),
    };
    let dialect = Dialect { version, lenient };
    if let Some(id) = id {
        id.text("Id", "a string")?;
    }
    statement
        .ok_or_else(|| missing("Statement"))?
        .one_or_many("Statement")?
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let mut sid = None;
            read_statement(node, dialect, variables, &mut sid).map_err(|mut error| {
                let sid = sid.map(|sid: Box<str>| shown(&sid, WORD_MAX_CHARS));
                error.statement = Some((index + 1, sid));
                error
            })
        })
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

fn read_statement(
    node: &Node<'_>,
    dialect: Dialect,
    variables: &mut Vec<Variable>,
    sid: &mut Option<Box<str>>,
) -> Result<Statement, PolicyError> {
    const OF: &str = "a statement";
    const WORDS: [&str; 7] = [
        "Sid",
        "Effect",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    ];
    let [mut name, mut effect, mut action, mut not_action] = [None; 4];
    let [mut resource, mut not_resource, mut condition] = [None; 3];
    let members = node.members(OF, "an object with Effect, Action and Resource")?;
    // Read first, so that errors in the others can name it.
    if let Some(named) = members.iter().find(|member| member.key == "Sid") {
        let text = named.value.text("Sid", "a string")?;
        *sid = Some(text.value.into_boxed_str());
    }
    for member in members {
        match member.key.as_str() {
            "Sid" => fill(&mut name, member, OF)?,
            "Effect" => fill(&mut effect, member, OF)?,
            "Action" => fill(&mut action, member, OF)?,
            "NotAction" => fill(&mut not_action, member, OF)?,
            "Resource" => fill(&mut resource, member, OF)?,
            "NotResource" => fill(&mut not_resource, member, OF)?,
            "Condition" => fill(&mut condition, member, OF)?,
            _ => {
                let known = "Sid, Effect, Action or NotAction, Resource or NotResource, Condition";
                return Err(unknown_key(&member, OF, known, &WORDS));
            }
        }
    }
    let missing = |key| node.error(Problem::MissingKey { of: OF, key });
    let effect = read_effect(&effect.ok_or_else(|| missing("Effect"))?)?;
    let (actions, named) = match (action, not_action) {
        (Some(action), None) => read_actions(&action, "Action", dialect)?,
        (None, Some(but)) => {
            let (spared, _) = read_actions(&but, "NotAction", dialect)?;
            (spared.complement(), ActionSet::default())
        }
        (None, None) => return Err(missing("Action")),
        (Some(_), Some(but)) => {
            let (one, other) = ("Action", "NotAction");
            return Err(but.error(Problem::Both { one, other }));
        }
    };
    let (of, but, resources) = match (resource, not_resource) {
        (Some(resource), None) => ("Resource", false, resource),
        (None, Some(but)) => ("NotResource", true, but),
        (None, None) => return Err(missing("Resource")),
        (Some(_), Some(but)) => {
            let (one, other) = ("Resource", "NotResource");
            return Err(but.error(Problem::Both { one, other }));
        }
    };
    let resources = resources
        .one_or_many(of)?
        .iter()
        .map(|node| {
            let text = node.text(of, "a string or a list of strings")?;
            Resource::read(&text, dialect, variables)
        })
        .collect::<Result<_, _>>()?;
    let conditions = match condition {
        Some(condition) => condition::read(&condition, dialect).map_err(bare_null)?,
        None => Box::default(),
    };
    Ok(Statement {
        offset: node.offset(),
        sid: sid.clone(),
        effect,
        actions,
        named,
        but,
        resources,
        conditions,
    })
}

/// Of the operators only Null takes no quantifier and no IfExists: the word nearest to it with one is it without.
fn bare_null(error: PolicyError) -> PolicyError {
    let problem = match error.problem {
        Problem::UnknownOperator {
            found,
            nearest: Some(nearest),
        } => Problem::UnknownOperator {
            nearest: Some(if nearest == found {
                "Null".to_owned()
            } else {
                nearest
            }),
            found,
        },
        other => other,
    };
    PolicyError { problem, ..error }
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

/// The actions that a list names, and of these the ones that stand there by themselves.
fn read_actions(
    node: &Node<'_>,
    of: &'static str,
    dialect: Dialect,
) -> Result<(ActionSet, ActionSet), PolicyError> {
    let (mut actions, mut by_themselves) = (ActionSet::default(), ActionSet::default());
    for node in node.one_or_many(of)? {
        let text = node.text(of, "a string or a list of strings")?;
        let named = ActionSet::named_by(&text.value);
        if named.is_empty() && !dialect.lenient {
            return Err(text.error(Problem::UnknownAction {
                found: text.shown(),
                instead: not_an_action(&text.value),
            }));
        }
        actions = actions.union(named);
        if !text.value.contains(['*', '?']) {
            by_themselves = by_themselves.union(named);
        }
    }
    Ok((actions, by_themselves))
}
