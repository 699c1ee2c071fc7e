//! An authority that was made elsewhere and is certified anew over its name and key: its devices go on, whichever of its
//! certificates they came by, and are out when all of them are.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_docs_in_private_items
)]

use ca::{Authority, AuthorityConfig, CertificateId};
use fleet::{
    DeviceKey, Fleet, FleetError, Heir, Standing, ThingName,
    authorities::{
        Admission, AuthorityChange, AuthorityMode, AuthorityStatus, NewAuthority, NotAdmitted,
    },
    mass::{Measure, Selection},
};
use policy::Realm;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use store::{Expect, Store, StoreError, Write};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct House {
    directory: tempfile::TempDir,
    fleet: Fleet,
    now: SystemTime,
}

fn open_store(house: &tempfile::TempDir) -> Store {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // A fleet that was dropped lets go of it once its watching thread has looked up.
        match Store::open(&house.path().join("store")) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn open(directory: &tempfile::TempDir, now: SystemTime) -> Fleet {
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    let realm = Realm::live("000000000000");
    Fleet::open(&open_store(directory), Arc::new(authority), realm, now).unwrap()
}

fn house() -> House {
    let (directory, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let fleet = open(&directory, now);
    House {
        directory,
        fleet,
        now,
    }
}

fn params(name: &str, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (from.into(), to.into());
    params
}

/// A name and a key, and a certificate over both.
struct Factory {
    name: &'static str,
    key: KeyPair,
    from: SystemTime,
}

impl Factory {
    fn new(name: &'static str, now: SystemTime) -> Self {
        Factory {
            name,
            key: KeyPair::generate().unwrap(),
            from: now - DAY,
        }
    }

    fn certified(&self, to: SystemTime) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = params(self.name, self.from, to);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::from_pem(&self.key.serialize_pem()).unwrap();
        CertifiedIssuer::self_signed(params, key).unwrap()
    }
}

impl House {
    fn register(&self, certificate: &str) -> CertificateId {
        let new = NewAuthority {
            certificate,
            verification: None,
            mode: AuthorityMode::SniOnly,
            active: true,
            auto_registration: false,
            registration: None,
        };
        self.fleet.register_authority(&new, self.now).unwrap().id
    }

    fn set(&self, authority: &CertificateId, status: AuthorityStatus) {
        let change = AuthorityChange {
            status: Some(status),
            ..AuthorityChange::default()
        };
        self.fleet
            .update_authority(authority, &change, self.now)
            .unwrap();
    }

    /// A device of 200 days that the authority has signed, with its certificate as DER.
    fn device(
        &self,
        name: &str,
        by: &CertifiedIssuer<'static, KeyPair>,
    ) -> (Arc<Standing>, Vec<u8>) {
        let mut params = params(name, self.now - DAY, self.now + 200 * DAY);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), by).unwrap();
        let thing: ThingName = name.parse().unwrap();
        let record = self
            .fleet
            .import_device(&thing, &leaf.pem(), &[], &[], &BTreeMap::new(), self.now)
            .unwrap();
        let standing = self.fleet.standing(&record.id).unwrap();
        (standing, leaf.der().to_vec())
    }

    fn admits(&self, leaf: &[u8], days: u32) -> Admission {
        self.fleet.admit(leaf, false, self.now + days * DAY)
    }
}

fn under(authority: &CertifiedIssuer<'static, KeyPair>) -> Admission {
    Admission::Under(authority.der().to_vec())
}

const OUT: Admission = Admission::Refused(NotAdmitted::AuthorityInactive);

#[test]
fn a_renewal_over_name_and_key_carries_on_who_came_by_the_old_certificate() {
    let house = house();
    let factory = Factory::new("factory", house.now);
    let (old, renewed) = (
        factory.certified(house.now + 30 * DAY),
        factory.certified(house.now + 400 * DAY),
    );
    let old_id = house.register(&old.pem());
    let (standing, leaf) = house.device("lamp", &old);
    let active = |days: u32| standing.now().is_active(house.now + days * DAY);
    assert!(active(29) && !active(60), "its authority ends");
    assert_eq!(house.admits(&leaf, 29), under(&old));
    assert_eq!(house.admits(&leaf, 60), OUT);
    // What it obtains here rests on the same.
    let own = house
        .fleet
        .renew(standing.id(), DeviceKey::Generate, house.now)
        .unwrap()
        .certificate
        .id;
    let own = house.fleet.standing(&own).unwrap();
    assert!(!own.now().is_active(house.now + 60 * DAY));

    // Whoever is there goes on, without another handshake.
    let (before, own_before) = (standing.generation(), own.generation());
    let renewed_id = house.register(&renewed.pem());
    assert!(standing.generation() > before && own.generation() > own_before);
    assert!(active(60) && own.now().is_active(house.now + 60 * DAY));
    assert!(!active(201), "not beyond its own end");
    assert_eq!(house.admits(&leaf, 29), under(&old));
    assert_eq!(house.admits(&leaf, 60), under(&renewed));
    assert_eq!(house.admits(&leaf, 401), OUT);
    // Both answer for it, to whom asks and to whom revokes.
    for id in [&old_id, &renewed_id] {
        let page = house.fleet.certificates_of_authority(id, None, 10).unwrap();
        assert_eq!(page.items.len(), 2, "the device's and what it renewed to");
        let first = house.fleet.certificates_of_authority(id, None, 1).unwrap();
        let rest = house
            .fleet
            .certificates_of_authority(id, first.next.as_deref(), 1)
            .unwrap();
        assert_eq!(
            [&first.items[0], &rest.items[0]],
            [&page.items[0], &page.items[1]]
        );
        assert_eq!(rest.next, None);
        let all = Selection::Authority(*id);
        let revoked = house
            .fleet
            .change_certificates(&all, Measure::Deactivate, true, None, house.now)
            .unwrap();
        assert_eq!(revoked.changed.len(), 2);
    }

    // The old certificate is put away, and forgotten, over a restart too.
    house.set(&old_id, AuthorityStatus::Inactive);
    assert!(active(0) && active(60));
    house.fleet.delete_authority(&old_id).unwrap();
    assert!(active(0) && active(60) && own.now().is_active(house.now));
    let id = *standing.id();
    let House {
        directory,
        fleet,
        now,
    } = house;
    drop((standing, own, fleet));
    let fleet = open(&directory, now);
    assert_eq!(fleet.admit(&leaf, false, now), under(&renewed));
    let standing = fleet.standing(&id).unwrap();
    assert!(standing.now().is_active(now + 60 * DAY));
    assert_eq!(fleet.heir(&id, None).unwrap(), Heir::Certificate(id));
    // Where the last one is switched off, who came by the forgotten one is out as well.
    let off = AuthorityChange {
        status: Some(AuthorityStatus::Inactive),
        ..AuthorityChange::default()
    };
    fleet.update_authority(&renewed_id, &off, now).unwrap();
    assert!(!standing.now().is_active(now));
    assert_eq!(fleet.admit(&leaf, false, now), OUT);
    assert_eq!(fleet.heir(&id, None).unwrap(), Heir::Withheld);
}

