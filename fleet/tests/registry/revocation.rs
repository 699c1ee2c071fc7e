//! What a change of standing does, and how the world is told.

use ca::{CertificateId, CertificateState, CrlShard, RevocationReason};
use fleet::{
    CertificateStatus, DeviceKey, Enrolled, FleetError, ListName, RevocationFaces, Target,
};
use policy::{Action, Decision};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::SystemTime,
};

use crate::house::*;

#[test]
fn a_live_standing_feels_every_change_before_the_operation_returns() {
    let house = house();
    let id = house.enrol("lamp-1").certificate.id;
    let standing = house.fleet.standing(&id).unwrap();
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let _guard = standing.watch(Waker::from(Arc::clone(&count)));
    let mut generation = standing.generation();
    let mut woken = 0;
    let mut felt = |what: &str| {
        assert_ne!(standing.generation(), generation, "{what}");
        generation = standing.generation();
        let now = count.0.load(Ordering::SeqCst);
        assert!(now > woken, "{what}");
        woken = now;
        standing.now()
    };
    let now = SystemTime::now();
    let target = Target::Certificate(id);

    house
        .fleet
        .create_policy(&named("wide"), &allow_all(), now)
        .unwrap();
    house.fleet.attach_policy(&named("wide"), &target).unwrap();
    assert_eq!(felt("attach").policies.len(), 2);
    house
        .fleet
        .update_policy(&named("wide"), &allow_all().replace("Allow", "Deny"), now)
        .unwrap();
    felt("update");
    assert_eq!(
        house.decide(&id, "lamp-1", Action::Publish, "dt/lamp-1/x"),
        Decision::ExplicitDeny
    );
    house.fleet.detach_policy(&named("wide"), &target).unwrap();
    assert_eq!(felt("detach").policies.len(), 1);

    let group = house.group("hall");
    let before = standing.generation();
    house
        .fleet
        .attach_policy(&named("wide"), &Target::Group(group.clone()))
        .unwrap();
    assert_eq!(
        standing.generation(),
        before,
        "not a member yet: nobody is woken"
    );
    house.fleet.add_to_group(&group, &thing("lamp-1")).unwrap();
    assert_eq!(felt("join").policies.len(), 2);
    house
        .fleet
        .detach_policy(&named("wide"), &Target::Group(group.clone()))
        .unwrap();
    assert_eq!(felt("group's policy").policies.len(), 1);
    house
        .fleet
        .remove_from_group(&group, &thing("lamp-1"))
        .unwrap();
    assert!(felt("leave").groups.is_empty());

    house.fleet.detach_principal(&thing("lamp-1"), &id).unwrap();
    assert_eq!(felt("detach from thing").thing, None);
    house
        .fleet
        .attach_principal(&thing("lamp-1"), &id, None)
        .unwrap();
    assert!(felt("attach to thing").thing.is_some());

    house
        .fleet
        .revoke_device(&thing("lamp-1"), RevocationReason::KeyCompromise, now)
        .unwrap();
    assert!(!felt("revoke").is_active(now));
    house.fleet.decommission(&thing("lamp-1"), now).unwrap();
    assert_eq!(felt("delete").status, None);
}

#[test]
fn a_revoked_certificate_stays_revoked_and_listed() {
    let house = house();
    let now = SystemTime::now();
    let enrolled = house.enrol("lamp-1");
    let id = enrolled.certificate.id;
    let epoch = house.fleet.revocation_epoch();
    house
        .fleet
        .revoke_device(&thing("lamp-1"), RevocationReason::KeyCompromise, now)
        .unwrap();
    assert_ne!(house.fleet.revocation_epoch(), epoch);
    let back = house.fleet.set_certificate_status(
        &id,
        CertificateStatus::Active,
        RevocationReason::Unspecified,
        now,
    );
    assert!(matches!(back, Err(FleetError::CertificateState { .. })));
    house.fleet.decommission(&thing("lamp-1"), now).unwrap();
    let listed = house.fleet.revoked(now).unwrap();
    assert_eq!(
        listed.len(),
        1,
        "a deleted device's certificate stays on the list"
    );
    assert_eq!(listed[0].serial, enrolled.issued.serial);
    assert_eq!(listed[0].reason, RevocationReason::KeyCompromise);
    let expired = enrolled.issued.not_after + std::time::Duration::from_secs(1);
    assert!(
        house.fleet.revoked(expired).unwrap().is_empty(),
        "until it would have expired"
    );
}

