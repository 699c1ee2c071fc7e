//! The language by the letter of its documentation, as plainly as it can be written: every document is read anew for
//! each question, nothing is compiled, nothing is remembered.

use policy::{Decision, UnresolvedDeny};
use serde_json::Value;

use super::conditions;
use super::facts::{is_own, substitute};
use super::{Case, Unread};

/// One place of a pattern, variables by their value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// A variable without a value.
    Nothing,
}

/// A pattern as it stands for one connection.
pub(super) struct Written {
    pub(super) tokens: Vec<Token>,
    /// Whether a variable's value would be a wildcard to MQTT.
    brings_wild: bool,
    /// Whether one of Muster's own keys has no value.
    pub(super) lacks_own: bool,
}

impl Written {
    pub(super) fn lacks(&self) -> bool {
        self.tokens.contains(&Token::Nothing)
    }
}

/// IAM's evaluation: nothing is allowed but what a statement allows, and a Deny outweighs all.
pub(super) fn decide(documents: &[String], case: &Case) -> Result<Decision, Unread> {
    let mut decision = Decision::ImplicitDeny;
    for document in documents {
        let document: Value = serde_json::from_str(document).unwrap();
        let variables = document["Version"] == "2012-10-17";
        for statement in list(&document["Statement"]) {
            if !speaks(statement, variables, case)? {
                continue;
            }
            if statement["Effect"] == "Deny" {
                decision = Decision::ExplicitDeny;
            } else if decision == Decision::ImplicitDeny {
                decision = Decision::Allow;
            }
        }
    }
    Ok(decision)
}

/// A value alone is a list of one.
pub(super) fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn speaks(statement: &Value, variables: bool, case: &Case) -> Result<bool, Unread> {
    let action = format!("iot:{}", case.action).to_lowercase();
    let acts = |patterns: &Value| {
        let pattern = |pattern: &Value| plain(&pattern.as_str().unwrap().to_lowercase(), &action);
        list(patterns).iter().any(pattern)
    };
    let acts = match statement.get("Action") {
        Some(patterns) => acts(patterns),
        None => !acts(&statement["NotAction"]),
    };
    let allows = statement["Effect"] == "Allow";
    let mut named = false;
    let (resources, but) = match statement.get("Resource") {
        Some(resources) => (resources, false),
        None => (&statement["NotResource"], true),
    };
    for resource in list(resources) {
        // What grants must cover all that is asked; what takes away needs only to touch it.
        named |= is_named(resource.as_str().unwrap(), allows != but, variables, case)?;
    }
    let met = match statement.get("Condition") {
        Some(condition) => conditions::met(condition, allows, variables, case)?,
        None => true,
    };
    Ok(acts && named != but && met)
}

/// The first word of the ARN's last field, by the action; none where the action knows `*` only.
fn kind(action: &str) -> Option<&'static str> {
    match action {
        "Connect" | "DeleteConnection" => Some("client/"),
        "Publish" | "Receive" | "RetainPublish" | "GetRetainedMessage" => Some("topic/"),
        "Subscribe" => Some("topicfilter/"),
        "AssumeRoleWithCertificate" => Some("rolealias/"),
        "ListRetainedMessages" => None,
        _ => Some("thing/"),
    }
}

fn is_named(resource: &str, grants: bool, variables: bool, case: &Case) -> Result<bool, Unread> {
    if resource.chars().all(|c| c == '*') {
        return Ok(true);
    }
    let Some(kind) = kind(case.action) else {
        return Ok(false);
    };
    let fields: Vec<&str> = resource.splitn(6, ':').collect();
    let region = case.realm.region.as_deref();
    if region.is_some_and(|region| !plain(fields[3], region))
        || !plain(fields[4], &case.realm.account)
    {
        return Ok(false);
    }
    let mut name = written(fields[5], variables, case)?;
    if !grants && case.realm.unresolved_deny == UnresolvedDeny::Closed {
        let opened = |token: &mut Token| {
            if *token == Token::Nothing {
                *token = Token::Star;
            }
        };
        name.tokens.iter_mut().for_each(opened);
    }
    if kind != "topicfilter/" {
        return Ok(matches(&name.tokens, &format!("{kind}{}", case.name)));
    }
    if grants && region.is_none() && name.brings_wild {
        return Ok(false);
    }
    let wild = case.name.contains(['+', '#']) || case.name.starts_with("$share/");
    if case.realm.textual_subscriptions || !wild {
        return Ok(matches(&name.tokens, &format!("{kind}{}", case.name)));
    }
    if !is_filter(&case.name) {
        return Err(Unread);
    }
    if name.lacks() {
        return Ok(false);
    }
    if grants {
        let name = Written {
            tokens: loosened(&name.tokens),
            ..name
        };
        return Ok(fits(&name.tokens, &format!("{kind}{}", case.name), |c| {
            c != '+' && c != '#'
        }));
    }
    let shared = case.name.strip_prefix("$share/");
    let inner = shared.and_then(|rest| Some(rest.split_once('/')?.1));
    Ok([Some(&*case.name), inner]
        .into_iter()
        .flatten()
        .flat_map(|filter| [Some(filter), filter.strip_suffix("/#")])
        .flatten()
        .any(|filter| touches(&name.tokens, kind, filter)))
}

