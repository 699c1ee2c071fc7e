//! A Deny that asks who the thing is, which a certificate that is attached without being exclusive answers by its client id.

use super::{Family, FindingKind, Key};
use crate::condition::Condition;
use crate::document::{Effect, Statement};

/// What of a Deny is silent where the thing does not count: under another client id than its name, and over HTTPS.
pub(super) fn by_name(
    statement: &Statement,
    condition: &Condition,
) -> Option<(FindingKind, String)> {
    let operator = condition.operator;
    if statement.effect != Effect::Deny || operator.family == Family::Null {
        return None;
    }
    let why = match condition.key {
        // Where there is none, what is negated speaks, and what says IfExists.
        Key::ThingName
            if !operator.negated && !operator.if_exists && operator.quantifier.is_none() =>
        {
            "the key has no value; add IfExists to deny then, too"
        }
        // It is never absent but false.
        Key::IsAttached if condition.takes("true") && !condition.takes("false") => {
            "the key is false; leave the condition out, or add a Deny for false"
        }
        _ => return None,
    };
    Some((
        FindingKind::FailsOpen,
        format!(
            "{condition}: of a certificate that is attached without being exclusive this Deny does not speak \
             under another client id than the thing's name and over HTTPS, where {why}"
        ),
    ))
}
