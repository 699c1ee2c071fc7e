//! Attestations and violations: whom they count for, how long, and what the broker's word costs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly"
)]

use ca::{Authority, AuthorityConfig, CertificateId, KeyPair, RevocationReason};
use fleet::{
    CertificateStatus, DeviceKey, Enrolment, Fleet, FleetError, Standing, ThingName,
    VIOLATION_EVERY, Verdict, Violation, WatchGuard,
};
use policy::Realm;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Wake, Waker},
    time::{Duration, SystemTime},
};
use store::Store;

struct House {
    fleet: Fleet,
    store: Store,
    now: SystemTime,
    _directory: tempfile::TempDir,
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
    let realm = Realm::live("000000000000");
    House {
        fleet: Fleet::open(&store, Arc::new(authority), realm, now).unwrap(),
        store,
        now,
        _directory: directory,
    }
}

fn lamp() -> ThingName {
    "lamp-1".parse().unwrap()
}

impl House {
    fn enrol(&self, name: &str, key: DeviceKey<'_>) -> CertificateId {
        let enrolment = Enrolment {
            thing: name.parse().unwrap(),
            policies: Vec::new(),
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            key,
        };
        let enrolled = self.fleet.enrol(&enrolment, self.now).unwrap();
        enrolled.certificate.id
    }

    fn verdict(&self, certificate: Option<CertificateId>) -> Verdict {
        Verdict {
            certificate,
            until: self.now + Duration::from_secs(100),
            by: None,
        }
    }

    /// What policies are told of a certificate's device.
    fn attested(&self, id: &CertificateId) -> Option<bool> {
        self.fleet.standing(id).unwrap().now().posture.attested
    }

    fn violation(&self, second: u64) -> Violation {
        Violation {
            at: self.now + Duration::from_secs(second),
            reason: format!("at {second}"),
            seen: false,
        }
    }
}

#[test]
fn an_attestation_counts_for_its_certificate_and_over_its_key() {
    let house = house();
    let request = KeyPair::generate().unwrap().request("lamp-1").unwrap();
    let request = request.as_bytes();
    let first = house.enrol("lamp-1", DeviceKey::Csr(request));
    let other = house.enrol("lamp-2", DeviceKey::Generate);
    assert_eq!(house.attested(&first), Some(false));
    let given = house.fleet.attest(&lamp(), &house.verdict(None), house.now);
    assert_eq!(given.unwrap().certificates, [first]);
    assert_eq!(house.attested(&first), Some(true));
    assert_eq!(house.attested(&other), Some(false));
    let until = house
        .fleet
        .standing(&first)
        .unwrap()
        .now()
        .posture
        .attested_until;
    let expected = house
        .verdict(None)
        .until
        .duration_since(SystemTime::UNIX_EPOCH);
    assert_eq!(until, Some(expected.unwrap().as_secs().cast_signed()));
    // Over the same key it goes along, and both count while both are good.
    let renew = |id: &CertificateId, key: DeviceKey<'_>| {
        house
            .fleet
            .renew(id, key, house.now)
            .unwrap()
            .certificate
            .id
    };
    let same = renew(&first, DeviceKey::Csr(request));
    assert_eq!(
        [house.attested(&first), house.attested(&same)],
        [Some(true); 2]
    );
    house.fleet.renewed(&same, house.now).unwrap();
    let again = renew(&same, DeviceKey::Csr(request));
    house.fleet.renewed(&again, house.now).unwrap();
    assert_eq!(house.attested(&again), Some(true));
    // A new key has proven nothing.
    let fresh = renew(&again, DeviceKey::Generate);
    assert_eq!(house.attested(&fresh), Some(false));
    assert_eq!(house.attested(&again), Some(true));
    // Neither has the device in its place.
    let replaced = house.fleet.replace(&lamp(), DeviceKey::Generate, house.now);
    assert_eq!(
        house.attested(&replaced.unwrap().certificate.id),
        Some(false)
    );
}

