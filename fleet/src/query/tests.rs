use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::SystemTime;

fn thing(name: &str, attributes: &[(&str, &str)]) -> Thing {
    Thing {
        name: name.parse().unwrap(),
        attributes: attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        type_name: Some("lamp".parse().unwrap()),
        version: 3,
        created: SystemTime::UNIX_EPOCH,
    }
}

fn fits(query: &str) -> bool {
    let thing = thing(
        "hall-7",
        &[
            ("site", "bonn"),
            ("rev", "10"),
            ("note", "a:b (c)"),
            ("word", "AND"),
        ],
    );
    let groups: BTreeSet<GroupName> = ["upstairs".parse().unwrap()].into();
    let query: Query = query
        .parse()
        .unwrap_or_else(|error| panic!("{query}: {error}"));
    query.fits(&Subject {
        thing: &thing,
        groups: &groups,
        connected: Some(true),
    })
}

#[test]
fn what_fits() {
    for query in [
        "*",
        "hall-7",
        "bonn",
        "ha*",
        "thingName:hall-7",
        "thingName: hall-7",
        "thingName:h*7",
        "thingName:hall-?",
        "thingTypeName:lamp AND thingGroupNames:up*",
        "thingTypeName:lamp thingGroupNames:upstairs",
        "attributes.site:bonn OR attributes.site:köln",
        "attributes.site:berlin OR attributes.site:bonn AND attributes.rev:10",
        "NOT attributes.site:berlin",
        "-attributes.site:berlin",
        "attributes.rev:[9 TO 11]",
        "attributes.rev:[10 TO 10]",
        "attributes.rev:{9 TO 11}",
        "attributes.rev:[9 TO *]",
        "attributes.rev:[* TO 10]",
        "attributes.rev>9",
        "attributes.rev >= 10",
        "attributes.rev:>9.5",
        "attributes.rev < 1e2",
        "attributes.site:[alpha TO castle]",
        "attributes.note:\"a:b (c)\"",
        "attributes.note:a\\:b*",
        "attributes.word:AND",
        "registry.version:3",
        "connectivity.connected:true",
        "NOT connectivity.connected:false",
        "NOT (attributes.site:berlin OR thingName:other)",
        "(thingName:hall-7)",
        "NOT NOT *",
    ] {
        assert!(fits(query), "{query}");
    }
}

#[test]
fn what_does_not_fit() {
    for query in [
        "hall",
        "thingName:hall",
        "thingName:HALL-7",
        "thingName:hall-7?",
        "attributes.missing:*",
        "attributes.site:berlin OR attributes.site:bonn AND attributes.rev:11",
        "(attributes.site:bonn OR attributes.site:berlin) AND attributes.rev:11",
        "attributes.rev:{10 TO 11]",
        "attributes.rev:[9 TO 10}",
        // As text it would be.
        "attributes.rev:[2 TO 9]",
        // A number is not compared with a text.
        "attributes.site > 5",
        "attributes.missing < 5",
        "thingName:\"hall-*\"",
        "thingName:hall\\-\\*",
        "NOT *",
        "connectivity.connected:false",
    ] {
        assert!(!fits(query), "{query}");
    }
}