#[test]
fn nobody_vouches_who_is_off_or_has_another_key() {
    let house = house();
    let factory = Factory::new("factory", house.now);
    let to = house.now + 100 * DAY;
    let (first, second) = (factory.certified(to), factory.certified(to + DAY));
    let (first_id, second_id) = (house.register(&first.pem()), house.register(&second.pem()));
    let (standing, leaf) = house.device("lamp", &first);
    let good = || {
        let admitted = house.admits(&leaf, 0) != OUT;
        assert_eq!(standing.now().is_active(house.now), admitted);
        admitted
    };
    assert!(good());
    house.set(&first_id, AuthorityStatus::Inactive);
    assert_eq!(house.fleet.vouching_beside(&first_id).unwrap(), [second_id]);
    assert!(good());
    house.set(&second_id, AuthorityStatus::Inactive);
    assert!(house.fleet.vouching_beside(&first_id).unwrap().is_empty());
    assert!(!good());
    // Somebody else of that name is somebody else.
    let impostor = Factory::new("factory", house.now).certified(to);
    house.register(&impostor.pem());
    // Another name over the key as well: what that one signs names it.
    let mut other = Factory::new("other", house.now);
    other.key = KeyPair::from_pem(&factory.key.serialize_pem()).unwrap();
    house.register(&other.certified(to).pem());
    assert!(!good());
    house.set(&second_id, AuthorityStatus::Active);
    assert!(good());
    house.set(&second_id, AuthorityStatus::Inactive);
    assert!(!good());
    house.set(&first_id, AuthorityStatus::Active);
    assert!(good());
}

#[test]
fn a_renewal_that_comes_after_the_old_certificate_was_forgotten_carries_its_devices_on() {
    let house = house();
    let factory = Factory::new("factory", house.now);
    let old = factory.certified(house.now + 30 * DAY);
    let old_id = house.register(&old.pem());
    let (standing, leaf) = house.device("lamp", &old);
    house.set(&old_id, AuthorityStatus::Inactive);
    house.fleet.delete_authority(&old_id).unwrap();
    assert!(!standing.now().is_active(house.now));
    assert_eq!(house.admits(&leaf, 0), OUT);
    let renewed = factory.certified(house.now + 400 * DAY);
    house.register(&renewed.pem());
    assert!(standing.now().is_active(house.now));
    assert_eq!(house.admits(&leaf, 0), under(&renewed));
    assert!(matches!(
        house.fleet.registered_authority(&old_id),
        Err(FleetError::NotFound { .. })
    ));
}

#[test]
fn a_registry_of_before_authorities_were_known_by_their_keys_is_indexed() {
    let house = house();
    let factory = Factory::new("factory", house.now);
    let (old, renewed) = (
        factory.certified(house.now + 30 * DAY),
        factory.certified(house.now + 400 * DAY),
    );
    house.register(&old.pem());
    let (standing, leaf) = house.device("lamp", &old);
    house.register(&renewed.pem());
    drop(standing);
    let House {
        directory,
        fleet,
        now,
    } = house;
    drop(fleet);
    {
        // As a release of before left it.
        let store = open_store(&directory);
        let table = store.table("registry").unwrap();
        let mut rows = Vec::new();
        for prefix in ["casigner/", "cakin/"] {
            let found = table.scan(prefix, None, 100).unwrap();
            assert_eq!(found.len(), 2);
            rows.extend(
                found
                    .into_iter()
                    .map(|(key, _)| Write::delete(key, Expect::Any)),
            );
        }
        table.batch(&rows).unwrap();
        store.stop_watches();
    }
    let fleet = open(&directory, now);
    assert_eq!(fleet.admit(&leaf, false, now + 60 * DAY), under(&renewed));
}
