//! From a document to its statements: nothing is skipped, nothing is guessed.

use std::str::FromStr;

use serde::Serialize;

use crate::action::{ActionSet, nearest_action};
use crate::arn::Resource;
use crate::condition::{self, Condition};
use crate::error::{PolicyError, Problem};
use crate::gate::Gate;
use crate::json::{Member, Node, at};
use crate::shown::{WORD_MAX_CHARS, nearest, shown};
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
        check_size(text, limits)?;
        let mut variables = Vec::new();
        let statements = read_document(&Node::read(text)?, lenient, &mut variables)?;
        Ok(Self {
            text: text.into(),
            gates: statements.iter().map(Gate::of).collect(),
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

    pub(crate) fn number(&self) -> Option<u32> {
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

fn read_document(
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
    let actions = match (action, not_action) {
        (Some(action), None) => read_actions(&action, "Action", dialect)?,
        (None, Some(but)) => read_actions(&but, "NotAction", dialect)?.complement(),
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
        Some(condition) => condition::read(&condition, dialect)?,
        None => Box::default(),
    };
    Ok(Statement {
        offset: node.offset(),
        sid: sid.clone(),
        effect,
        actions,
        but,
        resources,
        conditions,
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

fn read_actions(
    node: &Node<'_>,
    of: &'static str,
    dialect: Dialect,
) -> Result<ActionSet, PolicyError> {
    let mut actions = ActionSet::default();
    for node in node.one_or_many(of)? {
        let text = node.text(of, "a string or a list of strings")?;
        let named = ActionSet::named_by(&text.value);
        if named.is_empty() && !dialect.lenient {
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

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: &str = r#"{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}"#;

    fn document(statement: &str) -> String {
        format!("{{\"Version\":\"2012-10-17\",\"Statement\":{statement}}}")
    }

    fn message(text: &str) -> String {
        Policy::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn takes_one_statement_or_a_list_and_keeps_the_text() {
        for text in [
            document(STATEMENT),
            document(&format!(" [ {STATEMENT} , {STATEMENT} ] ")),
        ] {
            assert_eq!(Policy::parse(&text).unwrap().text(), text);
        }
        let text = r#"{"Id":"x","Statement":{"Sid":"s","Effect":"Deny","Action":["iot:Pub*"],
            "Resource":["*"]},"Version":"2008-10-17"}"#;
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.statements()[0].sid.as_deref(), Some("s"));
        assert_eq!(policy.statements()[0].effect, Effect::Deny);
    }

    #[test]
    fn every_misunderstanding_is_named_with_its_place() {
        let with = |member: &str| {
            document(&STATEMENT.replace("\"Action\"", &format!("{member},\"Action\"")))
        };
        let unknown = "is not understood in a statement";
        for (text, expected) in [
            (String::new(), "line 1, column 1: not JSON: EOF"),
            (document(STATEMENT).replace('}', ""), "not JSON: EOF"),
            (document(STATEMENT) + "x", "not JSON: trailing characters"),
            (
                "\u{feff}{}".into(),
                "line 1, column 1: the document begins with a byte order mark",
            ),
            ("[]".into(), "the document is a list, but must be an object"),
            ("null".into(), "the document is null"),
            ("{}".into(), "the document has no \"Version\""),
            (
                r#"{"Version":"2012-10-17"}"#.into(),
                "the document has no \"Statement\"",
            ),
            (
                r#"{"Version":20121017,"Statement":[]}"#.into(),
                "column 12: Version is a number",
            ),
            (
                r#"{"Version":"2012-10-18","Statement":[]}"#.into(),
                "version \"2012-10-18\"",
            ),
            (document("[]"), "Statement is an empty list"),
            (document("[[]]"), "a statement is a list"),
            (
                document(&format!("[[{STATEMENT}]]")),
                "a statement is a list",
            ),
            (document("{}"), "column 37: a statement has no \"Effect\""),
            (
                with("\"Condition\":[]"),
                "column 67: Condition is a list, but must be an object of operators (statement 1)",
            ),
            (
                with("\"NotAction\":\"*\""),
                "has both \"Action\" and \"NotAction\"",
            ),
            (
                with("\"Sid\":\"s\",\"NotResource\":\"*\""),
                "has both \"Resource\" and \"NotResource\": write one of them (statement 1, Sid \"s\")",
            ),
            (
                with("\"Principal\":\"*\""),
                &format!("\"Principal\" {unknown}"),
            ),
            (with("\"action\":\"*\""), "did you mean \"Action\"?"),
            (
                with("\"Effect\":\"Deny\""),
                "\"Effect\" stands twice in a statement",
            ),
            (
                with("\"Eff\\u0065ct\":\"Deny\""),
                "\"Effect\" stands twice in a statement",
            ),
            (with("\"Sid\":[]"), "Sid is a list, but must be a string"),
            (with("\"Sid\":\"\\ud800\""), "not JSON"),
            (with("\"a\\nb\":1"), "\"a\\\\u{a}b\" is not understood"),
            (
                document(&STATEMENT.replace("Allow", "allow")),
                "did you mean \"Allow\"?",
            ),
            (
                document(&STATEMENT.replace("\"Allow\"", "true")),
                "Effect is true or false",
            ),
            (
                document(&STATEMENT.replace("iot:Publish", "iot:Pubish")),
                "did you mean \"iot:Publish\"",
            ),
            (
                document(&STATEMENT.replace("iot:Publish", "iot:GetRetained")),
                "names none of",
            ),
            (
                document(&STATEMENT.replace("\"iot:Publish\"", "[]")),
                "Action is an empty list",
            ),
            (
                document(&STATEMENT.replace("\"iot:Publish\"", "[\"*\",1]")),
                "Action is a number",
            ),
            (
                document(&STATEMENT.replace("\"*\"", "[]")),
                "Resource is an empty list",
            ),
            (
                document(&STATEMENT.replace("\"*\"", "[[\"*\"]]")),
                "Resource is a list",
            ),
            (
                document(&STATEMENT.replace("\"*\"", "{\"*\":1}")),
                "Resource is an object",
            ),
            (
                document(STATEMENT).replacen('{', "{\"Versoin\":1,", 1),
                "did you mean \"Version\"?",
            ),
        ] {
            let message = message(&text);
            assert!(message.contains(expected), "{text}\n{message}\n{expected}");
        }
    }

    #[test]
    fn conditions_are_refused_with_place_reason_and_nearest_word() {
        let with = |condition: &str| {
            let condition = format!("\"Sid\":\"Mine\",\"Condition\":{condition},\"Action\"");
            document(&STATEMENT.replace("\"Action\"", &condition))
        };
        for (condition, expected) in [
            (
                r#"{"StringEqual":{}}"#,
                "column 81: operator \"StringEqual\" is not known",
            ),
            (r#"{"StringEqual":{}}"#, "did you mean \"StringEquals\"?"),
            (
                r#"{"ForAnyValues:StringLike":{}}"#,
                "did you mean \"ForAnyValue:StringLike\"?",
            ),
            (r#"{"NullIfExists":{}}"#, "is not known"),
            (
                r#"{"Bool":{"iot:Connection.Thing.IsAtached":"true"}}"#,
                "did you mean \"iot:Connection.Thing.IsAttached\"?",
            ),
            (
                r#"{"Bool":{"iot:Connection.Thing.IsAttached":"yes"}}"#,
                "Bool takes true or false, not \"yes\" (statement 1, Sid \"Mine\")",
            ),
            (
                r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/40"}}"#,
                "IpAddress takes an address",
            ),
            (
                r#"{"NumericEquals":{"iot:ClientId":["1","x"]}}"#,
                "NumericEquals takes a whole or decimal number, not \"x\"",
            ),
            (
                r#"{"DateEquals":{"aws:CurrentTime":"soon"}}"#,
                "DateEquals takes a date",
            ),
            (
                r#"{"StringLike":{"aws:CurrentTime":"2026*"}}"#,
                "compare it by a Date operator",
            ),
            (
                r#"{"BinaryEquals":{"iot:ClientId":"?"}}"#,
                "BinaryEquals takes base64",
            ),
            (
                r#"{"ArnLike":{"iot:LastWillTopic":"topic/x"}}"#,
                "an ARN of six fields",
            ),
            (
                r#"{"Null":{"iot:ClientId":"maybe"}}"#,
                "Null takes true (the key is absent)",
            ),
            (
                r#"{"StringEquals":{"iot:ClientId":{}}}"#,
                "is an object, but must be a string",
            ),
            (
                r#"{"StringEquals":{"iot:ClientId":null}}"#,
                "is null, but must be a string",
            ),
            (
                r#"{"StringEquals":{"iot:ClientId":"a","IOT:CLIENTID":"b"}}"#,
                "\"IOT:CLIENTID\" stands twice",
            ),
            (
                r#"{"StringEquals":{},"StringEquals":{}}"#,
                "\"StringEquals\" stands twice in Condition",
            ),
            (
                r#"{"StringEquals":{"iot:ClientId":"${iot:ClientI}"}}"#,
                "did you mean \"iot:ClientId\"?",
            ),
        ] {
            let message = message(&with(condition));
            assert!(message.contains(expected), "{condition}\n{message}");
        }
    }

    /// What is far too large or too deep is refused by a bound, not by exhaustion.
    #[test]
    fn monsters_are_refused() {
        let wide = Limits {
            document_max_bytes: 64 * 1024 * 1024,
            document_max_visible_chars: 64 * 1024 * 1024,
        };
        let megabyte = document(&STATEMENT.replace('*', &"a".repeat(1 << 20)));
        let many = document(&format!("[{}]", vec![STATEMENT; 100_000].join(",")));
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let deep = [
            document(&deep),
            document(&STATEMENT.replace("\"*\"", &deep)),
        ];
        for text in [&megabyte, &many] {
            assert!(message(text).contains("are the limit"));
        }
        for text in &deep {
            assert!(
                message(text).starts_with("line 1, column "),
                "refused at its place"
            );
        }
        assert!(Policy::parse_within(&many, &wide).is_ok());
        let variables = (0..3_000).map(|n| format!("${{iot:Connection.Thing.Attributes[{n}]}}"));
        let crowded = STATEMENT.replace(
            "\"*\"",
            &format!(
                "\"arn:aws:iot:*:1:topic/{}\"",
                variables.collect::<String>()
            ),
        );
        assert!(Policy::parse_within(&document(&crowded), &wide).is_ok());
    }

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let text = document(STATEMENT).replace("\"Action\"", "\n  \"Sid\": \"é\", \"Actoin\"");
        let error = Policy::parse(&text).unwrap_err();
        assert_eq!((error.line, error.column), (2, 15));
    }

    #[test]
    fn the_bounds_hold_exactly() {
        let text = document(STATEMENT);
        let limits = Limits {
            document_max_bytes: text.len() + 1,
            document_max_visible_chars: text.len(),
        };
        assert!(Policy::parse_within(&format!("{text} "), &limits).is_ok());
        let error = Policy::parse_within(&format!("{text}  "), &limits).unwrap_err();
        assert!(
            matches!(error.problem, Problem::TooManyBytes { .. }),
            "{error}"
        );
        let fewer = Limits {
            document_max_visible_chars: text.len() - 1,
            ..limits
        };
        let error = Policy::parse_within(&text, &fewer).unwrap_err();
        let (chars, max) = (text.len(), text.len() - 1);
        assert_eq!(error.problem, Problem::TooManyVisibleChars { chars, max });
        let padded = text.clone() + &" ".repeat(64 * 1024 - text.len());
        assert!(Policy::parse(&padded).is_ok());
        assert!(Policy::parse(&(padded + " ")).is_err());
    }

    #[test]
    fn great_documents_cost_bounded_work() {
        let wide = Limits {
            document_max_bytes: usize::MAX,
            document_max_visible_chars: usize::MAX,
        };
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for text in [
            document(&deep),
            document(&STATEMENT.replace("\"*\"", &deep)),
            deep,
        ] {
            assert!(Policy::parse(&text).is_err());
        }
        let list = format!("[{}{STATEMENT}]", format!("{STATEMENT},").repeat(99_999));
        let policy = Policy::parse_within(&document(&list), &wide).unwrap();
        assert_eq!(policy.statements().len(), 100_000);
        let keys = (0..100_000)
            .map(|n| format!("\"k{n}\":0,"))
            .collect::<String>();
        assert!(Policy::parse_within(&format!("{{{keys}\"x\":1}}"), &wide).is_err());
        assert!(Policy::parse(&" ".repeat(1_000_000)).is_err());
        assert!(Policy::parse_within(&"\"x".repeat(1_000_000), &wide).is_err());
    }

    #[test]
    fn the_older_version_has_no_variables() {
        let text = document(STATEMENT).replace("\"*\"", "\"arn:aws:iot:*:1:topic/${x\"");
        assert!(Policy::parse(&text).is_err());
        assert!(Policy::parse(&text.replace("2012", "2008")).is_ok());
    }
}
