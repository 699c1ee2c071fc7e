//! The ways in, and one certificate after another.

use ca::{CertificateId, RevocationReason};
use fleet::{CertificateStatus, DeviceKey, FleetError, Heir, Kind, PasswordTerms};
use policy::{Action, Decision};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use crate::house::*;

#[test]
fn an_enrolled_device_survives_reopening_and_has_its_default_rights() {
    let House { directory, fleet } = house();
    let id = fleet
        .enrol(&enrolment("lamp-1"), SystemTime::now())
        .unwrap()
        .certificate
        .id;
    drop(fleet);
    let fleet = open(&directory);
    let house = House { directory, fleet };
    assert_eq!(house.fleet.thing_of(&id).unwrap(), Some(thing("lamp-1")));
    assert_eq!(
        house.decide(&id, "lamp-1", Action::Connect, "lamp-1"),
        Decision::Allow
    );
    assert_eq!(
        house.decide(&id, "lamp-1", Action::Publish, "dt/lamp-1/x"),
        Decision::Allow
    );
    assert_eq!(
        house.decide(&id, "lamp-1", Action::Publish, "dt/lamp-2/x"),
        Decision::ImplicitDeny
    );
}

#[test]
fn enrolment_is_all_or_nothing() {
    let house = house();
    let mut bad = enrolment("lamp-1");
    bad.policies.push(named("missing"));
    assert!(matches!(
        house.fleet.enrol(&bad, SystemTime::now()),
        Err(FleetError::NotFound {
            kind: Kind::Policy,
            ..
        })
    ));
    assert!(matches!(
        house.fleet.thing(&thing("lamp-1")),
        Err(FleetError::NotFound { .. })
    ));
    assert!(house.fleet.certificates(None, 10).unwrap().items.is_empty());

    house.enrol("lamp-1");
    let again = house
        .fleet
        .enrol(&enrolment("lamp-1"), SystemTime::now())
        .unwrap_err()
        .to_string();
    assert!(
        again.contains("lamp-1 exists already") && again.contains("device replace"),
        "{again}"
    );
}

fn password_terms(name: &str, life: Duration) -> PasswordTerms {
    PasswordTerms {
        thing: thing(name),
        policies: vec![named("device-default")],
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        life,
    }
}

