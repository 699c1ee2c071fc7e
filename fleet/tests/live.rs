//! Live standings: whatever changes, each says what the rows say when the operation returns, and nobody is woken for
//! nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use ca::{Authority, AuthorityConfig, CertificateId};
use fleet::{
    CertificateStatus, DeviceKey, Enrolment, Fleet, GroupChange, GroupName, NamedNetwork, Standing,
    Target, ThingName, WatchGuard,
};
use policy::{PolicyName, Realm};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::SystemTime,
};
use store::Store;

const ACCOUNT: &str = "000000000000";

struct House {
    fleet: Fleet,
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
    let fleet = Fleet::open(&store, Arc::new(authority), Realm::live(ACCOUNT), now).unwrap();
    House {
        fleet,
        _directory: directory,
    }
}

fn document(topic: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:*:{ACCOUNT}:topic/{topic}"}}]}}"#
    )
}

impl House {
    fn device(&self, name: &str, policies: &[&str], groups: &[&str]) -> CertificateId {
        let enrolment = Enrolment {
            thing: name.parse().unwrap(),
            policies: policies.iter().map(|name| name.parse().unwrap()).collect(),
            groups: groups.iter().map(|name| name.parse().unwrap()).collect(),
            attributes: BTreeMap::new(),
            key: DeviceKey::Generate,
        };
        let enrolled = self.fleet.enrol(&enrolment, SystemTime::now()).unwrap();
        enrolled.certificate.id
    }

    fn group(&self, name: &str, parent: Option<&str>) -> GroupName {
        let group: GroupName = name.parse().unwrap();
        let parent = parent.map(|name| name.parse().unwrap());
        let change = GroupChange::default();
        let now = SystemTime::now();
        self.fleet
            .create_group(&group, parent.as_ref(), &change, name.into(), now)
            .unwrap();
        group
    }

    fn policy(&self, name: &str) -> PolicyName {
        let policy: PolicyName = name.parse().unwrap();
        let now = SystemTime::now();
        self.fleet
            .create_policy(&policy, &document(name), now)
            .unwrap();
        policy
    }

    /// What a standing must say, by the registry's own answers.
    fn expected(&self, id: &CertificateId) -> Expected {
        let thing = self.fleet.thing_of(id).unwrap();
        let mut groups = BTreeSet::new();
        for group in thing
            .iter()
            .flat_map(|thing| self.fleet.groups_of(thing).unwrap())
        {
            groups.extend(self.fleet.groups_above(&group).unwrap());
            groups.insert(group);
        }
        let targets = groups.iter().cloned().map(Target::Group);
        let targets = targets.chain([Target::Certificate(*id)]);
        let mut policies = BTreeMap::new();
        for name in targets.flat_map(|target| self.fleet.attached_policies(&target).unwrap()) {
            let record = self.fleet.policy(&name).unwrap();
            policies.insert(name, record.default().unwrap().document.clone());
        }
        Expected {
            status: Some(self.fleet.certificate(id).unwrap().status),
            quarantined: thing
                .as_ref()
                .map(|thing| self.fleet.health(thing).unwrap().quarantine.is_some()),
            thing,
            groups,
            policies,
        }
    }

    fn check(&self, standing: &Standing) {
        let now = standing.now();
        let policies = now.policies.iter();
        let said = Expected {
            status: now.status,
            thing: now.thing.clone(),
            quarantined: now.thing.as_ref().and(now.posture.quarantined),
            groups: now.groups.iter().cloned().collect(),
            policies: policies
                .map(|named| (named.name.clone(), named.policy.text().to_owned()))
                .collect(),
        };
        assert_eq!(said, self.expected(standing.id()));
    }
}

#[derive(Debug, PartialEq)]
struct Expected {
    status: Option<CertificateStatus>,
    thing: Option<ThingName>,
    quarantined: Option<bool>,
    groups: BTreeSet<GroupName>,
    policies: BTreeMap<PolicyName, String>,
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Watched {
    standing: Arc<Standing>,
    woken: Arc<Count>,
    _guard: WatchGuard,
}

impl Watched {
    fn new(house: &House, id: &CertificateId) -> Self {
        let standing = house.fleet.standing(id).unwrap();
        let woken = Arc::new(Count::default());
        Watched {
            _guard: standing.watch(Waker::from(Arc::clone(&woken))),
            standing,
            woken,
        }
    }

