//! What a statement says in vain: resources that no name matches, conditions that nothing meets.

use std::collections::BTreeSet;

use crate::action::{Action, Kind};
use crate::arn::Resource;
use crate::condition::Condition;
use crate::document::{Effect, Statement};
use crate::key::Key;
use crate::operator::Family;
use crate::own::Own;
use crate::pattern::{Pattern, Token};
use crate::tokens::Variable;

/// What CONNECT may ask for.
const CONNECT_ATTRIBUTES: [&str; 2] = ["PersistentConnect", "LastWill"];

/// Why a resource matches nothing that the statement's actions act on.
pub(super) fn resource(
    statement: &Statement,
    resource: &Resource,
    variables: &[&Variable],
) -> Option<String> {
    let never = |variable: &&&Variable| {
        let key = &variable.key;
        let stands_for_nothing = key.is_list()
            || key.is_moving()
            || key.is_of_message()
            || matches!(key, Key::Foreign(_));
        variable.default.is_none() && stands_for_nothing
    };
    if let Some(variable) = variables.iter().find(never) {
        return Some(format!(
            "${{{}}} is never substituted: it has several values, or moves with the clock or the message",
            variable.key
        ));
    }
    let of_client =
        |variable: &&Variable| variable.key == Key::ClientId && variable.default.is_none();
    let over_mqtt = |action: Action| statement.actions.contains(action) && action.is_over_mqtt();
    if variables.iter().any(of_client) && !Action::ALL.into_iter().any(over_mqtt) {
        return Some(
            "its actions are asked over HTTPS, where ${iot:ClientId} has no value; the thing's name has one"
                .to_owned(),
        );
    }
    if variables.is_empty()
        && ["${iot:", "${aws:", "${muster:"].iter().any(|begin| {
            let text = resource.text.to_ascii_lowercase();
            text.contains(begin)
        })
    {
        return Some(
            "in Version 2008-10-17 ${…} is plain text: write \"Version\": \"2012-10-17\""
                .to_owned(),
        );
    }
    let kinds: Vec<Kind> = Action::ALL
        .into_iter()
        .filter(|action| statement.actions.contains(*action))
        .map(Action::kind)
        .collect();
    let mut patterns: Vec<(Kind, &Pattern)> = Vec::new();
    for kind in kinds {
        patterns.extend(resource.patterns(kind).map(|pattern| (kind, pattern)));
    }
    if patterns.is_empty() {
        return Some("no action of the statement acts on it".to_owned());
    }
    let reasons: Option<Vec<&str>> = patterns
        .iter()
        .map(|(kind, pattern)| impossible(*kind, &pattern.raw()))
        .collect();
    reasons?.first().map(|why| (*why).to_owned())
}

/// Why no name of a kind matches a pattern.
fn impossible(kind: Kind, tokens: &[Token]) -> Option<&'static str> {
    let is = |c: char| move |token: &Token| *token == Token::Char(c);
    match kind {
        _ if tokens.is_empty() && kind != Kind::Everything => Some("nothing has an empty name"),
        Kind::Topic if tokens.iter().any(|token| is('#')(token) || is('+')(token)) => {
            Some("a topic name has no + and no #; write * for any characters")
        }
        Kind::TopicFilter => {
            let at = tokens.iter().position(is('#'))?;
            // What a star stands for may be nothing.
            let more = tokens
                .get(at + 1..)?
                .iter()
                .any(|token| *token != Token::Star);
            more.then_some("in a topic filter nothing follows a #")
        }
        _ => None,
    }
}

/// Why a statement's conditions are never met, whoever asks for what.
pub(super) fn conditions(statement: &Statement) -> Option<String> {
    let conditions = &statement.conditions;
    for condition in conditions {
        if condition.is_met_by_none() {
            return Some(format!(
                "{condition}: no value is named, so it is never met"
            ));
        }
        if let Some(word) = condition.wild_word() {
            return Some(format!(
                "{condition}: {word:?} is compared as it is written; StringLike knows * and ?"
            ));
        }
        if condition.key == Key::Own(Own::Listener)
            && condition.operator.quantifier.is_none()
            && condition.operator.family != Family::Null
            && condition.variables().next().is_none()
            && !statement.actions.is_empty()
            && Action::ALL
                .into_iter()
                .filter(|action| statement.actions.contains(*action))
                .all(|action| !is_asked_on(action, condition))
        {
            return Some(format!(
                "{condition}: nobody asks for its actions there; iot:Connect, iot:Subscribe and iot:Receive are MQTT's"
            ));
        }
        if condition.key == Key::ConnectAttributes
            && let Some(words) = condition.exact_words()
            && !condition.operator.negated
            && !words.is_empty()
            && words
                .iter()
                .all(|w| !CONNECT_ATTRIBUTES.contains(&w.as_str()))
        {
            return Some(format!(
                "{condition}: CONNECT asks for {}, nothing else",
                CONNECT_ATTRIBUTES.join(" or ")
            ));
        }
    }
    for (place, first) in conditions.iter().enumerate() {
        let earlier = conditions.iter().take(place);
        if earlier.map(|one| &one.key).any(|key| *key == first.key) {
            continue;
        }
        let of_key: Vec<&Condition> = conditions.iter().filter(|c| c.key == first.key).collect();
        if let Some(why) = contradiction(statement.effect, &of_key) {
            return Some(why);
        }
    }
    None
}

/// Whether an action is asked on a listener that meets a condition.
fn is_asked_on(action: Action, listener: &Condition) -> bool {
    let mqtt = action.is_over_mqtt() && (listener.takes("mqtt") || listener.takes("wss"));
    mqtt || action.is_over_https() && listener.takes("https")
}

/// Whether conditions on one key leave no value for it. Only those that can be tried out whole are.
fn contradiction(effect: Effect, conditions: &[&Condition]) -> Option<String> {
    let (first, own) = match conditions.first()? {
        Condition {
            key: Key::Own(own), ..
        } => (conditions.first()?, Some(own)),
        _ => (conditions.first()?, None),
    };
    let absence_counts = |condition: &&Condition| {
        condition.operator.if_exists && !(own.is_some() && effect == Effect::Allow)
    };
    let mut tried: BTreeSet<String> = BTreeSet::new();
    for condition in conditions {
        if condition.operator.quantifier.is_some() || absence_counts(condition) {
            return None;
        }
        tried.extend(condition.probes()?);
    }
    let possible = |value: &&String| match own {
        Some(Own::Qos) => ["0", "1", "2"].contains(&value.as_str()),
        Some(Own::CertificateRemainingLife) | None => true,
        Some(_) => !value.starts_with('-'),
    };
    let mut tried = tried.iter().filter(possible);
    let met = tried.any(|value| conditions.iter().all(|c| c.takes(value)));
    // What is negated alone holds where there is nothing.
    let none = own.is_none() && conditions.iter().all(|c| c.operator.negated);
    (!met && !none).then(|| match conditions {
        [_] => format!("{first}: no value of the key meets it"),
        _ => format!("{first}, and what else is asked of that key: no value meets all of it"),
    })
}
