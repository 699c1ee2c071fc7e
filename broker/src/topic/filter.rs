use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{TOPIC_MAX_BYTES, TopicError, check_levels, check_text};

/// How a shared subscription begins (MQTT 5 §4.8.2).
const SHARE: &str = "$share/";

/// What a subscription asks for: wildcards in their places, bounded length and depth, `$share/NAME/` recognised.
///
/// Cheap to clone; never shares the read buffer, because subscriptions live long.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter {
    text: Arc<str>,
    /// Bytes of `$share/NAME/` before the filter proper; 0 for an ordinary subscription.
    share_bytes: u16,
}

impl TopicFilter {
    /// The whole filter as it was sent, `$share/NAME/` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter that topics are matched against, without `$share/NAME/`.
    #[must_use]
    pub fn pattern(&self) -> &str {
        self.text
            .get(usize::from(self.share_bytes)..)
            .unwrap_or_default()
    }

    /// The share name of `$share/NAME/FILTER`, or `None` for an ordinary subscription.
    #[must_use]
    pub fn shared(&self) -> Option<&str> {
        let prefix = self.text.get(..usize::from(self.share_bytes))?;
        prefix.strip_prefix(SHARE)?.strip_suffix('/')
    }

    /// The levels of [`TopicFilter::pattern`].
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.pattern().split('/')
    }

    /// Whether it can match more than one topic.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.pattern()
            .bytes()
            .any(|byte| matches!(byte, b'+' | b'#'))
    }
}

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        check_text(text, TOPIC_MAX_BYTES)?;
        let (share_bytes, pattern) = match text.strip_prefix(SHARE) {
            None if text == "$share" => return Err(TopicError::Share),
            None => (0, text),
            Some(rest) => {
                let (name, pattern) = rest.split_once('/').ok_or(TopicError::Share)?;
                // [MQTT-4.8.2-1, -2]
                if name.is_empty() || name.contains(['+', '#']) || pattern.is_empty() {
                    return Err(TopicError::Share);
                }
                (text.len() - pattern.len(), pattern)
            }
        };
        check_levels(pattern)?;
        let mut levels = pattern.split('/').peekable();
        while let Some(level) = levels.next() {
            let alone = matches!(level, "+" | "#");
            // [MQTT-4.7.1-1, -2] [MQTT311-4.7.1-2, -3]: alone in its level, `#` only in the last one.
            if (!alone && level.contains(['+', '#'])) || (level == "#" && levels.peek().is_some()) {
                return Err(TopicError::WildcardMisplaced);
            }
        }
        Ok(Self {
            text: text.into(),
            share_bytes: u16::try_from(share_bytes).map_err(|_| TopicError::Share)?,
        })
    }
}

impl AsRef<str> for TopicFilter {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::TOPIC_MAX_LEVELS;
    use super::*;

    fn parse(text: &str) -> Result<TopicFilter, TopicError> {
        text.parse()
    }

    /// [MQTT-4.7.1-1, -2, 4.7.3-1] [MQTT311-4.7.1-2, -3, 4.7.3-1]
    #[test]
    fn wildcards_stand_alone_and_the_long_one_last() {
        for good in [
            "#",
            "+",
            "/",
            "a/#",
            "+/+",
            "a/+/b",
            "/+",
            "$aws/#",
            "a//b",
            "+/#",
            "$shared/a",
        ] {
            assert_eq!(parse(good).unwrap().as_str(), good);
            assert_eq!(parse(good).unwrap().shared(), None);
        }
        for bad in ["a#", "a/#/b", "#/a", "a+/b", "+a", "##", "++", "a/b#"] {
            assert_eq!(parse(bad), Err(TopicError::WildcardMisplaced), "{bad}");
        }
        assert_eq!(parse(""), Err(TopicError::Empty));
    }

    /// [MQTT-4.8.2-1, -2]
    #[test]
    fn a_share_has_a_name_and_a_filter() {
        let filter = parse("$share/g/a/+").unwrap();
        assert_eq!(filter.shared(), Some("g"));
        assert_eq!(filter.pattern(), "a/+");
        assert!(filter.has_wildcard());
        assert_eq!(parse("$share/g//").unwrap().pattern(), "/");
        for bad in [
            "$share",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/a#/b",
        ] {
            assert_eq!(parse(bad), Err(TopicError::Share), "{bad}");
        }
    }

    /// [MQTT-4.7.3-3] [MQTT311-4.7.3-3]
    #[test]
    fn depth_holds_at_the_bound_and_not_past_it() {
        assert!(parse(&"/".repeat(TOPIC_MAX_LEVELS - 1)).is_ok());
        assert_eq!(
            parse(&"/".repeat(TOPIC_MAX_LEVELS)),
            Err(TopicError::TooDeep)
        );
        assert!(parse(&format!("$share/g/{}", "/".repeat(TOPIC_MAX_LEVELS - 1))).is_ok());
        assert!(parse(&"a".repeat(TOPIC_MAX_BYTES + 1)).is_err());
    }
}