    /// How often it was woken since the last look.
    fn woken(&self) -> usize {
        self.woken.0.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn a_change_wakes_whom_it_touches_and_nobody_else() {
    let house = house();
    let fleet = &house.fleet;
    let region = house.group("region", None);
    house.group("site", Some("region"));
    house.group("elsewhere", None);
    let (own, other) = (house.policy("own"), house.policy("other"));
    let touched = Watched::new(&house, &house.device("a", &["own"], &["site"]));
    let apart = Watched::new(&house, &house.device("b", &["other"], &["elsewhere"]));
    let now = SystemTime::now();
    let step = |what: &str, expected: usize, change: &dyn Fn()| {
        change();
        assert_eq!((touched.woken(), apart.woken()), (expected, 0), "{what}");
        house.check(&touched.standing);
        house.check(&apart.standing);
    };
    step("a default version", 1, &|| {
        fleet.update_policy(&own, &document("x"), now).unwrap();
    });
    step("a version that does not decide", 0, &|| {
        fleet
            .create_policy_version(&own, &document("y"), false, now)
            .unwrap();
    });
    step("another of them", 1, &|| {
        fleet.set_default_version(&own, 3).unwrap()
    });
    step("the same again", 0, &|| {
        fleet.set_default_version(&own, 3).unwrap()
    });
    step("attached to a group above", 1, &|| {
        fleet
            .attach_policy(&other, &Target::Group(region.clone()))
            .unwrap();
    });
    step("what is attached already", 0, &|| {
        fleet
            .attach_policy(&other, &Target::Group(region.clone()))
            .unwrap();
    });
    step("detached from it", 1, &|| {
        fleet
            .detach_policy(&other, &Target::Group(region.clone()))
            .unwrap();
    });
    step("what a group says of itself", 0, &|| {
        let change = GroupChange {
            description: Some("north".into()),
            ..GroupChange::default()
        };
        fleet.update_group(&region, &change, None).unwrap();
    });
    step("a quarantine", 1, &|| {
        let since = SystemTime::now();
        let change = |health: &mut fleet::Health| {
            health.quarantine = Some(fleet::Quarantine {
                since,
                reason: None,
            });
        };
        fleet.set_health(&"a".parse().unwrap(), change).unwrap();
    });
    step("a group left", 1, &|| {
        fleet
            .remove_from_group(&"site".parse().unwrap(), &"a".parse().unwrap())
            .unwrap();
    });
    step("a certificate switched off", 1, &|| {
        let inactive = CertificateStatus::Inactive;
        fleet
            .set_certificate_status(
                touched.standing.id(),
                inactive,
                ca::RevocationReason::Unspecified,
                now,
            )
            .unwrap();
    });
    // A name for addresses concerns all.
    let network = NamedNetwork {
        name: "plant".into(),
        ranges: vec!["10.0.0.0/8".into()],
    };
    fleet.set_network(&network).unwrap();
    assert_eq!((touched.woken(), apart.woken()), (1, 1));
}

#[test]
fn those_with_the_same_policies_share_them() {
    let house = house();
    house.group("g", None);
    let [one, other, alone] = [("a", "g"), ("b", "g"), ("c", "")].map(|(name, group)| {
        let groups: Vec<&str> = Some(group).into_iter().filter(|g| !g.is_empty()).collect();
        let id = house.device(name, &["device-default"], &groups);
        house.fleet.standing(&id).unwrap()
    });
    let policies = |standing: &Arc<Standing>| Arc::clone(&standing.now().policies);
    assert!(Arc::ptr_eq(&policies(&one), &policies(&other)));
    assert!(!Arc::ptr_eq(&policies(&one), &policies(&alone)));
    let now = SystemTime::now();
    let default = "device-default".parse().unwrap();
    house
        .fleet
        .update_policy(&default, &document("x"), now)
        .unwrap();
    assert!(Arc::ptr_eq(&policies(&one), &policies(&other)));
    // The compiled document is one for all.
    let compiled = |standing: &Arc<Standing>| Arc::clone(&policies(standing)[0].policy);
    assert!(Arc::ptr_eq(&compiled(&one), &compiled(&alone)));
    assert_eq!(compiled(&one).text(), document("x"));
}

/// Changes of all kinds in random order, while standings come and go on other threads: after each, everybody's standing
/// says what the rows say.
#[test]
fn whatever_changes_standings_follow() {
    const DEVICES: usize = 6;
    let house = house();
    let fleet = &house.fleet;
    for (name, parent) in [
        ("top", None),
        ("middle", Some("top")),
        ("low", Some("middle")),
        ("side", None),
    ] {
        house.group(name, parent);
    }
    let policies: Vec<PolicyName> = (0..4).map(|n| house.policy(&format!("p{n}"))).collect();
    let groups: Vec<GroupName> = ["top", "middle", "low", "side"]
        .map(|g| g.parse().unwrap())
        .into();
    let ids: Vec<CertificateId> = (0..DEVICES)
        .map(|n| house.device(&format!("d{n}"), &["p0"], &["low"]))
        .collect();
    let held: Vec<Arc<Standing>> = ids
        .iter()
        .take(DEVICES / 2)
        .map(|id| fleet.standing(id).unwrap())
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    for id in &ids {
                        drop(fleet.standing(id).unwrap());
                    }
                }
            });
        }
        let mut dice = 7_u64;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) as usize % sides
        };
        let now = SystemTime::now();
        for round in 0..200 {
            let device = roll(DEVICES);
            let thing: ThingName = format!("d{device}").parse().unwrap();
            let policy = &policies[roll(policies.len())];
            let group = &groups[roll(groups.len())];
            // Refused where it makes no sense (a thing in two groups of one tree): then nothing changes.
            match roll(8) {
                0 => drop(fleet.update_policy(policy, &document(&format!("r{round}")), now)),
                1 => drop(fleet.attach_policy(policy, &Target::Group(group.clone()))),
                2 => drop(fleet.detach_policy(policy, &Target::Group(group.clone()))),
                3 => drop(fleet.attach_policy(policy, &Target::Certificate(ids[device]))),
                4 => drop(fleet.detach_policy(policy, &Target::Certificate(ids[device]))),
                5 => drop(fleet.remove_from_group(group, &thing)),
                6 => drop(fleet.add_to_group(group, &thing)),
                _ => {
                    let status = [CertificateStatus::Active, CertificateStatus::Inactive][roll(2)];
                    let reason = ca::RevocationReason::Unspecified;
                    drop(fleet.set_certificate_status(&ids[device], status, reason, now));
                }
            }
            for standing in &held {
                house.check(standing);
            }
            // Nobody holds these: they are looked up as they were kept, or read again.
            for id in &ids {
                house.check(&fleet.standing(id).unwrap());
            }
        }
        over.store(true, Ordering::Release);
    });
}

