use broker::bench::TopicTree;
use broker::topic::{ClientId, TopicFilter, TopicName, matches};

/// What is a topic name, a filter and a client identifier, and which filters match, as the standard's sentences say it
/// read one by one; and the tree finds what the reference finds.
///
/// The bytes: a filter, a line end, a topic name.
pub fn topics(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (filter_text, name_text) = text.split_once('\n').unwrap_or((text, ""));
    let filter = filter_text.parse::<TopicFilter>().ok();
    let name = name_text.parse::<TopicName>().ok();
    assert_eq!(filter.is_some(), is_filter(filter_text), "{filter_text:?}");
    assert_eq!(name.is_some(), is_name(name_text), "{name_text:?}");
    if let Ok(id) = filter_text.parse::<ClientId>() {
        assert!(is_text(id.as_str()));
    }
    let Some(filter) = filter else { return };
    assert_eq!(filter.as_str(), filter_text);
    let pattern = match filter.shared() {
        Some(share) => {
            assert_eq!(format!("$share/{share}/{}", filter.pattern()), filter_text);
            filter.pattern()
        }
        None => filter_text,
    };
    let Some(name) = name else { return };
    let expected = fits(pattern, name.as_str());
    assert_eq!(
        matches(&filter, &name),
        expected,
        "{pattern:?} on {name_text:?}"
    );
    let tree = TopicTree::new();
    tree.insert(pattern, 1);
    let found = tree.count(name.as_str());
    assert_eq!(found, usize::from(expected), "{pattern:?} on {name_text:?}");
    tree.insert("#", 2);
    tree.insert(pattern, 3);
    let system = name_text.starts_with('$');
    let found = tree.count(name.as_str());
    assert_eq!(found, 2 * usize::from(expected) + usize::from(!system));
}

fn is_text(text: &str) -> bool {
    let forbidden = |c: char| {
        let code = u32::from(c);
        code < 0x20
            || (0x7F..0xA0).contains(&code)
            || (0xFDD0..0xFDF0).contains(&code)
            || code % 0x1_0000 >= 0xFFFE
    };
    !text.is_empty() && text.len() <= 65_535 && !text.chars().any(forbidden)
}

fn is_name(text: &str) -> bool {
    is_text(text) && !text.contains(['+', '#']) && text.matches('/').count() < 128
}

fn is_filter(text: &str) -> bool {
    if !is_text(text) {
        return false;
    }
    let levels: Vec<&str> = text.split('/').collect();
    let pattern = if levels[0] != "$share" {
        &levels[..]
    } else {
        let named = levels.len() > 2 && !levels[1].is_empty() && !levels[1].contains(['+', '#']);
        if !named || (levels.len() == 3 && levels[2].is_empty()) {
            return false;
        }
        &levels[2..]
    };
    let last = pattern.len() - 1;
    pattern.len() <= 128
        && pattern.iter().enumerate().all(|(at, level)| match *level {
            "+" => true,
            "#" => at == last,
            level => !level.contains(['+', '#']),
        })
}

/// §4.7.
fn fits(pattern: &str, name: &str) -> bool {
    fn along(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            (["#"], _) | ([], []) => true,
            ([first, pattern @ ..], [level, name @ ..]) => {
                (*first == "+" || first == level) && along(pattern, name)
            }
            _ => false,
        }
    }
    let hidden = name.starts_with('$') && pattern.starts_with(['+', '#']);
    !hidden
        && along(
            &pattern.split('/').collect::<Vec<_>>(),
            &name.split('/').collect::<Vec<_>>(),
        )
}
