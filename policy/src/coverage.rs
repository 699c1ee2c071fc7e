//! Whether a topic filter is granted as a whole.
//!
//! A filter with wildcards asks for many topics at once. To a policy it is a text like any other:
//! in AWS an Allow of `a/?` lets `a/#` pass, and a Deny of `a/secret/*` does not see `a/#`. Here
//! an Allow must cover all that the filter asks for: its `+` and `#` are met by a `*`, or by the
//! same character where the author wrote it, never by a `?`; `*?` asks for one plain character
//! anywhere in what it takes. And a Deny speaks as soon as it
//! touches any of it: a topic, or a narrower filter. A shared subscription is granted only by its
//! whole name, and denied by what denies the filter in it, too.

use crate::pattern::{Pattern, Token, Values};

/// Steps of the longest comparison; what would take more counts as touched.
const STEPS_MAX: usize = 1 << 24;

const SHARE: &str = "$share/";

/// Whether a filter stands for more than its own text.
pub(crate) fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#']) || filter.starts_with(SHARE)
}

/// Whether the pattern grants all that the filter asks for.
pub(crate) fn covers(pattern: &Pattern, values: Values<'_>, filter: &str) -> bool {
    let Some(tokens) = pattern.tokens(values) else {
        return false;
    };
    let tokens = spread(&tokens);
    let mut left = tokens.as_slice();
    let mut rest = filter.chars();
    // Behind the last star, and what it has not eaten yet.
    let mut retry: Option<(&[Token], std::str::Chars<'_>)> = None;
    loop {
        let (token, behind) = match left.split_first() {
            Some((Token::Star, behind)) => {
                retry = Some((behind, rest.clone()));
                left = behind;
                continue;
            }
            Some((token, behind)) => (Some(token), behind),
            None => (None, left),
        };
        let mut ahead = rest.clone();
        let meets = match (token, ahead.next()) {
            (None, None) => return true,
            (Some(Token::Char(t)), Some(c)) => *t == c,
            (Some(Token::One), Some(c)) => c != '+' && c != '#',
            _ => false,
        };
        if meets {
            (left, rest) = (behind, ahead);
            continue;
        }
        let Some((star, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (left, rest) = (star, from.clone());
    }
}

/// The same pattern with a star on both sides of each `?` that stands beside one: where in the run
/// its character is found does not matter.
pub(crate) fn spread(tokens: &[Token]) -> Vec<Token> {
    let mut spread = Vec::with_capacity(tokens.len());
    for run in tokens.chunk_by(|one, next| is_wildcard(*one) && is_wildcard(*next)) {
        if run.contains(&Token::Star) {
            spread.push(Token::Star);
            let ones = run.iter().filter(|token| **token == Token::One);
            spread.extend(ones.flat_map(|one| [*one, Token::Star]));
        } else {
            spread.extend_from_slice(run);
        }
    }
    spread
}

fn is_wildcard(token: Token) -> bool {
    matches!(token, Token::One | Token::Star)
}

/// A filter, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Char(char),
    /// `+`: what stands between two slashes.
    Level,
    /// `#`: anything.
    Rest,
}

/// Whether the pattern matches a topic that the filter asks for, or a narrower filter.
pub(crate) fn touches(pattern: &Pattern, values: Values<'_>, filter: &str) -> bool {
    let Some(tokens) = pattern.tokens(values) else {
        return false;
    };
    let inner = filter
        .strip_prefix(SHARE)
        .and_then(|rest| rest.split_once('/'))
        .map(|(_, inner)| inner);
    // `a/#` asks for `a` as well.
    let parent = |filter: &'_ str| filter.strip_suffix("/#").map(str::to_owned);
    [Some(filter), inner].into_iter().flatten().any(|filter| {
        meet(&tokens, filter) || parent(filter).is_some_and(|parent| meet(&tokens, &parent))
    })
}

/// Whether a text exists that both the pattern and the filter match: all places that the two can
/// be at together, pattern token by pattern token.
fn meet(tokens: &[Token], filter: &str) -> bool {
    let asked: Vec<Asked> = filter
        .chars()
        .map(|c| match c {
            '+' => Asked::Level,
            '#' => Asked::Rest,
            c => Asked::Char(c),
        })
        .collect();
    // Wildcards do not reach topics that begin with `$` [MQTT-4.7.2-1].
    if !matches!(asked.first(), Some(Asked::Char(_))) && tokens.first() == Some(&Token::Char('$')) {
        return false;
    }
    if tokens.len().saturating_mul(asked.len()) > STEPS_MAX {
        return true;
    }
    // Of each place in the filter, whether it can be reached.
    let mut reached = vec![false; asked.len() + 1];
    set(&mut reached, 0);
    pass_empty(&mut reached, &asked);
    for token in tokens {
        let mut next = vec![false; asked.len() + 1];
        if *token == Token::Star {
            let first = reached.iter().position(|reached| *reached);
            let first = first.unwrap_or(reached.len());
            next.iter_mut().skip(first).for_each(|place| *place = true);
        } else {
            for (place, asked) in asked.iter().enumerate() {
                if reached.get(place) != Some(&true) {
                    continue;
                }
                let same = match (token, asked) {
                    (Token::One, _) => true,
                    (Token::Char(t), Asked::Char(c)) => t == c,
                    (Token::Char(t), Asked::Level) => *t != '/',
                    (Token::Char(_), Asked::Rest) => true,
                    (Token::Star | Token::Variable(_), _) => false,
                };
                if same {
                    let goes_on = matches!(asked, Asked::Char(_));
                    set(&mut next, place + usize::from(goes_on));
                }
            }
        }
        pass_empty(&mut next, &asked);
        reached = next;
    }
    reached.last() == Some(&true)
}

fn set(places: &mut [bool], place: usize) {
    if let Some(place) = places.get_mut(place) {
        *place = true;
    }
}

/// A level or a rest may be empty.
fn pass_empty(reached: &mut [bool], asked: &[Asked]) {
    for (place, asked) in asked.iter().enumerate() {
        if reached.get(place) == Some(&true) && !matches!(asked, Asked::Char(_)) {
            set(reached, place + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        let tokens = text.chars().map(|c| match c {
            '*' => Token::Star,
            '?' => Token::One,
            c => Token::Char(c),
        });
        Pattern::compile(&tokens.collect::<Vec<_>>())
    }

    #[test]
    fn only_the_whole_filter_is_granted() {
        for (text, filter, expected) in [
            ("a/*", "a/#", true),
            ("a/#", "a/#", true),
            ("a/+/c", "a/+/c", true),
            ("a/*/c", "a/+/c", true),
            ("*", "#", true),
            ("a*", "a/#", true),
            ("a/?", "a/#", false),
            ("a/?", "a/+", false),
            ("a/?*", "a/#", false),
            ("a/*?", "a/#", false),
            ("a/?/*", "a/b/#", true),
            ("?*", "+/+", true),
            ("a*??", "a/+/+", true),
            ("a*??", "a/+", false),
            ("a/b", "a/+", false),
            ("a/b/*", "a/#", false),
            ("a/*", "#", false),
            ("*", "$share/g/a/#", true),
            ("a/*", "$share/g/a/#", false),
            ("$share/g/a/*", "$share/g/a/#", true),
        ] {
            assert_eq!(
                covers(&pattern(text), &[], filter),
                expected,
                "{text} {filter}"
            );
        }
    }

    #[test]
    fn a_deny_inside_the_filter_is_seen() {
        for (text, filter, expected) in [
            ("a/secret/*", "a/#", true),
            ("a/secret/#", "a/#", true),
            ("a/secret", "a/+", true),
            ("a/secret/x", "a/+", false),
            ("a/*/x", "a/+", false),
            ("a/*/x", "a/#", true),
            ("b/*", "a/#", false),
            ("a", "a/#", true),
            ("ab", "a/#", false),
            ("*z", "+/b", false),
            ("*b", "+/b", true),
            ("?/b", "+/b", true),
            ("$aws/*", "#", false),
            ("$aws/*", "$aws/#", true),
            ("a/secret/*", "$share/g/a/#", true),
            ("a/secret/*", "$share/g/a/secret/x", true),
            ("a/secret/*", "$share/g/b/x", false),
            ("$share/*", "$share/g/b/x", true),
        ] {
            assert_eq!(
                touches(&pattern(text), &[], filter),
                expected,
                "{text} {filter}"
            );
        }
        let long = "a/".repeat(30_000);
        assert!(touches(&pattern(&long), &[], &format!("b{long}#")));
    }

    fn mqtt(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.split_first(), topic.split_first()) {
            (Some((&"#", _)), _) => true,
            (None, None) => true,
            (Some((level, filter)), Some((name, topic))) => {
                (*level == "+" || level == name) && mqtt(filter, topic)
            }
            _ => false,
        }
    }

    proptest! {
        /// What is granted grants each topic; what is not touched denies none.
        #[test]
        fn agrees_with_every_topic(
            text in "[ab/*?]{0,6}",
            filter in prop::collection::vec(select(vec!["", "a", "b", "ab", "+", "#"]), 1..4),
            topic in prop::collection::vec(select(vec!["", "a", "b", "ab", "ba"]), 1..5),
        ) {
            let hash = filter.iter().position(|level| *level == "#");
            let filter = &filter[..hash.map_or(filter.len(), |at| at + 1)];
            if mqtt(filter, &topic) {
                // The parent that `a/#` and `+/#` also ask for is Receive's to judge.
                let parent = filter.strip_suffix(&["#"]).is_some_and(|above| {
                    above.len() == topic.len() && mqtt(above, &topic)
                });
                let (filter, topic) = (filter.join("/"), topic.join("/"));
                let pattern = pattern(&text);
                if covers(&pattern, &[], &filter) && !parent {
                    prop_assert!(pattern.matches(&topic, &[]), "{text} {filter} {topic}");
                }
                if pattern.matches(&topic, &[]) {
                    prop_assert!(touches(&pattern, &[], &filter), "{text} {filter} {topic}");
                }
            }
        }
    }
}