/// A device that was away for a moment is not read from the disk at its return, and what was kept of it is forgotten
/// where it changes.
#[test]
fn who_was_here_a_moment_ago_is_known_until_something_of_it_changes() {
    let house = house();
    let fleet = &house.fleet;
    let policy = house.policy("p");
    let (one, other) = (
        house.device("one", &["p"], &[]),
        house.device("other", &[], &[]),
    );
    let first = Arc::downgrade(&fleet.standing(&one).unwrap());
    let bystander = Arc::downgrade(&fleet.standing(&other).unwrap());
    let again = fleet.standing(&one).unwrap();
    assert!(std::ptr::eq(first.as_ptr(), Arc::as_ptr(&again)));
    // Held: it follows.
    let generation = again.generation();
    let now = SystemTime::now();
    fleet
        .update_policy(&policy, &document("held"), now)
        .unwrap();
    assert!(again.generation() > generation);
    house.check(&again);
    drop(again);
    // Kept only: the next who asks reads it.
    fleet
        .update_policy(&policy, &document("kept"), now)
        .unwrap();
    let read = fleet.standing(&one).unwrap();
    assert!(!std::ptr::eq(first.as_ptr(), Arc::as_ptr(&read)));
    house.check(&read);
    // Let go by its connection it is kept again, and what is not touched stays.
    let guard = read.watch(Waker::noop().clone());
    let kept = Arc::downgrade(&read);
    drop(read);
    drop(guard);
    let revoked = CertificateStatus::Revoked;
    let reason = ca::RevocationReason::Unspecified;
    fleet
        .set_certificate_status(&one, revoked, reason, now)
        .unwrap();
    let last = fleet.standing(&one).unwrap();
    assert!(!std::ptr::eq(kept.as_ptr(), Arc::as_ptr(&last)));
    assert_eq!(last.now().status, Some(revoked));
    let same = fleet.standing(&other).unwrap();
    assert!(std::ptr::eq(bystander.as_ptr(), Arc::as_ptr(&same)));
    // One that nobody knows is not kept.
    let nobody = CertificateId::of(b"nobody");
    let unknown = Arc::downgrade(&fleet.standing(&nobody).unwrap());
    assert!(unknown.upgrade().is_none());
}