/// `*?` and `?*` say the same: one character more, wherever it stands.
fn loosened(tokens: &[Token]) -> Vec<Token> {
    let mut loosened = tokens.to_vec();
    let beside = |at: usize, tokens: &[Token]| tokens.get(at) == Some(&Token::Star);
    let mut at = 0;
    while at < loosened.len() {
        if loosened[at] == Token::One {
            let before = at > 0 && beside(at - 1, &loosened);
            let behind = beside(at + 1, &loosened);
            if before && !behind {
                loosened.insert(at + 1, Token::Star);
            } else if behind && !before {
                loosened.insert(at, Token::Star);
                // Those further left stand beside a star now.
                at = 0;
                continue;
            }
        }
        at += 1;
    }
    loosened
}

/// The standard's rule for wildcards in a filter.
fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let whole = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        level => !level.contains(['+', '#']),
    };
    levels.iter().enumerate().all(whole)
}

/// Reads a text with `*`, `?`, `${*}`, `${?}`, `${$}` and `${name}` or `${name, 'default'}`.
pub(super) fn written(text: &str, variables: bool, case: &Case) -> Result<Written, Unread> {
    let (mut tokens, mut brings_wild, mut lacks_own) = (Vec::new(), false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if variables && rest.starts_with("${") {
            let (inside, behind) = rest[2..].split_once('}').ok_or(Unread)?;
            rest = behind;
            if let "*" | "?" | "$" = inside {
                tokens.push(Token::Char(inside.chars().next().unwrap()));
                continue;
            }
            let (name, default) = match inside.split_once(", '") {
                Some((name, default)) => (name, default.strip_suffix('\'')),
                None => (inside, None),
            };
            let value = substitute(name, case)?.or(default.map(str::to_owned));
            match value {
                Some(value) => {
                    brings_wild |= value.contains(['+', '#']);
                    tokens.extend(value.chars().map(Token::Char));
                }
                None => {
                    lacks_own |= is_own(name);
                    tokens.push(Token::Nothing);
                }
            }
            continue;
        }
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::One,
            c => Token::Char(c),
        });
        rest = &rest[c.len_utf8()..];
    }
    Ok(Written {
        tokens,
        brings_wild,
        lacks_own,
    })
}

/// A pattern of wildcards alone.
fn plain(pattern: &str, text: &str) -> bool {
    let token = |c| match c {
        '*' => Token::Star,
        '?' => Token::One,
        c => Token::Char(c),
    };
    matches(&pattern.chars().map(token).collect::<Vec<_>>(), text)
}

pub(super) fn matches(pattern: &[Token], text: &str) -> bool {
    fits(pattern, text, |_| true)
}

/// Whether the whole of a text is what the pattern says: of each place in the text, whether the tokens so far can end
/// there.
fn fits(pattern: &[Token], text: &str, one: impl Fn(char) -> bool) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for token in pattern {
        let mut next = vec![false; text.len() + 1];
        for end in 0..=text.len() {
            next[end] = match token {
                Token::Star => ends[..=end].contains(&true),
                Token::One => end > 0 && ends[end - 1] && one(text[end - 1]),
                Token::Char(c) => end > 0 && ends[end - 1] && *c == text[end - 1],
                Token::Nothing => false,
            };
        }
        ends = next;
    }
    ends[text.len()]
}

/// Whether there is a text that the pattern says and the filter asks for. Wildcards ask for nothing that begins with
/// `$` [MQTT-4.7.2-1].
fn touches(pattern: &[Token], kind: &str, filter: &str) -> bool {
    let asked: Vec<char> = kind.chars().chain(filter.chars()).collect();
    let begins_wild = filter.starts_with(['+', '#']);
    let is_wild = |at: usize| at >= kind.len() && matches!(asked[at], '+' | '#');
    // Places in both at which a text can stand, and whether it has left the kind.
    let mut seen = vec![[false; 2]; (pattern.len() + 1) * (asked.len() + 1)];
    let mut left = vec![(0, 0, false)];
    while let Some((p, a, began)) = left.pop() {
        let been = &mut seen[p * (asked.len() + 1) + a][usize::from(began)];
        if std::mem::replace(been, true) {
            continue;
        }
        if p == pattern.len() && a == asked.len() {
            return true;
        }
        if p < pattern.len() && pattern[p] == Token::Star {
            left.push((p + 1, a, began));
        }
        if a < asked.len() && is_wild(a) {
            left.push((p, a + 1, began));
        }
        if p == pattern.len() || a == asked.len() {
            continue;
        }
        let first = a >= kind.len() && !began;
        // The one character that both let stand here.
        let shared = match (pattern[p], is_wild(a).then_some(asked[a])) {
            (Token::Nothing, _) => false,
            (Token::Char(c), Some('+')) => c != '/' && !(first && c == '$'),
            (Token::Char(c), Some(_)) => !(first && c == '$'),
            (Token::Char(c), None) => c == asked[a] && !(first && begins_wild && c == '$'),
            (_, Some(_)) => true,
            (_, None) => !(first && begins_wild && asked[a] == '$'),
        };
        if shared {
            let p = if pattern[p] == Token::Star { p } else { p + 1 };
            let stays = is_wild(a);
            left.push((p, if stays { a } else { a + 1 }, began || a >= kind.len()));
        }
    }
    false
}
