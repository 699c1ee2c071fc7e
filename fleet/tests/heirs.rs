//! What belongs to a device while its certificates follow one another, are deactivated, revoked, detached and deleted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use ca::{Authority, AuthorityConfig, CertificateId, RevocationReason};
use fleet::{
    CertificateStatus, DeviceKey, Enrolment, Fleet, FleetError, Heir, PasswordTerms, Target,
    ThingName,
    mass::{Measure, Selection},
};
use policy::{PolicyName, Realm};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use store::Store;

struct House {
    _directory: tempfile::TempDir,
    fleet: Fleet,
    now: SystemTime,
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
        _directory: directory,
        now,
    }
}

fn lamp() -> ThingName {
    "lamp-1".parse().unwrap()
}

fn default_policy() -> PolicyName {
    "device-default".parse().unwrap()
}

impl House {
    fn enrol(&self) -> CertificateId {
        let enrolment = Enrolment {
            thing: lamp(),
            policies: vec![default_policy()],
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            key: DeviceKey::Generate,
        };
        self.fleet
            .enrol(&enrolment, self.now)
            .unwrap()
            .certificate
            .id
    }

    /// A renewal that the device has not used yet.
    fn renew(&self, id: &CertificateId) -> CertificateId {
        let renewed = self.fleet.renew(id, DeviceKey::Generate, self.now).unwrap();
        renewed.certificate.id
    }

    fn renew_and_use(&self, id: &CertificateId) -> CertificateId {
        let next = self.renew(id);
        self.fleet.renewed(&next, self.now).unwrap();
        next
    }

    fn set(&self, id: &CertificateId, status: CertificateStatus) {
        let reason = RevocationReason::Unspecified;
        let set = self
            .fleet
            .set_certificate_status(id, status, reason, self.now);
        set.unwrap();
    }

    fn revoke(&self, id: &CertificateId, reason: RevocationReason) {
        let revoked = CertificateStatus::Revoked;
        let set = self
            .fleet
            .set_certificate_status(id, revoked, reason, self.now);
        set.unwrap();
    }

    fn status(&self, id: &CertificateId) -> CertificateStatus {
        self.fleet.certificate(id).unwrap().status
    }

    fn heir(&self, id: &CertificateId) -> Heir {
        self.fleet.heir(id, Some(&lamp())).unwrap()
    }

    fn mass(&self, measure: Measure) -> Vec<CertificateId> {
        let query = "thingName:lamp-1".parse().unwrap();
        let selection = Selection::Query(query);
        let done = self
            .fleet
            .change_certificates(&selection, measure, false, None, self.now);
        done.unwrap().changed
    }
}

#[test]
fn what_a_deactivated_device_had_is_kept_for_it() {
    let house = house();
    let id = house.enrol();
    house.set(&id, CertificateStatus::Inactive);
    assert_eq!(house.heir(&id), Heir::Withheld);
    house.set(&id, CertificateStatus::Active);
    assert_eq!(house.heir(&id), Heir::Certificate(id));
    house.revoke(&id, RevocationReason::Unspecified);
    assert_eq!(house.heir(&id), Heir::Nobody);
}

#[test]
fn keeping_house_among_retired_certificates_takes_nothing_from_the_device() {
    for keeping in ["detach", "delete", "revoke", "revoke and delete"] {
        let house = house();
        let old = house.enrol();
        let new = house.renew_and_use(&house.renew_and_use(&old));
        assert_eq!(house.heir(&old), Heir::Certificate(new));
        match keeping {
            "detach" => house.fleet.detach_principal(&lamp(), &old).unwrap(),
            "delete" => house
                .fleet
                .delete_certificate(&old, true, house.now)
                .unwrap(),
            "revoke" => house.revoke(&old, RevocationReason::Unspecified),
            _ => {
                house.revoke(&old, RevocationReason::Superseded);
                house
                    .fleet
                    .delete_certificate(&old, true, house.now)
                    .unwrap();
            }
        }
        let expected = match keeping {
            // Nothing is left that tells it from one that was revoked while it was in use.
            "revoke and delete" => Heir::Nobody,
            _ => Heir::Certificate(new),
        };
        assert_eq!(house.heir(&old), expected, "{keeping}");
        assert_eq!(house.status(&new), CertificateStatus::Active, "{keeping}");
        house.revoke(&new, RevocationReason::Unspecified);
        assert_eq!(house.heir(&old), Heir::Nobody, "{keeping}");
    }
}

#[test]
fn what_was_obtained_with_a_key_goes_with_it() {
    use CertificateStatus::{Active, Inactive, Revoked};
    let house = house();
    let known = house.enrol();
    // Somebody else has the key and renews; nobody has used what he got.
    let obtained = house.renew(&known);
    house.set(&known, Inactive);
    assert_eq!(
        (house.status(&known), house.status(&obtained)),
        (Inactive, Inactive)
    );
    house.set(&known, Active);
    let obtained = house.renew(&known);
    house.revoke(&known, RevocationReason::Unspecified);
    assert_eq!(
        (house.status(&known), house.status(&obtained)),
        (Revoked, Revoked)
    );
}

