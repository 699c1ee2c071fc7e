//! The registry through its public face: durable, atomic, and felt by live standings before an operation returns.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use ca::{Authority, AuthorityConfig, CertificateId, CertificateState, CrlShard, RevocationReason};
use fleet::{
    CertificateStatus, DeviceKey, Enrolled, Enrolment, Fleet, FleetError, GroupChange, GroupName,
    Heir, Kind, ListName, PasswordTerms, RevocationFaces, Target, ThingName,
};
use policy::{Action, Decision, Grant, PolicyName, Realm};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::{Duration, Instant, SystemTime},
};
use store::{Store, StoreError};

const ACCOUNT: &str = "000000000000";

struct House {
    directory: tempfile::TempDir,
    fleet: Fleet,
}

/// A fleet that was dropped lets go of its store once its watching thread has looked up.
fn open_store(directory: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Store::open(directory) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn open(directory: &tempfile::TempDir) -> Fleet {
    let store = open_store(&directory.path().join("store"));
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    Fleet::open(&store, Arc::new(authority), Realm::live(ACCOUNT), now).unwrap()
}

fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let fleet = open(&directory);
    House { directory, fleet }
}

fn thing(name: &str) -> ThingName {
    name.parse().unwrap()
}

fn named(name: &str) -> PolicyName {
    name.parse().unwrap()
}

fn enrolment(name: &str) -> Enrolment<'static> {
    Enrolment {
        thing: thing(name),
        policies: vec![named("device-default")],
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        key: DeviceKey::Generate,
    }
}

impl House {
    fn enrol(&self, name: &str) -> Enrolled {
        self.fleet
            .enrol(&enrolment(name), SystemTime::now())
            .unwrap()
    }

    fn group(&self, name: &str) -> GroupName {
        let group: GroupName = name.parse().unwrap();
        self.fleet
            .create_group(
                &group,
                None,
                &GroupChange::default(),
                "id".into(),
                SystemTime::now(),
            )
            .unwrap();
        group
    }

    fn decide(&self, id: &CertificateId, client: &str, action: Action, on: &str) -> Decision {
        let now = self.fleet.standing(id).unwrap().now();
        Grant::new(
            Arc::clone(self.fleet.realm()),
            Arc::clone(&now.policies),
            now.context(client, SystemTime::now()),
        )
        .decide(action, on)
    }
}

fn allow_all() -> String {
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#
        .to_owned()
}

struct Count(AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

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
    house.fleet.attach_principal(&thing("lamp-1"), &id).unwrap();
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
    conflict(house.fleet.delete_group(&group, None));
    assert!(matches!(
        house.fleet.delete_certificate(&id, true),
        Err(FleetError::CertificateState { .. })
    ));
    let unspecified = RevocationReason::Unspecified;
    house
        .fleet
        .set_certificate_status(&id, CertificateStatus::Inactive, unspecified, now)
        .unwrap();
    conflict(house.fleet.delete_certificate(&id, false));
    house.fleet.delete_certificate(&id, true).unwrap();
    house.fleet.delete_thing(&thing("lamp-1"), None).unwrap();
    house
        .fleet
        .detach_policy(&named("wide"), &Target::Group(group.clone()))
        .unwrap();
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
        .attach_principal(&thing("lamp-2"), &id)
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
