//! More than one device needs: what AWS IoT Device Defender calls overly permissive
//! (`IOT_POLICY_OVERLY_PERMISSIVE_CHECK`).

use crate::action::{Action, Kind};
use crate::context::{Context, MessageFacts};
use crate::document::{Effect, Statement};
use crate::key::Key;
use crate::pattern::{Pattern, Token};
use crate::tokens::Variable;

/// Before the name of a thing, in its topics.
const OF_THINGS: &str = "$aws/things/";
const SHARED: &str = "$share/";

/// Actions with the kind of what they act on, and how to say that they act on all of it.
const DATA_PLANE: [(Kind, &[Action], &str); 4] = [
    (
        Kind::Client,
        &[Action::Connect, Action::DeleteConnection],
        "any client id",
    ),
    (
        Kind::Topic,
        &[
            Action::Publish,
            Action::Receive,
            Action::RetainPublish,
            Action::GetRetainedMessage,
        ],
        "any topic, or those of any thing",
    ),
    (
        Kind::TopicFilter,
        &[Action::Subscribe],
        "any topic filter, or those of any thing",
    ),
    (
        Kind::Thing,
        &[
            Action::GetThingShadow,
            Action::UpdateThingShadow,
            Action::DeleteThingShadow,
            Action::ListNamedShadowsForThing,
            Action::DescribeJobExecution,
            Action::GetPendingJobExecutions,
            Action::StartNextPendingJobExecution,
            Action::UpdateJobExecution,
        ],
        "any thing",
    ),
];

/// What an Allow allows by one of its resources that is more than one device needs, in words.
pub(super) fn by_resource<'p>(
    statement: &Statement,
    patterns: impl Fn(Kind) -> Vec<&'p Pattern>,
    variables: &[Variable],
) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (kind, actions, what) in DATA_PLANE {
        let speaks = actions.iter().any(|a| statement.actions.contains(*a));
        let mut patterns = patterns(kind).into_iter();
        if !speaks || !patterns.any(|pattern| is_broad(kind, &pattern.raw(), variables)) {
            continue;
        }
        found.push(if kind == Kind::Client && wants_attached(statement) {
            "any client id where the attachment is exclusive (IsAttached binds it of others only)"
        } else {
            what
        });
    }
    found
}

/// Whether an Allow of all but a few names lets one device act for others.
pub(super) fn by_exception(statement: &Statement) -> bool {
    let mut all = DATA_PLANE.iter().flat_map(|(_, actions, _)| *actions);
    statement.but && all.any(|action| statement.actions.contains(*action))
}

/// Whether it asks that the client is a thing that is attached.
fn wants_attached(statement: &Statement) -> bool {
    let nobody = Context::default();
    statement.conditions.iter().any(|condition| {
        condition.key == Key::IsAttached
            && condition.variables().next().is_none()
            && !condition.holds(Effect::Allow, &nobody, &MessageFacts::default(), true)
    })
}

fn is_broad(kind: Kind, tokens: &[Token], variables: &[Variable]) -> bool {
    let filter = kind == Kind::TopicFilter;
    let open = |token: &Token| match token {
        Token::Star | Token::One => true,
        Token::Char(c) => filter && matches!(c, '+' | '#' | '/'),
        // A client may call itself as it likes.
        Token::Variable(number) => {
            let variable = variables.get(usize::from(*number));
            kind == Kind::Client && variable.is_some_and(|v| v.key == Key::ClientId)
        }
    };
    let tokens = if filter { unshared(tokens) } else { tokens };
    let wild = |token: &Token| match token {
        Token::Char(c) => filter && matches!(c, '+' | '#'),
        Token::Star | Token::One => true,
        Token::Variable(_) => false,
    };
    if tokens.iter().all(open) {
        return tokens
            .iter()
            .any(|token| !matches!(token, Token::Char('/')));
    }
    let begins = tokens
        .iter()
        .take_while(|token| matches!(token, Token::Char(_)) && !wild(token));
    let begins: String = begins
        .filter_map(|token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        })
        .collect();
    let next = tokens.get(begins.chars().count());
    let topics = matches!(kind, Kind::Topic | Kind::TopicFilter);
    topics && begins.starts_with('$') && OF_THINGS.starts_with(&begins) && next.is_some_and(wild)
}

/// A filter without the `$share/GROUP/` before it.
fn unshared(tokens: &[Token]) -> &[Token] {
    let is_shared = SHARED
        .chars()
        .enumerate()
        .all(|(at, c)| tokens.get(at) == Some(&Token::Char(c)));
    if !is_shared {
        return tokens;
    }
    let rest = tokens.get(SHARED.len()..).unwrap_or_default();
    let slash = rest.iter().position(|token| *token == Token::Char('/'));
    match slash {
        Some(at) => rest.get(at + 1..).unwrap_or_default(),
        None => rest,
    }
}
