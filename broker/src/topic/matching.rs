use super::{TopicFilter, TopicName};

/// Whether a filter takes a topic: the reference that faster structures are tested against.
///
/// The share name of a shared subscription plays no part.
#[must_use]
pub fn matches(filter: &TopicFilter, name: &TopicName) -> bool {
    // [MQTT-4.7.2-1] [MQTT311-4.7.2-1]: a filter that begins with a wildcard takes no topic that begins with `$`.
    if name.as_str().starts_with('$') && filter.pattern().starts_with(['+', '#']) {
        return false;
    }
    let mut levels = name.levels();
    for wanted in filter.levels() {
        match (wanted, levels.next()) {
            // `a/#` takes `a` too (§4.7.1.2), so nothing left to compare is also a match.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            // Byte by byte [MQTT-4.7.3-4] [MQTT311-4.7.3-4].
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MQTT-3.3.2-3, 4.7.2-1, 4.7.3-4] [MQTT311-3.3.2-3, 4.7.2-1, 4.7.3-4]
    #[test]
    fn the_examples_of_the_standard_hold() {
        for (filter, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a", "a", true),
            ("a", "A", false),
            ("\u{e9}", "\u{e9}", true),
            ("\u{e9}", "e\u{301}", false),
            ("\u{feff}a", "a", false),
            ("a", "a/", false),
            ("a/b", "a", false),
            ("$share/g/a/#", "a/x", true),
            ("$share/g/#", "$aws/x", false),
        ] {
            assert_eq!(
                matches(&filter.parse().unwrap(), &name.parse().unwrap()),
                expected,
                "{filter} on {name}"
            );
        }
    }
}
