//! Why a document is not a policy: the word, its place, and the mend.

use crate::action::did_you_mean;

/// A document refused, and where. The place counts from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}{}", within(.statement))]
pub struct PolicyError {
    /// Line of the word that is at fault.
    pub line: usize,
    /// Column of its first character.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
    /// The statement it stands in: its number from 1 and its `Sid`.
    pub statement: Option<(usize, Option<String>)>,
}

fn within(statement: &Option<(usize, Option<String>)>) -> String {
    match statement {
        Some((number, Some(sid))) => format!(" (statement {number}, Sid {sid:?})"),
        Some((number, None)) => format!(" (statement {number})"),
        None => String::new(),
    }
}

/// What is wrong with a document. Words quoted from it are escaped and cut short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the message of each variant says what its fields are"
)]
pub enum Problem {
    #[error("the document has {bytes} bytes, {max} are the limit: split it into several policies")]
    TooManyBytes { bytes: usize, max: usize },
    #[error(
        "the document has {chars} characters besides white space, {max} are the limit: split it into several policies"
    )]
    TooManyVisibleChars { chars: usize, max: usize },
    #[error("the document begins with a byte order mark: save it as plain UTF-8 without one")]
    ByteOrderMark,
    #[error("the byte 0x{byte:02x} here is no UTF-8: save the document as UTF-8{}", if *.wide { " (it looks like UTF-16)" } else { "" })]
    NotUtf8 { byte: u8, wide: bool },
    #[error("not JSON: {0}")]
    Syntax(String),
    #[error("{of} is {found}, but must be {expected}")]
    WrongType {
        of: &'static str,
        expected: &'static str,
        found: &'static str,
    },
    #[error("{of} has no {key:?}")]
    MissingKey { of: &'static str, key: &'static str },
    #[error("{key:?} stands twice in {of}: which one counts would be a guess")]
    DuplicateKey { of: &'static str, key: String },
    #[error("{key:?} is not understood in {of}, which takes {known}{}", did_you_mean(.nearest))]
    UnknownKey {
        of: &'static str,
        key: String,
        known: &'static str,
        nearest: Option<&'static str>,
    },
    #[error("a statement has both {one:?} and {other:?}: write one of them")]
    Both {
        one: &'static str,
        other: &'static str,
    },
    #[error("{of} is an empty list: name at least one, or leave the statement out")]
    EmptyList { of: &'static str },
    #[error("version {found:?} is not known: write \"2012-10-17\"")]
    UnknownVersion { found: String },
    #[error("effect {found:?} is not known: write \"Allow\" or \"Deny\"{}", did_you_mean(.nearest))]
    UnknownEffect {
        found: String,
        nearest: Option<&'static str>,
    },
    #[error(
        "action {found:?} names none of the actions of a device, such as iot:Connect, iot:Publish, iot:Subscribe, iot:Receive, iot:RetainPublish{instead}"
    )]
    UnknownAction {
        found: String,
        /// What is meant, or whose it is.
        instead: String,
    },
    #[error(
        "variable {found:?} is not known: there are those of AWS IoT, such as ${{iot:Connection.Thing.ThingName}}, ${{iot:ClientId}} and ${{iot:Certificate.Subject.CommonName}}, and ${{*}}, ${{?}}, ${{$}}{}",
        did_you_mean(.nearest)
    )]
    UnknownVariable {
        found: String,
        nearest: Option<String>,
    },
    #[error("the document has more than {max} different variables: split it into several policies")]
    TooManyVariables { max: u16 },
    #[error(
        "operator {found:?} is not known: there are those of IAM, such as StringEquals, StringLike, IpAddress, Bool, Null, with ForAllValues: or ForAnyValue: before and IfExists behind{}",
        did_you_mean(.nearest)
    )]
    UnknownOperator {
        found: String,
        nearest: Option<String>,
    },
    #[error(
        "condition key {found:?} is not known: there are those of AWS IoT, such as iot:ClientId, aws:SourceIp, iot:Connection.Thing.Attributes[NAME], and Muster's own, such as muster:SourceNetwork, muster:TimeOfDay[Europe/Berlin]{}",
        did_you_mean(.nearest)
    )]
    UnknownConditionKey {
        found: String,
        nearest: Option<String>,
    },
    #[error("{operator} takes {expected}, not {found:?}")]
    ConditionValue {
        operator: String,
        found: String,
        expected: &'static str,
    },
    #[error("{key} is compared by {expected}, not by {operator}")]
    OperatorOfKey {
        key: String,
        operator: String,
        expected: &'static str,
    },
    #[error("{key} is a moment: compare it by a Date operator, such as DateLessThan")]
    TimeAsText { key: String },
    #[error("a variable begins with \"${{\" here and has no \"}}\"")]
    UnclosedVariable,
    #[error(
        "a variable stands before the \"/\" that ends client/, topic/, topicfilter/, thing/ or rolealias/: write the kind of resource out"
    )]
    VariableInKind,
    #[error(
        "resource {found:?} is not understood: write \"*\" or arn:aws:iot:REGION:ACCOUNT:client/…, …:topic/…, …:topicfilter/… or …:thing/… (wildcards stay within their field)"
    )]
    NotAnArn { found: String },
    #[error("{field} {found:?} in the ARN is not understood: write {expected}, or wildcards")]
    ArnField {
        field: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error(
        "{found:?} is no client/…, topic/…, topicfilter/…, thing/… or rolealias/…, the resources that devices' actions act on{}",
        did_you_mean(.nearest)
    )]
    UnknownKind {
        found: String,
        nearest: Option<&'static str>,
    },
}
