//! Revocation lists let go of what has ended, and of nothing else (RFC 5280 §3.3).

use ca::{CertificateState, RevocationReason, Serial};
use fleet::{CertificateStatus, DeviceKey, Enrolment, FleetError, ListName, RevocationFaces};
use std::time::{Duration, SystemTime};

use crate::house::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Number, and whether the certificate stands on it.
fn list(faces: &RevocationFaces, serial: &Serial, at: SystemTime) -> (u64, bool) {
    let authority = faces.fleet().authority();
    let shard = authority.terms().crl_shards.of(serial);
    let der = faces.list(ListName::Shard(shard), at).unwrap().unwrap();
    let read = authority.read_crl(&der).unwrap();
    (
        read.number,
        read.entries.iter().any(|entry| entry.serial == *serial),
    )
}

/// A registry whose rows can be looked at.
struct Open {
    house: House,
    table: store::Table,
}

fn open() -> Open {
    let directory = tempfile::tempdir().unwrap();
    let store = open_store(&directory.path().join("store"));
    let fleet = open_in(&directory, &store);
    Open {
        house: House { directory, fleet },
        table: store.table("registry").unwrap(),
    }
}

impl std::ops::Deref for Open {
    type Target = House;

    fn deref(&self) -> &House {
        &self.house
    }
}

fn rows(house: &Open, prefix: &str) -> usize {
    house.table.scan(prefix, None, 10_000).unwrap().len()
}

#[test]
fn an_entry_is_on_one_list_after_its_end_and_then_its_rows_go() {
    let house = open();
    let now = SystemTime::now();
    let faces = RevocationFaces::open(&house.fleet).unwrap();
    let (gone, kept) = (house.enrol("gone"), house.enrol("kept"));
    let serial = gone.issued.serial.clone();
    let unspecified = RevocationReason::Unspecified;
    house
        .fleet
        .revoke_device(&thing("gone"), unspecified, now)
        .unwrap();
    house.fleet.decommission(&thing("gone"), now).unwrap();
    house
        .fleet
        .revoke_device(&thing("kept"), unspecified, now)
        .unwrap();
    let (before, listed) = list(&faces, &serial, now);
    assert!(listed);
    let end = gone.issued.not_after;
    // However long nobody fetches it, the list after the end has it, and the one after that has not.
    let (after, listed) = list(&faces, &serial, end + 30 * DAY);
    assert!(listed && after > before);
    let (last, listed) = list(&faces, &serial, end + 31 * DAY);
    assert!(!listed && last > after);
    assert_eq!((rows(&house, "revoked/"), rows(&house, "crl/")), (2, 2));

    // The lists that nobody has asked for are made by the sweep.
    let at = end + 40 * DAY;
    let mut turns = 0;
    while rows(&house, "crl/") > 0 {
        faces.sweep(at).unwrap();
        turns += 1;
        assert!(turns < 10, "the rows go");
    }
    assert_eq!(rows(&house, "revoked/"), 0);
    assert_eq!(
        rows(&house, "serial/"),
        1,
        "of the certificate that is still known"
    );
    assert!(list(&faces, &serial, at).0 >= last, "numbers do not fall");
    assert_eq!(
        house.fleet.state_of(&serial).unwrap(),
        CertificateState::Unknown
    );
    let state = house.fleet.state_of(&kept.issued.serial).unwrap();
    assert!(matches!(state, CertificateState::Revoked(entry) if entry.reason == unspecified));
    assert_eq!(faces.sweep(at).unwrap(), 0);
}

#[test]
fn what_is_good_for_longer_stays_whatever_the_clock_says() {
    let house = open();
    let now = SystemTime::now();
    let faces = RevocationFaces::open(&house.fleet).unwrap();
    let gone = house.enrol("gone");
    house
        .fleet
        .revoke_device(&thing("gone"), RevocationReason::Unspecified, now)
        .unwrap();
    assert_eq!(faces.sweep(now).unwrap(), 0);
    // A clock that is years ahead for a while.
    let ahead = gone.issued.not_after + 900 * DAY;
    for _ in 0..20 {
        list(&faces, &gone.issued.serial, ahead);
        assert_eq!(faces.sweep(ahead).unwrap(), 0);
    }
    assert!(
        list(&faces, &gone.issued.serial, now).1,
        "and on its list when that is mended"
    );
    assert_eq!(rows(&house, "revoked/"), 1);
}

#[test]
fn a_key_that_was_compromised_stays_refused_after_its_certificate_has_left_the_lists() {
    let house = open();
    let now = SystemTime::now();
    let faces = RevocationFaces::open(&house.fleet).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let enrol = |name: &str, at| {
        let enrolment = Enrolment {
            key: DeviceKey::Csr(csr.as_bytes()),
            ..enrolment(name)
        };
        house.fleet.enrol(&enrolment, at)
    };
    let first = enrol("first", now).unwrap();
    house
        .fleet
        .revoke_device(&thing("first"), RevocationReason::KeyCompromise, now)
        .unwrap();
    house.fleet.decommission(&thing("first"), now).unwrap();
    let at = first.issued.not_after + 2 * DAY;
    for _ in 0..10 {
        faces.sweep(at).unwrap();
    }
    assert_eq!((rows(&house, "crl/"), rows(&house, "revoked/")), (0, 1));
    let refused = enrol("second", at);
    assert!(matches!(refused, Err(FleetError::Key(_))), "{refused:?}");
}

/// What a claim or a renewal leaves, be it thousands, is gone through a bounded part at a time.
#[test]
fn a_turn_is_bounded_and_the_next_goes_on() {
    let house = open();
    let now = SystemTime::now();
    let faces = RevocationFaces::open(&house.fleet).unwrap();
    // Rows as a deletion leaves them, many more than a turn looks at.
    let (record, issued, _key) = house.fleet.create_keys_and_certificate(false, now).unwrap();
    assert_eq!(record.status, CertificateStatus::Inactive);
    house
        .fleet
        .delete_certificate(&record.id, false, now)
        .unwrap();
    let (_, row) = house.table.scan("revoked/", None, 1).unwrap().remove(0);
    let copies: Vec<_> = (0..2_500)
        .map(|number| store::Write::Put {
            key: format!("revoked/{number:064x}"),
            value: row.value.clone(),
            expect: store::Expect::Absent,
        })
        .collect();
    house.table.batch(&copies).unwrap();
    assert_eq!(rows(&house, "revoked/"), 2_501);
    let at = issued.not_after + 2 * DAY;
    let mut turns = 0;
    loop {
        let before = rows(&house, "revoked/");
        faces.sweep(at).unwrap();
        let gone = before - rows(&house, "revoked/");
        assert!(gone <= 2_000, "{gone} in one turn");
        turns += 1;
        if rows(&house, "revoked/") == 0 {
            break;
        }
        assert!(turns < 30);
    }
    assert!(turns > 1);
    assert_eq!(rows(&house, "crl/"), 0);
}
