//! Groups below one another, thing types, and changes of things: through the registry's public face.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use ca::{Authority, AuthorityConfig};
use fleet::{
    DeviceKey, Enrolment, Fleet, FleetError, GROUP_DEPTH_LIMIT_LEVELS, GroupChange, GroupName,
    Target, ThingChange, ThingFilter, ThingName, ThingTypeName, ThingTypeProperties,
};
use policy::{Action, Decision, Grant, Realm};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};
use store::Store;

struct House {
    _directory: tempfile::TempDir,
    fleet: Fleet,
}

fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    let fleet = Fleet::open(
        &store,
        Arc::new(authority),
        Realm::live("000000000000"),
        now,
    )
    .unwrap();
    House {
        _directory: directory,
        fleet,
    }
}

fn g(name: &str) -> GroupName {
    name.parse().unwrap()
}

fn thing(name: &str) -> ThingName {
    name.parse().unwrap()
}

impl House {
    fn group(&self, name: &str, parent: Option<&str>) -> Result<(), FleetError> {
        let parent = parent.map(g);
        let none = GroupChange::default();
        let id = name.to_owned();
        self.fleet
            .create_group(&g(name), parent.as_ref(), &none, id, SystemTime::now())
            .map(|_| ())
    }

    fn thing(&self, name: &str) {
        self.fleet
            .create_thing(&thing(name), BTreeMap::new(), None, SystemTime::now())
            .unwrap();
    }
}

#[test]
fn a_policy_above_counts_below_and_is_felt_at_once() {
    let house = house();
    let fleet = &house.fleet;
    house.group("site", None).unwrap();
    house.group("hall", Some("site")).unwrap();
    house.group("lamps", Some("hall")).unwrap();
    let enrolled = fleet
        .enrol(
            &Enrolment {
                thing: thing("lamp-1"),
                policies: Vec::new(),
                groups: vec![g("lamps")],
                attributes: BTreeMap::new(),
                key: DeviceKey::Generate,
            },
            SystemTime::now(),
        )
        .unwrap();
    let standing = fleet.standing(&enrolled.certificate.id).unwrap();
    let may = || {
        let now = standing.now();
        let context = now.context("lamp-1", SystemTime::now());
        let grant = Grant::new(
            Arc::clone(fleet.realm()),
            Arc::clone(&now.policies),
            context,
        );
        grant.decide(Action::Publish, "anything") == Decision::Allow
    };
    let all = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
    let name = "all".parse().unwrap();
    fleet.create_policy(&name, all, SystemTime::now()).unwrap();
    assert!(!may());
    for group in ["site", "hall", "lamps"] {
        let target = Target::Group(g(group));
        fleet.attach_policy(&name, &target).unwrap();
        assert!(may(), "{group}");
        fleet.detach_policy(&name, &target).unwrap();
        assert!(!may(), "{group}");
    }
    fleet
        .attach_policy(&name, &Target::Group(g("site")))
        .unwrap();
    fleet
        .remove_from_group(&g("lamps"), &thing("lamp-1"))
        .unwrap();
    assert!(!may());
}

#[test]
fn groups_are_a_tree_of_bounded_depth() {
    let house = house();
    let mut parent = None;
    for level in 0..GROUP_DEPTH_LIMIT_LEVELS {
        let name = format!("g{level}");
        house.group(&name, parent.as_deref()).unwrap();
        parent = Some(name);
    }
    let deeper = house.group("too-deep", parent.as_deref()).unwrap_err();
    assert!(matches!(deeper, FleetError::Limit { .. }), "{deeper}");
    let orphan = house.group("orphan", Some("nowhere")).unwrap_err();
    assert!(matches!(orphan, FleetError::NotFound { .. }), "{orphan}");
    let own = house.group("own", Some("own")).unwrap_err();
    assert!(matches!(own, FleetError::NotFound { .. }), "{own}");
    let above = house.fleet.groups_above(&g("g3")).unwrap();
    assert_eq!(above, [g("g0"), g("g1"), g("g2")]);
    let below = house.fleet.groups_below(&g("g4")).unwrap();
    assert_eq!(below, [g("g5"), g("g6")]);
    let error = house.fleet.delete_group(&g("g4"), None).unwrap_err();
    assert!(error.to_string().contains("g5 is below it"), "{error}");
    house.fleet.delete_group(&g("g6"), None).unwrap();
    house.fleet.delete_group(&g("g5"), None).unwrap();
    house.fleet.delete_group(&g("g4"), None).unwrap();
    assert!(house.fleet.groups_below(&g("g3")).unwrap().is_empty());
}

