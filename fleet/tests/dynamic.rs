//! Groups whose query says who is in them, under changes from all sides: a membership is never another than the query
//! says of the thing as it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use ca::{Authority, AuthorityConfig};
use fleet::{Fleet, GroupChange, GroupName, ThingChange, ThingName};
use policy::Realm;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::SystemTime};
use store::Store;

fn open(directory: &Path) -> Fleet {
    let store = Store::open(&directory.join("store")).unwrap();
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.join("ca"), config, now).unwrap();
    let realm = Realm::live("000000000000");
    Fleet::open(&store, Arc::new(authority), realm, now).unwrap()
}

fn g(name: &str) -> GroupName {
    name.parse().unwrap()
}

fn thing(fleet: &Fleet, name: &ThingName, site: &str) {
    let attributes = BTreeMap::from([("site".to_owned(), site.to_owned())]);
    fleet
        .create_thing(name, attributes, None, SystemTime::now())
        .unwrap();
}

fn dynamic(fleet: &Fleet, name: &str, query: &str) {
    let (change, now) = (GroupChange::default(), SystemTime::now());
    fleet
        .create_dynamic_group(&g(name), query, &change, format!("id-{name}"), now)
        .unwrap();
    filled(fleet, name);
}

fn filled(fleet: &Fleet, name: &str) {
    while fleet.group(&g(name)).unwrap().building {
        std::thread::yield_now();
    }
}

fn members(fleet: &Fleet, name: &str) -> Vec<String> {
    let page = fleet.members(&g(name), None, 250).unwrap();
    page.items.iter().map(ToString::to_string).collect()
}

#[test]
fn two_hands_on_one_thing_leave_what_the_query_says() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = open(directory.path());
    let name: ThingName = "lamp".parse().unwrap();
    thing(&fleet, &name, "ulm");
    fleet
        .create_group(
            &g("hall"),
            None,
            &GroupChange::default(),
            "id".into(),
            SystemTime::now(),
        )
        .unwrap();
    dynamic(
        &fleet,
        "both",
        "attributes.site:bonn AND thingGroupNames:hall",
    );
    dynamic(
        &fleet,
        "either",
        "attributes.site:bonn OR thingGroupNames:hall",
    );
    for round in 0..40 {
        let (bonn, hall) = (round % 2 == 0, round % 4 < 2);
        let site = if bonn { "bonn" } else { "ulm" };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let attributes = BTreeMap::from([("site".to_owned(), site.to_owned())]);
                let change = ThingChange {
                    attributes: Some(attributes),
                    ..ThingChange::default()
                };
                fleet.update_thing(&name, &change, None).unwrap();
            });
            scope.spawn(|| match hall {
                true => fleet.add_to_group(&g("hall"), &name).unwrap(),
                false => fleet.remove_from_group(&g("hall"), &name).unwrap(),
            });
        });
        assert_eq!(members(&fleet, "both").len(), usize::from(bonn && hall));
        assert_eq!(members(&fleet, "either").len(), usize::from(bonn || hall));
    }
}

#[test]
fn things_made_while_a_query_is_new_are_not_missed() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = open(directory.path());
    let name = |n: usize| -> ThingName { format!("lamp-{n:03}").parse().unwrap() };
    for n in 0..120 {
        thing(&fleet, &name(n), "bonn");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| (120..160).for_each(|n| thing(&fleet, &name(n), "bonn")));
        scope.spawn(|| dynamic(&fleet, "all", "attributes.site:bonn"));
    });
    assert_eq!(members(&fleet, "all").len(), 160);
    fleet.delete_dynamic_group(&g("all"), None).unwrap();
    dynamic(&fleet, "all", "attributes.site:ulm");
    assert!(members(&fleet, "all").is_empty());
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn connection(number: u64) -> fleet::ConnectionKey {
    fleet::ConnectionKey {
        session: number,
        version: 1,
    }
}

#[test]
fn members_come_and_go_with_their_connections() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let name = |n: usize| -> ThingName { format!("lamp-{n:03}").parse().unwrap() };
    let expected =
        |n: std::ops::Range<usize>| -> Vec<String> { n.map(|n| name(n).to_string()).collect() };
    {
        let fleet = open(directory.path());
        (0..150).for_each(|n| thing(&fleet, &name(n), if n < 100 { "bonn" } else { "ulm" }));
        fleet.note_connected(connection(0), &name(0), now);
        dynamic(
            &fleet,
            "here",
            "connectivity.connected:true AND attributes.site:bonn",
        );
        dynamic(&fleet, "away", "NOT connectivity.connected:true");
        assert_eq!(members(&fleet, "here"), expected(0..1));
        assert_eq!(members(&fleet, "away"), expected(1..150));
        (1..150).for_each(|n| fleet.note_connected(connection(n as u64), &name(n), now));
        until("all are here", || {
            members(&fleet, "here") == expected(0..100)
        });
        until("nobody is away", || members(&fleet, "away").is_empty());
        // A second connection, and the end of one of two, change nothing; the last one's does.
        fleet.note_connected(connection(1_000), &name(0), now);
        fleet.note_disconnected(connection(0));
        fleet.note_disconnected(connection(5));
        until("one is away", || members(&fleet, "away") == expected(5..6));
        assert!(members(&fleet, "here").contains(&name(0).to_string()));
        // To and fro, many times: what it is in the end.
        for _ in 0..200 {
            fleet.note_disconnected(connection(7));
            fleet.note_connected(connection(7), &name(7), now);
        }
        fleet.note_disconnected(connection(8));
        until("two are away", || members(&fleet, "away").len() == 2);
        until("it is here still", || {
            members(&fleet, "here").contains(&name(7).to_string())
        });
        // It follows attributes too, while it is connected.
        let attributes = BTreeMap::from([("site".to_owned(), "ulm".to_owned())]);
        let change = ThingChange {
            attributes: Some(attributes),
            ..ThingChange::default()
        };
        fleet.update_thing(&name(9), &change, None).unwrap();
        assert!(!members(&fleet, "here").contains(&name(9).to_string()));
    }
    // After a start nobody is connected.
    let fleet = open(directory.path());
    filled(&fleet, "here");
    filled(&fleet, "away");
    until("nobody is here", || members(&fleet, "here").is_empty());
    assert_eq!(members(&fleet, "away"), expected(0..150));
    fleet.note_connected(connection(3), &name(3), now);
    until("one is here", || members(&fleet, "here") == expected(3..4));
}

#[test]
fn a_query_over_a_dynamic_group_is_refused_and_not_empty_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = open(directory.path());
    dynamic(&fleet, "ulm", "attributes.site:ulm");
    dynamic(&fleet, "all", "thingName:*");
    let (now, change) = (SystemTime::now(), GroupChange::default());
    let over = "thingName:lamp* AND NOT thingGroupNames:ulm";
    let made = fleet.create_dynamic_group(&g("over"), over, &change, "id".into(), now);
    assert!(
        made.unwrap_err()
            .to_string()
            .contains("ulm, which is dynamic")
    );
    let updated = fleet.update_dynamic_group(&g("all"), Some(over), &change, None);
    assert!(
        updated
            .unwrap_err()
            .to_string()
            .contains("ulm, which is dynamic")
    );
    // One of another name is none.
    dynamic(&fleet, "other", "thingGroupNames:ulmer");
}
