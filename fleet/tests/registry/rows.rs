//! Rows that refer to each other, policies and their versions, pages, and many at once.

use ca::RevocationReason;
use fleet::{CertificateStatus, FleetError, Target};
use std::{collections::BTreeMap, time::SystemTime};

use crate::house::*;

#[test]
fn what_is_referred_to_is_not_deleted_from_under_it() {
    let house = house();
    let now = SystemTime::now();
    let id = house.enrol("lamp-1").certificate.id;
    let group = house.group("hall");
    house
        .fleet
        .create_policy(&named("wide"), &allow_all(), now)
        .unwrap();
    house
        .fleet
        .attach_policy(&named("wide"), &Target::Group(group.clone()))
        .unwrap();
    let conflict = |result: Result<(), FleetError>| {
        let error = result.unwrap_err();
        assert!(
            matches!(error, FleetError::DeleteConflict { .. }),
            "{error}"
        );
    };
    conflict(house.fleet.delete_thing(&thing("lamp-1"), None));
    conflict(house.fleet.delete_policy(&named("wide")));
    assert!(matches!(
        house.fleet.delete_certificate(&id, true, now),
        Err(FleetError::CertificateState { .. })
    ));
    let unspecified = RevocationReason::Unspecified;
    house
        .fleet
        .set_certificate_status(&id, CertificateStatus::Inactive, unspecified, now)
        .unwrap();
    conflict(house.fleet.delete_certificate(&id, false, now));
    house.fleet.delete_certificate(&id, true, now).unwrap();
    house.fleet.delete_thing(&thing("lamp-1"), None).unwrap();
    // A group goes with what is attached to it.
    house.fleet.delete_group(&group, None).unwrap();
    house.fleet.delete_policy(&named("wide")).unwrap();
}

#[test]
fn one_certificate_belongs_to_one_thing() {
    let house = house();
    let id = house.enrol("lamp-1").certificate.id;
    house
        .fleet
        .create_thing(&thing("lamp-2"), BTreeMap::new(), None, SystemTime::now())
        .unwrap();
    let error = house
        .fleet
        .attach_principal(&thing("lamp-2"), &id, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("belongs to thing lamp-1"), "{error}");
}

#[test]
fn a_document_not_understood_whole_is_never_stored_and_changes_nothing() {
    let house = house();
    let now = SystemTime::now();
    for bad in [
        "",
        "{",
        "{}",
        r#"{"Statement":[{"Effect":"Allow","NotAction":"iot:*","Resource":"*"}]}"#,
    ] {
        assert!(matches!(
            house.fleet.create_policy(&named("p"), bad, now),
            Err(FleetError::MalformedPolicy(_))
        ));
        assert!(matches!(
            house
                .fleet
                .update_policy(&named("device-default"), bad, now),
            Err(FleetError::MalformedPolicy(_))
        ));
    }
    assert!(house.fleet.policy(&named("p")).is_err());
    assert_eq!(
        house
            .fleet
            .policy(&named("device-default"))
            .unwrap()
            .versions
            .len(),
        1
    );
}

#[test]
fn five_versions_and_not_one_more_unless_room_is_made() {
    let house = house();
    let now = SystemTime::now();
    house
        .fleet
        .create_policy(&named("p"), &allow_all(), now)
        .unwrap();
    for _ in 0..4 {
        house
            .fleet
            .create_policy_version(&named("p"), &allow_all(), false, now)
            .unwrap();
    }
    let full = house
        .fleet
        .create_policy_version(&named("p"), &allow_all(), false, now);
    assert!(matches!(full, Err(FleetError::Limit { limit: 5, .. })));
    let sixth = house
        .fleet
        .update_policy(&named("p"), &allow_all(), now)
        .unwrap();
    let record = house.fleet.policy(&named("p")).unwrap();
    assert_eq!(
        (sixth.number, record.default_version, record.versions.len()),
        (6, 6, 5)
    );
    assert!(
        record.versions.iter().any(|v| v.number == 1),
        "the version that decided until now stays"
    );
}

#[test]
fn lists_come_in_pages_that_meet_without_gap_or_overlap() {
    let house = house();
    let now = SystemTime::now();
    for n in 0..7 {
        house
            .fleet
            .create_thing(&thing(&format!("t-{n}")), BTreeMap::new(), None, now)
            .unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = house.fleet.things(after.as_deref(), 3).unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.into_iter().map(|t| t.name.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..7).map(|n| format!("t-{n}")).collect::<Vec<_>>());
}

#[test]
fn concurrent_operations_lose_nothing() {
    let house = house();
    let group = house.group("hall");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (fleet, group) = (house.fleet.clone(), group.clone());
            scope.spawn(move || {
                for n in 0..8 {
                    let mut device = enrolment(&format!("d-{worker}-{n}"));
                    device.groups.push(group.clone());
                    fleet.enrol(&device, SystemTime::now()).unwrap();
                }
            });
        }
    });
    assert_eq!(
        house.fleet.members(&group, None, 250).unwrap().items.len(),
        32
    );
    // The same name from four sides: one of them gets it.
    let winners: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    house
                        .fleet
                        .enrol(&enrolment("one"), SystemTime::now())
                        .is_ok()
                })
            })
            .collect();
        tries
            .into_iter()
            .map(|t| usize::from(t.join().unwrap()))
            .sum()
    });
    assert_eq!(winners, 1);
}