#[test]
fn what_nobody_knows_is_not_so() {
    let (thing, groups) = (thing("a", &[]), BTreeSet::new());
    let subject = Subject {
        thing: &thing,
        groups: &groups,
        connected: None,
    };
    for query in [
        "connectivity.connected:true",
        "connectivity.connected:false",
    ] {
        assert!(!query.parse::<Query>().unwrap().fits(&subject), "{query}");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_place() {
    for (query, at, words) in [
        ("", 1, "empty"),
        ("   ", 4, "empty"),
        ("shadow.reported.x:1", 1, "thingGroupNames"),
        ("name:x", 1, "there is no field"),
        ("attributes.:x", 1, "there is no field"),
        ("thing*:x", 1, "wildcard"),
        ("thingName:", 11, "missing"),
        ("a AND", 6, "missing behind AND"),
        ("a OR", 5, "missing"),
        ("(a", 3, "not closed"),
        ("a)", 2, "never opened"),
        ("()", 2, "missing"),
        ("\"a", 3, "quotation mark"),
        ("a\\", 3, "backslash"),
        ("attributes.x:[1 2]", 17, "TO"),
        ("attributes.x:[1 TO 2", 20, "not closed"),
        ("attributes.x:[* TO *]", 22, "one end"),
        ("attributes.x:[1* TO 2]", 18, "wildcard"),
        ("connectivity.connected:maybe", 29, "true or false"),
        ("NOT", 4, "missing"),
        ("a ] b", 3, "missing"),
    ] {
        let error = query.parse::<Query>().unwrap_err();
        assert!(error.reason.contains(words), "{query}: {error}");
        assert_eq!(error.at, at, "{query}: {error}");
    }
    let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
    assert!(deep.parse::<Query>().unwrap_err().reason.contains("deep"));
    let negations = format!("{}a", "-".repeat(500));
    assert!(
        negations
            .parse::<Query>()
            .unwrap_err()
            .reason
            .contains("deep")
    );
    let many = "a ".repeat(CONDITIONS_LIMIT_ITEMS + 1);
    assert!(
        many.parse::<Query>()
            .unwrap_err()
            .reason
            .contains("conditions")
    );
    let long = "a".repeat(QUERY_LIMIT_BYTES + 1);
    assert!(long.parse::<Query>().unwrap_err().reason.contains("bytes"));
}

#[test]
fn where_to_look() {
    let narrow = |text: &str| text.parse::<Query>().unwrap().narrow();
    assert_eq!(narrow("thingName:ha*"), Narrow::Name("ha".into()));
    let one = "thingName:hall AND attributes.site:bonn";
    assert_eq!(narrow(one), Narrow::One("hall".parse().unwrap()));
    let both = "attributes.x:1 AND thingGroupNames:hall AND thingTypeName:lamp";
    assert_eq!(narrow(both), Narrow::Group("hall".parse().unwrap()));
    let kind = "thingTypeName:lamp -thingName:a*";
    assert_eq!(narrow(kind), Narrow::Type("lamp".parse().unwrap()));
    for anywhere in [
        "*",
        "thingName:*x",
        "NOT thingName:a",
        "thingName:a OR attributes.x:1",
        "thingGroupNames:h*",
    ] {
        assert_eq!(narrow(anywhere), Narrow::All, "{anywhere}");
    }
}

/// What a pattern means, by trying everything.
fn slow(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some(('*', more)), rest) => {
            slow(more, text) || rest.is_some_and(|(_, text)| slow(pattern, text))
        }
        (Some((_, _)), None) => false,
        (Some((wanted, more)), Some((found, text))) => {
            (*wanted == '?' || wanted == found) && slow(more, text)
        }
    }
}

proptest! {
    #[test]
    fn wildcards_mean_what_they_say(pattern in "[ab*?]{1,8}", name in "[ab]{1,8}") {
        let query: Query = format!("thingName:{pattern}").parse().unwrap();
        let (thing, groups) = (thing(&name, &[]), BTreeSet::new());
        let subject = Subject { thing: &thing, groups: &groups, connected: None };
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(query.fits(&subject), slow(&chars(&pattern), &chars(&name)));
    }

    #[test]
    fn no_text_panics_and_what_is_read_can_be_asked(text in any::<String>()) {
        if let Ok(query) = text.parse::<Query>() {
            let (thing, groups) = (thing("a", &[("b", "c")]), BTreeSet::new());
            query.fits(&Subject { thing: &thing, groups: &groups, connected: None });
            query.narrow();
        }
    }

    #[test]
    fn near_misses_do_not_panic(text in "(NOT |-|\\(|\\)|\\[|\\]| TO | AND | OR |thingName|attributes\\.a|:|>|<=|\\*|\\?|\"|\\\\|[a-c0-2 ]){0,24}") {
        if let Ok(query) = text.parse::<Query>() {
            let (thing, groups) = (thing("a", &[("a", "1")]), BTreeSet::from(["b".parse().unwrap()]));
            let subject = Subject { thing: &thing, groups: &groups, connected: Some(false) };
            // Two levels more may be too deep.
            if let Ok(not) = format!("NOT ({text})").parse::<Query>() {
                prop_assert_eq!(query.fits(&subject), !not.fits(&subject));
            }
            // Where it says to look, everything that fits is.
            let groups_tell = query.asks_groups();
            let without = Subject { groups: &BTreeSet::new(), ..subject };
            prop_assert!(groups_tell || query.fits(&subject) == query.fits(&without));
            if let (true, Narrow::One(name)) = (query.fits(&subject), query.narrow()) {
                prop_assert_eq!(&name, &subject.thing.name);
            }
            if let (true, Narrow::Name(prefix)) = (query.fits(&subject), query.narrow()) {
                prop_assert!("a".starts_with(&prefix));
            }
        }
    }
}