#[test]
fn an_attestation_names_an_active_certificate_of_the_thing() {
    let house = house();
    let first = house.enrol("lamp-1", DeviceKey::Generate);
    let other = house.enrol("lamp-2", DeviceKey::Generate);
    let attest = |certificate| {
        let verdict = house.verdict(certificate);
        house.fleet.attest(&lamp(), &verdict, house.now)
    };
    let foreign = attest(Some(other)).unwrap_err();
    assert!(matches!(foreign, FleetError::NotFound { .. }), "{foreign}");
    let renewed = house.fleet.renew(&first, DeviceKey::Generate, house.now);
    let second = renewed.unwrap().certificate.id;
    let two = attest(None).unwrap_err().to_string();
    assert!(
        two.contains("2 active") && two.contains(&second.to_string()),
        "{two}"
    );
    assert_eq!(attest(Some(second)).unwrap().certificates, [second]);
    assert_eq!(
        [house.attested(&first), house.attested(&second)],
        [Some(false), Some(true)]
    );
    for id in [&first, &second] {
        let (off, reason) = (CertificateStatus::Inactive, RevocationReason::Unspecified);
        house
            .fleet
            .set_certificate_status(id, off, reason, house.now)
            .unwrap();
    }
    let none = attest(None).unwrap_err().to_string();
    assert!(none.contains("no active certificate"), "{none}");
    let inactive = attest(Some(first)).unwrap_err();
    assert!(
        matches!(inactive, FleetError::CertificateState { .. }),
        "{inactive}"
    );
    let nobody: ThingName = "nobody".parse().unwrap();
    let gone = house.fleet.attest(&nobody, &house.verdict(None), house.now);
    assert!(matches!(gone, Err(FleetError::NotFound { .. })));
}

#[test]
fn the_last_violation_is_the_latest() {
    let house = house();
    let id = house.enrol("lamp-1", DeviceKey::Generate);
    let standing = house.fleet.standing(&id).unwrap();
    assert_eq!(standing.now().posture.last_violation, None);
    for (second, last) in [(100, 100), (50, 100), (101, 101)] {
        let kept = house
            .fleet
            .set_violation(&lamp(), &house.violation(second))
            .unwrap();
        assert_eq!(kept, house.violation(last));
        let at = kept.at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let known = standing.now().posture.last_violation;
        assert_eq!(known, Some(at.as_secs().cast_signed()));
    }
}

struct Told(Sender<()>);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

fn watch(standing: &Arc<Standing>) -> (Receiver<()>, WatchGuard) {
    let (sender, told) = channel();
    (told, standing.watch(Waker::from(Arc::new(Told(sender)))))
}

#[test]
fn who_misbehaves_all_the_time_costs_one_row_a_minute() {
    let house = house();
    let id = house.enrol("lamp-1", DeviceKey::Generate);
    let standing = house.fleet.standing(&id).unwrap();
    let (told, _guard) = watch(&standing);
    let note = |second: u64| {
        let at = house.now + Duration::from_secs(second);
        house
            .fleet
            .note_violation(&standing, &format!("at {second}"), at);
    };
    // Many before the first is written, and many after.
    (0..100).for_each(|_| note(0));
    told.recv().unwrap();
    let first = house.store.revision();
    let minute = VIOLATION_EVERY.as_secs();
    (1..minute - 1).for_each(note);
    assert_eq!(
        house
            .fleet
            .health(&lamp())
            .unwrap()
            .violation
            .unwrap()
            .reason,
        "at 0"
    );
    note(minute + 1);
    told.recv().unwrap();
    let last = house.fleet.health(&lamp()).unwrap().violation.unwrap();
    assert_eq!(
        (last.reason, last.seen),
        (format!("at {}", minute + 1), true)
    );
    assert_eq!(house.store.revision(), first + 1);
    // Of a certificate that is no thing's there is no row.
    house.fleet.detach_principal(&lamp(), &id).unwrap();
    told.recv().unwrap();
    note(3 * minute);
    house.fleet.attach_principal(&lamp(), &id, None).unwrap();
    assert_eq!(
        house
            .fleet
            .health(&lamp())
            .unwrap()
            .violation
            .unwrap()
            .reason,
        format!("at {}", minute + 1)
    );
}
