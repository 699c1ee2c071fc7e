//! From a topic to the next that a filter can match, where topics lie in the order of their bytes: who walks so looks at
//! about as many as a tree of levels has nodes on the filter's ways, without there being one.
//!
//! What a prefix that ends in `/` begins lies together, and ends where the prefix with [`BEHIND_SLASH`] in place of the `/`
//! would be. Names themselves do not: `a!` and what is below it lie between `a` and `a/b`.

/// The character behind `/`.
const BEHIND_SLASH: char = '0';

/// Behind all names that begin with `$`.
const BEHIND_DOLLAR: &str = "%";

/// What a filter has to do with a topic, and where to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It matches. The next topic may, too.
    Match,
    /// It does not match; the next topic may.
    Behind,
    /// Neither it nor any before this one matches.
    Leap(String),
    /// Neither it nor any behind it matches.
    End,
}

/// No topic before this one matches.
pub(super) fn first(filter: &[&str]) -> String {
    names(filter).join("/")
}

/// As many levels as there are before the first wildcard.
fn names<'f, 's>(filter: &'f [&'s str]) -> &'f [&'s str] {
    let names = filter.iter().position(|level| matches!(*level, "+" | "#"));
    names.and_then(|at| filter.get(..at)).unwrap_or(filter)
}

/// `filter`: its levels. [MQTT-4.7.2-1] [MQTT311-4.7.2-1]: a wildcard at its first level matches no name that begins with `$`.
pub(super) fn next(filter: &[&str], topic: &str) -> Next {
    // Where the level begins that is looked at, and behind the last one that is at a `+`, there what to leap over ends.
    let (mut at, mut plus_end) = (0, None);
    let mut filter = filter;
    loop {
        let rest = topic.get(at..);
        let (level, below) = match (filter.split_first(), rest) {
            (None, None) => return Next::Match,
            (None, Some(_)) => return beyond(topic, plus_end),
            (Some((&"#" | &"+", _)), Some(_)) if at == 0 && topic.starts_with('$') => {
                return Next::Leap(BEHIND_DOLLAR.to_owned());
            }
            (Some((&"#", _)), _) => return Next::Match,
            (Some(_), None) => return Next::Behind,
            (Some((level, below)), Some(_)) => (*level, below),
        };
        let rest = rest.unwrap_or_default();
        let name = rest.split_once('/').map_or(rest, |(name, _)| name);
        let end = at + name.len();
        if level == "+" {
            plus_end = Some(end);
        } else if level != name {
            let mut to = topic.get(..at).unwrap_or_default().to_owned();
            to.push_str(&names(filter).join("/"));
            if topic < to.as_str() {
                return Next::Leap(to);
            }
            // What is below that name may lie behind topics that it lies before.
            if names(filter).len() < filter.len() {
                to.push('/');
                if topic < to.as_str() {
                    return Next::Leap(to);
                }
            }
            return beyond(topic, plus_end);
        }
        (at, filter) = (end + 1, below);
    }
}

/// Behind all that begins with the same levels up to this end. The topic has further levels behind it.
fn beyond(topic: &str, end: Option<usize>) -> Next {
    let Some(same) = end.and_then(|end| topic.get(..end)) else {
        return Next::End;
    };
    let mut to = same.to_owned();
    to.push(BEHIND_SLASH);
    Next::Leap(to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::{self, TopicFilter, TopicName};

    #[test]
    fn it_leaps_over_what_cannot_match() {
        for (filter, topic, expected) in [
            ("a/+", "a/b", Next::Match),
            ("a/+", "a/b/c", Next::Leap("a/b0".to_owned())),
            ("a/+", "a", Next::Behind),
            ("a/+", "b", Next::End),
            ("a/b", "a/b/c", Next::End),
            ("+/b/c/#", "x/a/z", Next::Leap("x/b/c".to_owned())),
            ("+/b/c/#", "x/b/c!", Next::Leap("x/b/c/".to_owned())),
            ("+/b/c/#", "x/b/d", Next::Leap("x0".to_owned())),
            ("+/b/c", "x/b/c!", Next::Leap("x0".to_owned())),
            ("#", "$a/b", Next::Leap("%".to_owned())),
            ("$a/#", "$a/b", Next::Match),
        ] {
            let levels: Vec<&str> = filter.split('/').collect();
            assert_eq!(next(&levels, topic), expected, "{filter} {topic}");
        }
    }

    proptest! {
        /// With names that lie around `/` in the order of bytes, and empty ones.
        #[test]
        fn nothing_that_matches_is_leapt_over_and_it_gets_on(
            filter in "(\\$?[ab](!|0)?|\\+|)(/([ab](!|0)?|\\+|)){0,4}(/#)?",
            topics in prop::collection::btree_set("\\$?[ab]?(!|0)?(/[ab]?(!|0)?){0,5}", 1..60),
        ) {
            prop_assume!(!filter.is_empty());
            let topics: Vec<String> = topics.into_iter().filter(|topic| !topic.is_empty()).collect();
            let levels: Vec<&str> = filter.split('/').collect();
            let parsed: TopicFilter = filter.parse().unwrap();
            let matches = |topic: &str| {
                let name: TopicName = topic.parse().unwrap();
                topic::matches(&parsed, &name)
            };
            let before = first(&levels);
            for topic in &topics {
                prop_assert!(topic >= &before || !matches(topic), "{topic} before {before}");
                let next = next(&levels, topic);
                prop_assert_eq!(next == Next::Match, matches(topic), "{}", topic);
                let mut over = topics.iter().filter(|other| *other > topic);
                match next {
                    Next::Match | Next::Behind => {}
                    Next::End => prop_assert!(!over.any(|other| matches(other)), "behind {topic}"),
                    Next::Leap(to) => {
                        prop_assert!(&to > topic, "{topic} to {to}");
                        prop_assert!(!over.any(|other| other < &to && matches(other)), "{topic} to {to}");
                    }
                }
            }
        }
    }
}