#[test]
fn a_compromised_key_takes_all_that_followed_and_housekeeping_does_not() {
    let house = house();
    let first = house.enrol();
    let third = house.renew_and_use(&house.renew_and_use(&first));
    let fourth = house.renew(&third);
    house.revoke(&first, RevocationReason::CessationOfOperation);
    assert_eq!(house.status(&third), CertificateStatus::Active);
    let other = self::house();
    let first = other.enrol();
    let second = other.renew_and_use(&first);
    let third = other.renew_and_use(&second);
    let unused = other.renew(&third);
    other.revoke(&first, RevocationReason::KeyCompromise);
    for id in [first, second, third, unused] {
        assert_eq!(other.status(&id), CertificateStatus::Revoked);
    }
    assert_eq!(house.status(&fourth), CertificateStatus::Active);
}

#[test]
fn activating_a_device_leaves_its_retired_certificates_retired() {
    let house = house();
    let first = house.enrol();
    let last = house.renew_and_use(&house.renew_and_use(&first));
    assert_eq!(house.mass(Measure::Deactivate), [last]);
    assert_eq!(house.mass(Measure::Activate), [last]);
    assert_eq!(house.status(&first), CertificateStatus::Inactive);
    assert_eq!(house.status(&last), CertificateStatus::Active);
}

#[test]
fn policies_that_were_detached_do_not_come_back_with_a_replacement() {
    let house = house();
    let all = "all".parse::<PolicyName>().unwrap();
    let document =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    house
        .fleet
        .create_policy(&all, document, house.now)
        .unwrap();
    let first = house.enrol();
    house
        .fleet
        .attach_policy(&all, &Target::Certificate(first))
        .unwrap();
    let second = house.renew_and_use(&first);
    house
        .fleet
        .detach_policy(&all, &Target::Certificate(second))
        .unwrap();
    let policies = |id| {
        let attached = house.fleet.attached_policies(&Target::Certificate(id));
        attached.unwrap()
    };
    assert!(policies(first).contains(&all));
    let later = house.now + Duration::from_secs(1);
    let replaced = house
        .fleet
        .replace(&lamp(), DeviceKey::Generate, later)
        .unwrap();
    assert_eq!(policies(replaced.certificate.id), [default_policy()]);
    // Where none is active, those of the newest.
    let newest = replaced.certificate.id;
    house
        .fleet
        .revoke_device(&lamp(), RevocationReason::Unspecified, house.now)
        .unwrap();
    let again = house
        .fleet
        .replace(&lamp(), DeviceKey::Generate, house.now)
        .unwrap();
    assert_eq!(policies(again.certificate.id), policies(newest));
}

#[test]
fn who_renews_for_the_sake_of_it_is_refused_and_can_still_be_revoked() {
    let mut house = house();
    let first = house.enrol();
    let mut made = 0;
    let refused = loop {
        match house.fleet.renew(&first, DeviceKey::Generate, house.now) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        assert!(made < 100);
    };
    assert!(refused.to_string().contains("lamp-1"), "{refused}");
    assert!(matches!(refused, FleetError::Limit { .. }), "{refused}");
    // Nor may it when its certificate nears its end, which the successors that nobody uses leave as it is.
    house.now = house.fleet.certificate(&first).unwrap().not_after - Duration::from_secs(60);
    for _ in 0..30 {
        house.renew(&first);
    }
    let late = house.fleet.renew(&first, DeviceKey::Generate, house.now);
    assert!(matches!(late, Err(FleetError::Limit { .. })), "{late:?}");
    // Day after day: what is out of use makes room, what is in use stays.
    let mut current = first;
    for _ in 0..10 {
        house.now += Duration::from_secs(24 * 60 * 60);
        for _ in 0..20 {
            house.renew(&current);
        }
        current = house.renew_and_use(&current);
        let held = house.fleet.principals(&lamp(), None, 250).unwrap().items;
        assert!(
            held.len() <= 61 && held.contains(&current),
            "{}",
            held.len()
        );
        assert_eq!(house.heir(&first), Heir::Certificate(current));
    }
    let now = house.now;
    let revoked = house
        .fleet
        .revoke_device(&lamp(), RevocationReason::Unspecified, now);
    assert!(revoked.unwrap().contains(&current));
    assert_eq!(house.status(&current), CertificateStatus::Revoked);
    house.fleet.decommission(&lamp(), now).unwrap();
}

#[test]
fn a_password_ends_with_the_device_it_was_for() {
    let house = house();
    let terms = PasswordTerms {
        thing: lamp(),
        policies: Vec::new(),
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        life: Duration::from_secs(600),
    };
    let make = || {
        let password = house.fleet.make_enrolment_password(&terms, house.now);
        password.unwrap().to_string()
    };
    let refused = |password: &str| {
        let tried =
            house
                .fleet
                .enrol_with_password(&lamp(), password, DeviceKey::Generate, house.now);
        matches!(tried, Err(FleetError::Password))
    };
    let id = house.enrol();
    let password = make();
    house.revoke(&id, RevocationReason::Unspecified);
    assert!(refused(&password), "revoked by id");
    let password = make();
    // There is no certificate left to revoke, and a password to forget.
    let revoked = house
        .fleet
        .revoke_device(&lamp(), RevocationReason::Unspecified, house.now);
    assert_eq!(revoked.unwrap(), []);
    assert!(refused(&password), "revoked");
    let password = make();
    house.fleet.decommission(&lamp(), house.now).unwrap();
    assert!(refused(&password), "deleted");
}