#[test]
fn a_certificate_that_is_deleted_before_its_end_is_good_for_nobody() {
    let house = house();
    let now = SystemTime::now();
    let (record, issued, _key) = house.fleet.create_keys_and_certificate(false, now).unwrap();
    assert_eq!(
        house.told(&issued.serial, now),
        Some(RevocationReason::CertificateHold)
    );
    let epoch = house.fleet.revocation_epoch();
    house
        .fleet
        .delete_certificate(&record.id, false, now)
        .unwrap();
    assert_ne!(
        house.fleet.revocation_epoch(),
        epoch,
        "lists are signed anew"
    );
    let listed = house.fleet.revoked(now).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].serial, issued.serial);
    assert_eq!(listed[0].reason, RevocationReason::CessationOfOperation);
    let state = house.fleet.state_of(&issued.serial).unwrap();
    assert_eq!(state, CertificateState::Revoked(listed[0].clone()));

    let (record, issued, _key) = house.fleet.create_keys_and_certificate(false, now).unwrap();
    let ended = issued.not_after + std::time::Duration::from_secs(1);
    house
        .fleet
        .delete_certificate(&record.id, false, ended)
        .unwrap();
    let listed = house.fleet.revoked(ended).unwrap();
    assert!(listed.is_empty(), "an ended one needs no list");
}

/// Lists and OCSP follow what the registry says, in both directions.
#[test]
fn what_is_inactive_is_on_hold_until_it_is_active_again() {
    let house = house();
    let now = SystemTime::now();
    let enrolled = house.enrol("lamp-1");
    let (id, serial) = (enrolled.certificate.id, &enrolled.issued.serial);
    let set = |id: &CertificateId, status, reason| {
        house.fleet.set_certificate_status(id, status, reason, now)
    };
    let hold = RevocationReason::CertificateHold;
    let (active, inactive) = (CertificateStatus::Active, CertificateStatus::Inactive);
    for _ in 0..2 {
        assert_eq!(house.told(serial, now), None);
        set(&id, inactive, RevocationReason::Unspecified).unwrap();
        assert_eq!(house.told(serial, now), Some(hold));
        set(&id, active, RevocationReason::Unspecified).unwrap();
    }
    // A renewal that was used puts the one before on hold; an operator may have it back.
    let renewed = house.fleet.renew(&id, DeviceKey::Generate, now).unwrap();
    assert_eq!(house.told(serial, now), None);
    house.fleet.renewed(&renewed.certificate.id, now).unwrap();
    assert_eq!(house.told(serial, now), Some(hold));
    assert_eq!(house.told(&renewed.issued.serial, now), None);
    set(&id, active, RevocationReason::Unspecified).unwrap();
    assert_eq!(house.told(serial, now), None);
    // Nothing is held for ever: what is revoked is revoked for another reason.
    let refused = set(&id, CertificateStatus::Revoked, hold).unwrap_err();
    assert!(refused.to_string().contains("certificateHold"), "{refused}");
    set(&id, inactive, RevocationReason::Unspecified).unwrap();
    set(
        &id,
        CertificateStatus::Revoked,
        RevocationReason::KeyCompromise,
    )
    .unwrap();
    assert_eq!(
        house.told(serial, now),
        Some(RevocationReason::KeyCompromise)
    );
    // And what is deleted while it is held does not come back.
    let (record, issued, _key) = house.fleet.create_keys_and_certificate(false, now).unwrap();
    assert_eq!(house.told(&issued.serial, now), Some(hold));
    house
        .fleet
        .delete_certificate(&record.id, false, now)
        .unwrap();
    let ceased = RevocationReason::CessationOfOperation;
    assert_eq!(house.told(&issued.serial, now), Some(ceased));
}