#[test]
fn a_thing_is_in_one_group_of_a_hierarchy() {
    let house = house();
    let fleet = &house.fleet;
    for (name, parent) in [
        ("a", None),
        ("a1", Some("a")),
        ("a2", Some("a")),
        ("b", None),
    ] {
        house.group(name, parent).unwrap();
    }
    house.thing("t");
    let t = thing("t");
    fleet.add_to_group(&g("a1"), &t).unwrap();
    for other in ["a", "a2"] {
        let error = fleet.add_to_group(&g(other), &t).unwrap_err();
        assert!(error.to_string().contains("one hierarchy"), "{error}");
    }
    fleet.add_to_group(&g("b"), &t).unwrap();
    fleet
        .change_groups_of(&t, &[g("a2")], &[g("a1"), g("b")])
        .unwrap();
    assert_eq!(fleet.groups_of(&t).unwrap(), [g("a2")]);
    assert!(fleet.members(&g("a1"), None, 10).unwrap().items.is_empty());
}

#[test]
fn the_members_below_come_whole_in_pages_of_any_size() {
    let house = house();
    let fleet = &house.fleet;
    for (name, parent) in [
        ("m", None),
        ("a", Some("m")),
        ("z", Some("m")),
        ("zz", Some("z")),
        ("other", None),
    ] {
        house.group(name, parent).unwrap();
    }
    let mut expected = BTreeSet::new();
    for n in 0..23 {
        let name = format!("t{n}");
        house.thing(&name);
        let group = ["m", "a", "zz", "zz"][n % 4];
        fleet.add_to_group(&g(group), &thing(&name)).unwrap();
        expected.insert(thing(&name));
    }
    house.thing("stranger");
    fleet.add_to_group(&g("other"), &thing("stranger")).unwrap();
    for size in 1..25 {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = fleet
                .members_below(&g("m"), after.as_deref(), size)
                .unwrap();
            assert!(page.items.len() <= size);
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), expected.len(), "pages of {size}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[test]
fn a_type_that_things_have_stays() {
    let house = house();
    let fleet = &house.fleet;
    let now = SystemTime::now();
    let (lamp, bell): (ThingTypeName, ThingTypeName) =
        ("lamp".parse().unwrap(), "bell".parse().unwrap());
    for name in [&lamp, &bell] {
        let properties = ThingTypeProperties::default();
        fleet
            .create_thing_type(name, properties, "id".into(), now)
            .unwrap();
    }
    fleet
        .create_thing(&thing("t"), BTreeMap::new(), Some(lamp.clone()), now)
        .unwrap();
    let of = |name: &ThingTypeName| {
        let filter = ThingFilter {
            type_name: Some(name.clone()),
            ..ThingFilter::default()
        };
        fleet.things_where(&filter, None, 10).unwrap().items.len()
    };
    assert_eq!((of(&lamp), of(&bell)), (1, 0));
    assert!(fleet.delete_thing_type(&lamp).is_err(), "not deprecated");
    fleet.deprecate_thing_type(&lamp, false, now).unwrap();
    assert!(fleet.delete_thing_type(&lamp).is_err(), "a thing has it");
    let new = fleet.create_thing(&thing("u"), BTreeMap::new(), Some(lamp.clone()), now);
    assert!(new.unwrap_err().to_string().contains("deprecated"));
    // What has it keeps it, also through other changes.
    fleet
        .update_thing(&thing("t"), &ThingChange::default(), None)
        .unwrap();
    let to_bell = ThingChange {
        type_name: Some(Some(bell.clone())),
        ..ThingChange::default()
    };
    fleet.update_thing(&thing("t"), &to_bell, None).unwrap();
    assert_eq!((of(&lamp), of(&bell)), (0, 1));
    fleet.delete_thing_type(&lamp).unwrap();
    fleet.delete_thing(&thing("t"), None).unwrap();
    assert_eq!(of(&bell), 0);
}

#[test]
fn a_large_group_goes_little_by_little_and_nobody_stays_in_it() {
    let house = house();
    house.group("large", None).unwrap();
    let names: Vec<String> = (0..600).map(|n| format!("lamp-{n:03}")).collect();
    for name in &names {
        house.thing(name);
        let added = house.fleet.add_to_group(&g("large"), &thing(name));
        added.unwrap();
    }
    house.fleet.delete_group(&g("large"), None).unwrap();
    for name in &names {
        assert_eq!(house.fleet.groups_of(&thing(name)).unwrap(), []);
    }
    house.group("large", None).unwrap();
    let members = house.fleet.members(&g("large"), None, 10).unwrap();
    assert_eq!(members.items, []);
}