#[test]
fn of_many_that_use_one_password_at_once_one_is_enrolled() {
    let house = house();
    let now = SystemTime::now();
    let terms = password_terms("lamp-1", Duration::from_secs(60));
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    let won = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let name = thing("lamp-1");
                match house
                    .fleet
                    .enrol_with_password(&name, &password, DeviceKey::Generate, now)
                {
                    Ok(_) => _ = won.fetch_add(1, Ordering::Relaxed),
                    Err(error) => assert!(matches!(error, FleetError::Password), "{error}"),
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
    let page = house.fleet.principals(&thing("lamp-1"), None, 10).unwrap();
    assert_eq!(page.items.len(), 1);
}

#[test]
fn who_lost_the_answer_has_the_same_certificate_again_with_the_same_key_for_a_while() {
    let mut house = house();
    let now = SystemTime::now();
    let name = thing("lamp-1");
    let terms = password_terms("lamp-1", Duration::from_secs(60));
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    let keys = [
        ca::KeyPair::generate().unwrap(),
        ca::KeyPair::generate().unwrap(),
    ];
    let csrs = keys.each_ref().map(|key| key.request("lamp-1").unwrap());
    let ask = |fleet: &fleet::Fleet, csr: &str, at| {
        let key = DeviceKey::Csr(csr.as_bytes());
        fleet.enrol_with_password(&name, &password, key, at)
    };
    let refused = |done: Result<fleet::Enrolled, FleetError>| {
        assert!(matches!(done, Err(FleetError::Password)), "{done:?}");
    };
    let first = ask(&house.fleet, &csrs[0], now).unwrap();
    // Also after a crash, and when the password itself has ended.
    drop(house.fleet);
    house.fleet = open(&house.directory);
    let last = now + fleet::PASSWORD_ANSWER_AGAIN - Duration::from_millis(1);
    // Another request over the same key is the same device's.
    for csr in [&csrs[0], &keys[0].request("").unwrap()] {
        let again = ask(&house.fleet, csr, last).unwrap();
        assert_eq!(again.certificate, first.certificate);
        assert_eq!(again.issued.der, first.issued.der);
    }
    refused(ask(&house.fleet, &csrs[1], now));
    refused(
        house
            .fleet
            .enrol_with_password(&name, &password, DeviceKey::Generate, now),
    );
    refused(ask(
        &house.fleet,
        &csrs[0],
        now + fleet::PASSWORD_ANSWER_AGAIN,
    ));
    let held = house.fleet.principals(&name, None, 10).unwrap().items;
    assert_eq!(held.len(), 1, "nothing new was made");
    // What is no more is not handed out, nor is anything made in its place.
    let second = house
        .fleet
        .replace(&name, DeviceKey::Generate, now)
        .unwrap()
        .certificate
        .id;
    refused(ask(&house.fleet, &csrs[0], now));
    let active = CertificateStatus::Active;
    assert_eq!(house.fleet.certificate(&second).unwrap().status, active);
    // A device that was taken away gets nothing again, not even while its certificate is the one of then.
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    let again = |fleet: &fleet::Fleet| {
        let key = DeviceKey::Csr(csrs[1].as_bytes());
        fleet.enrol_with_password(&name, &password, key, now)
    };
    let third = again(&house.fleet).unwrap().certificate.id;
    let set = |status| {
        let reason = RevocationReason::Unspecified;
        house
            .fleet
            .set_certificate_status(&third, status, reason, now)
            .unwrap();
    };
    set(CertificateStatus::Inactive);
    set(active);
    refused(again(&house.fleet));
}

#[test]
fn one_device_that_asks_many_times_at_once_is_enrolled_once_and_answered_each_time() {
    let house = house();
    let now = SystemTime::now();
    let terms = password_terms("lamp-1", Duration::from_secs(60));
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    let csr = ca::KeyPair::generate().unwrap().request("lamp-1").unwrap();
    let ask = || {
        let key = DeviceKey::Csr(csr.as_bytes());
        let enrolled = house
            .fleet
            .enrol_with_password(&thing("lamp-1"), &password, key, now);
        enrolled.unwrap().certificate.id
    };
    let given: Vec<_> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        askers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let page = house.fleet.principals(&thing("lamp-1"), None, 10).unwrap();
    assert_eq!(page.items.len(), 1);
    assert!(given.iter().all(|id| *id == given[0]));
}

#[test]
fn what_is_refused_has_not_used_the_password() {
    let house = house();
    let now = SystemTime::now();
    let mut terms = password_terms("lamp-1", Duration::from_secs(60));
    terms.groups = vec![house.group("hall")];
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    house.fleet.delete_group(&terms.groups[0], None).unwrap();
    let csr = ca::KeyPair::generate().unwrap().request("lamp-1").unwrap();
    let ask = || {
        let key = DeviceKey::Csr(csr.as_bytes());
        house
            .fleet
            .enrol_with_password(&thing("lamp-1"), &password, key, now)
    };
    let error = ask().unwrap_err();
    assert!(matches!(error, FleetError::NotFound { .. }), "{error}");
    house.group("hall");
    ask().unwrap();
}

#[test]
fn a_device_that_was_deactivated_does_not_let_itself_in_again() {
    let house = house();
    let now = SystemTime::now();
    let id = house.enrol("lamp-1").certificate.id;
    let terms = password_terms("lamp-1", Duration::from_secs(60));
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    let (inactive, reason) = (CertificateStatus::Inactive, RevocationReason::Unspecified);
    house
        .fleet
        .set_certificate_status(&id, inactive, reason, now)
        .unwrap();
    let enrol = |password: &str| {
        let name = thing("lamp-1");
        (house.fleet).enrol_with_password(&name, password, DeviceKey::Generate, now)
    };
    assert!(matches!(enrol(&password), Err(FleetError::Password)));
    let record = house.fleet.certificate(&id).unwrap();
    assert_eq!(record.status, inactive, "for `activate` to take back");
    // One that is made then is what the operator wants.
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    enrol(&password).unwrap();
}

#[test]
fn a_password_ends_and_its_life_is_bounded() {
    let house = house();
    let now = SystemTime::now();
    let minute = Duration::from_secs(60);
    let make = |life| {
        let terms = password_terms("lamp-1", life);
        house.fleet.make_enrolment_password(&terms, now)
    };
    assert!(make(Duration::ZERO).is_err());
    assert!(make(fleet::PASSWORD_LIFE_LIMIT + Duration::from_secs(1)).is_err());
    make(fleet::PASSWORD_LIFE_LIMIT).unwrap();
    let password = make(minute).unwrap();
    let good = |at| {
        house
            .fleet
            .check_enrolment_password(&thing("lamp-1"), &password, at)
            .is_ok()
    };
    assert!(good(now) && good(now + minute - Duration::from_millis(1)));
    assert!(!good(now + minute));
}

#[test]
fn renewal_keeps_two_certificates_at_most_and_only_for_the_active() {
    let house = house();
    let now = SystemTime::now();
    let first = house.enrol("lamp-1").certificate.id;
    let renew = |id: &CertificateId| house.fleet.renew(id, DeviceKey::Generate, now);
    let state = |id: &CertificateId| house.fleet.certificate(id).unwrap().status;
    let lost = renew(&first).unwrap().certificate.id;
    let second = renew(&first).unwrap().certificate.id;
    assert_eq!(state(&first), CertificateStatus::Active);
    assert_eq!(state(&lost), CertificateStatus::Revoked);
    assert_eq!(state(&second), CertificateStatus::Active);
    assert!(matches!(
        renew(&lost),
        Err(FleetError::CertificateState { .. })
    ));
    // Use of the lost one, or of the old one, retires nothing.
    house.fleet.renewed(&lost, now).unwrap();
    house.fleet.renewed(&first, now).unwrap();
    assert_eq!(state(&first), CertificateStatus::Active);
    house.fleet.renewed(&second, now).unwrap();
    assert_eq!(state(&first), CertificateStatus::Inactive);
    assert!(matches!(
        renew(&first),
        Err(FleetError::CertificateState { .. })
    ));
    let heir = |id| house.fleet.heir(id, None).unwrap();
    let held = Heir::Certificate(second);
    assert_eq!((heir(&first), heir(&second)), (held, held));
    // An operator who wants the old one back gets it back, and it stays.
    let active = CertificateStatus::Active;
    house
        .fleet
        .set_certificate_status(&first, active, RevocationReason::Unspecified, now)
        .unwrap();
    house.fleet.renewed(&second, now).unwrap();
    assert_eq!(state(&first), CertificateStatus::Active);
    house.fleet.decommission(&thing("lamp-1"), now).unwrap();
    assert!(matches!(renew(&second), Err(FleetError::NotFound { .. })));
}

#[test]
fn replace_keeps_groups_and_policies_and_the_old_certificate_leaves_nothing() {
    let house = house();
    let now = SystemTime::now();
    let old = house.enrol("lamp-1").certificate.id;
    let group = house.group("hall");
    house.fleet.add_to_group(&group, &thing("lamp-1")).unwrap();
    let new = house
        .fleet
        .replace(&thing("lamp-1"), DeviceKey::Generate, now)
        .unwrap()
        .certificate
        .id;
    assert!(!house.fleet.standing(&old).unwrap().now().is_active(now));
    assert!(house.fleet.standing(&new).unwrap().now().is_active(now));
    assert_eq!(
        house.decide(&new, "lamp-1", Action::Publish, "dt/lamp-1/x"),
        Decision::Allow
    );
    assert_eq!(house.fleet.groups_of(&thing("lamp-1")).unwrap(), [group]);
    let heir = |id| house.fleet.heir(id, None).unwrap();
    assert_eq!(
        (heir(&old), heir(&new)),
        (Heir::Nobody, Heir::Certificate(new))
    );
}

/// Policies can ask by which way a certificate came in; a renewed one came by the way of the one before.
#[test]
fn the_way_in_is_noted_and_renewal_keeps_it() {
    let house = house();
    let now = SystemTime::now();
    let way = |id: &CertificateId| {
        let standing = house.fleet.standing(id).unwrap().now();
        standing
            .certificate
            .enrolled_by
            .as_deref()
            .map(str::to_owned)
    };
    let by_hand = house.enrol("lamp-1").certificate.id;
    assert_eq!(way(&by_hand).as_deref(), Some("operator"));
    let (minted, ..) = house.fleet.create_keys_and_certificate(true, now).unwrap();
    assert_eq!(way(&minted.id).as_deref(), Some("operator"));
    let terms = password_terms("lamp-2", Duration::from_secs(60));
    let password = house.fleet.make_enrolment_password(&terms, now).unwrap();
    let by_password = house
        .fleet
        .enrol_with_password(&thing("lamp-2"), &password, DeviceKey::Generate, now)
        .unwrap();
    assert_eq!(way(&by_password.certificate.id).as_deref(), Some("est"));
    let renewed = house
        .fleet
        .renew(&by_password.certificate.id, DeviceKey::Generate, now)
        .unwrap();
    assert_eq!(way(&renewed.certificate.id).as_deref(), Some("est"));
    let replaced = house
        .fleet
        .replace(&thing("lamp-2"), DeviceKey::Generate, now)
        .unwrap();
    assert_eq!(way(&replaced.certificate.id).as_deref(), Some("operator"));
}