#[test]
fn a_registry_of_before_lists_spoke_of_what_is_inactive_is_indexed_once() {
    let house = house();
    let now = SystemTime::now();
    let serials = ["held", "kept"].map(|name| {
        let enrolled = house.enrol(name);
        if name == "held" {
            let (off, reason) = (CertificateStatus::Inactive, RevocationReason::Unspecified);
            let id = &enrolled.certificate.id;
            house
                .fleet
                .set_certificate_status(id, off, reason, now)
                .unwrap();
        }
        enrolled.issued.serial
    });
    let House { directory, fleet } = house;
    drop(fleet);
    {
        // As a release of before left it.
        let store = open_store(&directory.path().join("store"));
        let table = store.table("registry").unwrap();
        let mut rows = vec![store::Write::delete("meta/certified", store::Expect::Any)];
        for prefix in ["revoked/", "crl/"] {
            let found = table.scan(prefix, None, 100).unwrap();
            assert_eq!(found.len(), 1);
            let keys = found.into_iter().map(|(key, _)| key);
            rows.extend(keys.map(|key| store::Write::delete(key, store::Expect::Any)));
        }
        table.batch(&rows).unwrap();
        store.stop_watches();
    }
    let fleet = open(&directory);
    let house = House { directory, fleet };
    assert_eq!(
        house.told(&serials[0], now),
        Some(RevocationReason::CertificateHold)
    );
    assert_eq!(house.told(&serials[1], now), None);
}

#[test]
fn a_registry_of_before_serial_numbers_were_looked_up_is_indexed_once() {
    let house = house();
    let now = SystemTime::now();
    let (revoked, gone, kept) = (
        house.enrol("revoked"),
        house.enrol("gone"),
        house.enrol("kept"),
    );
    for name in ["revoked", "gone"] {
        house
            .fleet
            .revoke_device(&thing(name), RevocationReason::Superseded, now)
            .unwrap();
    }
    house.fleet.decommission(&thing("gone"), now).unwrap();
    let House { directory, fleet } = house;
    drop(fleet);
    {
        // As a release of before left it.
        let store = open_store(&directory.path().join("store"));
        let table = store.table("registry").unwrap();
        let mut rows = vec![store::Write::delete("meta/serials", store::Expect::Any)];
        for prefix in ["serial/", "crl/"] {
            let found = table.scan(prefix, None, 100).unwrap();
            assert!(!found.is_empty());
            let keys = found.into_iter().map(|(key, _)| key);
            rows.extend(keys.map(|key| store::Write::delete(key, store::Expect::Any)));
        }
        table.batch(&rows).unwrap();
        store.stop_watches();
    }
    let fleet = open(&directory);
    let state = |enrolled: &Enrolled| fleet.state_of(&enrolled.issued.serial).unwrap();
    assert_eq!(state(&kept), CertificateState::Good);
    let faces = RevocationFaces::open(&fleet).unwrap();
    for enrolled in [&revoked, &gone] {
        assert!(matches!(state(enrolled), CertificateState::Revoked(_)));
        let serial = &enrolled.issued.serial;
        let shard = fleet.authority().terms().crl_shards.of(serial);
        let list = faces.list(ListName::Shard(shard), now).unwrap().unwrap();
        let list = fleet.authority().read_crl(&list).unwrap();
        assert!(list.entries.iter().any(|entry| entry.serial == *serial));
    }
}

#[test]
fn a_list_is_signed_again_only_for_its_own_serial_numbers_and_before_it_ends() {
    let house = house();
    let now = SystemTime::now();
    let faces = RevocationFaces::open(&house.fleet).unwrap();
    let serial = house.enrol("lamp-1").issued.serial;
    let shards = house.fleet.authority().terms().crl_shards;
    let read = |at| -> Vec<_> {
        let lists = shards
            .all()
            .map(|shard| faces.list(ListName::Shard(shard), at));
        lists.map(|list| list.unwrap().unwrap()).collect()
    };
    let before = read(now);
    assert_eq!(read(now), before);
    house
        .fleet
        .revoke_device(&thing("lamp-1"), RevocationReason::Unspecified, now)
        .unwrap();
    for (shard, (old, new)) in shards.all().zip(before.iter().zip(read(now))) {
        assert_eq!(*old != new, shard == shards.of(&serial));
    }
    let hours = |count: u64| now + std::time::Duration::from_secs(count * 3600);
    let kept = read(hours(11));
    assert_eq!(kept, read(now));
    let later = read(hours(13));
    assert!(later.iter().zip(&kept).all(|(new, old)| new != old));
    let index = CrlShard::new(64, 0).unwrap();
    assert!(
        faces.list(ListName::Shard(index), now).unwrap().is_none(),
        "nothing names it"
    );
}
