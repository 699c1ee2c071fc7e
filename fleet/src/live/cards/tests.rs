//! Whatever is done, and wherever it is cut short: a packed card that is used says what the rows say.

use super::*;
use crate::{
    CertificateStatus, DeviceKey, Enrolment, Fleet, GroupChange, GroupName, Health, Quarantine,
    Target, ThingChange, live::packing::pack,
};
use ca::{Authority, AuthorityConfig, RevocationReason};
use policy::{PolicyName, Realm};
use proptest::prelude::*;
use std::{
    cell::{Cell, RefCell},
    path::Path,
    sync::atomic::AtomicBool,
    time::{Duration, Instant, SystemTime},
};

const DEVICES: usize = 6;
/// Longest wait for another thread; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    fleet: Fleet,
    store: Store,
    directory: tempfile::TempDir,
}

fn open(directory: tempfile::TempDir) -> House {
    let store = Store::open(&directory.path().join("store")).unwrap();
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    let realm = Realm::live("000000000000");
    let fleet = Fleet::open(&store, Arc::new(authority), realm, now).unwrap();
    House {
        fleet,
        store,
        directory,
    }
}

fn house() -> House {
    let house = open(tempfile::tempdir().unwrap());
    let now = SystemTime::now();
    for name in ["hall", "yard"] {
        let group: GroupName = name.parse().unwrap();
        let change = GroupChange::default();
        house
            .fleet
            .create_group(&group, None, &change, name.into(), now)
            .unwrap();
    }
    house
}

/// As at one moment, though threads of the registry's own may write.
fn copy(from: &Path, to: &Path) {
    until(|| {
        copy_files(from, to);
        // None of them has changed since the last of them was copied.
        let is_same = same(from, to);
        if !is_same {
            std::fs::remove_dir_all(to).unwrap();
        }
        is_same
    });
}

fn same(from: &Path, to: &Path) -> bool {
    let names = |of: &Path| {
        let entries = std::fs::read_dir(of).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    names(from) == names(to)
        && names(from).into_iter().all(|name| {
            let (from, to) = (from.join(&name), to.join(&name));
            if to.is_dir() {
                same(&from, &to)
            } else {
                std::fs::read(from).ok() == std::fs::read(to).ok()
            }
        })
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.unwrap(), to);
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &to);
        } else {
            // One that is gone by now is missed by whoever compares.
            let _ = std::fs::copy(entry.path(), to);
        }
    }
}

/// One thing that operators and devices do, to one of the devices.
#[derive(Debug, Clone, Copy)]
enum Act {
    Enrol,
    Attribute(u8),
    Join,
    Leave,
    Quarantine(bool),
    Attach,
    Detach,
    Deactivate,
    Activate,
    Revoke,
    Unbind,
    Replace,
    Delete,
}

#[derive(Debug, Clone)]
enum Step {
    Do(usize, Act),
    /// Pack, with something done before its nth page or step, and given up before another.
    Pack {
        at: u8,
        meanwhile: (usize, Act),
        gone: Option<u8>,
    },
    /// The process is killed.
    Kill,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Enrol),
        2 => (0..3_u8).prop_map(Act::Attribute),
        1 => Just(Act::Join),
        1 => Just(Act::Leave),
        1 => any::<bool>().prop_map(Act::Quarantine),
        1 => Just(Act::Attach),
        1 => Just(Act::Detach),
        1 => Just(Act::Deactivate),
        1 => Just(Act::Activate),
        1 => Just(Act::Revoke),
        1 => Just(Act::Unbind),
        1 => Just(Act::Replace),
        1 => Just(Act::Delete),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let packed = (
        0..6_u8,
        (0..DEVICES, acts()),
        prop::option::weighted(0.3, 1..6_u8),
    );
    prop_oneof![
        8 => (0..DEVICES, acts()).prop_map(|(device, act)| Step::Do(device, act)),
        3 => packed.prop_map(|(at, meanwhile, gone)| Step::Pack { at, meanwhile, gone }),
        1 => Just(Step::Kill),
    ]
}

impl House {
    fn name(device: usize) -> ThingName {
        format!("lamp-{device}").parse().unwrap()
    }

    fn enrol(&self, device: usize) -> Result<CertificateId, FleetError> {
        let enrolment = Enrolment {
            thing: Self::name(device),
            policies: vec!["device-default".parse().unwrap()],
            groups: vec!["hall".parse().unwrap()],
            attributes: [("site".to_owned(), "north".to_owned())].into(),
            key: DeviceKey::Generate,
        };
        let enrolled = self.fleet.enrol(&enrolment, SystemTime::now())?;
        Ok(enrolled.certificate.id)
    }

    /// Many of them are refused, by what was done before.
    fn act(&self, device: usize, act: Act) {
        let (fleet, thing, now) = (&self.fleet, Self::name(device), SystemTime::now());
        let held: Vec<CertificateId> = fleet
            .principals(&thing, None, 10)
            .map(|page| page.items)
            .unwrap_or_default();
        let yard: GroupName = "yard".parse().unwrap();
        let policy: PolicyName = "device-default".parse().unwrap();
        let set = |status| {
            for id in &held {
                let reason = RevocationReason::Unspecified;
                let _ = fleet.set_certificate_status(id, status, reason, now);
            }
        };
        match act {
            Act::Enrol => drop(self.enrol(device)),
            Act::Attribute(value) => {
                let change = ThingChange {
                    attributes: Some([("site".to_owned(), format!("s{value}"))].into()),
                    merge: true,
                    type_name: None,
                };
                let _ = fleet.update_thing(&thing, &change, None);
            }
            Act::Join => drop(fleet.add_to_group(&yard, &thing)),
            Act::Leave => drop(fleet.remove_from_group(&yard, &thing)),
            Act::Quarantine(on) => {
                let quarantine = on.then_some(Quarantine {
                    since: now,
                    reason: None,
                });
                let _ = fleet.set_health(&thing, |health: &mut Health| {
                    health.quarantine = quarantine.clone();
                });
            }
            Act::Attach | Act::Detach => {
                for id in &held {
                    let target = Target::Certificate(*id);
                    let _ = match act {
                        Act::Attach => fleet.attach_policy(&policy, &target),
                        _ => fleet.detach_policy(&policy, &target),
                    };
                }
            }
            Act::Deactivate => set(CertificateStatus::Inactive),
            Act::Activate => set(CertificateStatus::Active),
            Act::Revoke => set(CertificateStatus::Revoked),
            Act::Unbind => held
                .iter()
                .for_each(|id| drop(fleet.detach_principal(&thing, id))),
            Act::Replace => drop(fleet.replace(&thing, DeviceKey::Generate, now)),
            Act::Delete => drop(fleet.decommission(&thing, now)),
        }
    }

    /// How many cards are used; each says what the rows say.
    fn check(&self) -> usize {
        let (inner, mut used) = (&self.fleet.inner, 0);
        for record in self.fleet.certificates(None, 250).unwrap().items {
            let card = inner.live.cards().get(&record.id);
            used += usize::from(card.is_some());
            if card.is_some() {
                let rows = Card::read(&inner.table, &record.id, None).unwrap();
                assert_eq!(card, rows, "{}", record.id);
            }
        }
        used
    }

    fn packs(&self) -> usize {
        let directory = self.directory.path().join("store/packs/cards");
        std::fs::read_dir(directory).map_or(0, Iterator::count)
    }

    fn marks(&self) -> usize {
        let table = &self.fleet.inner.table;
        table.scan(keys::OUTDATED, None, 10_000).unwrap().len()
    }

    fn kill(self) -> House {
        let copied = tempfile::tempdir().unwrap();
        copy(self.directory.path(), copied.path());
        open(copied)
    }

    fn pack(&self, before_step: &dyn Fn(u8) -> bool) -> Option<u64> {
        let step = Cell::new(0);
        let fleet = || {
            step.set(step.get() + 1);
            before_step(step.get()).then(|| self.fleet.clone())
        };
        pack(&fleet, &|_| {}).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn no_card_is_used_that_says_other_than_the_rows(
        steps in prop::collection::vec(steps(), 1..40),
    ) {
        let mut house = house();
        for device in 0..DEVICES {
            house.enrol(device).unwrap();
        }
        for step in steps {
            match step {
                Step::Do(device, act) => house.act(device, act),
                Step::Pack { at, meanwhile, gone } => {
                    let images = RefCell::new(Vec::new());
                    let packed = house.pack(&|step| {
                        if step == at {
                            house.act(meanwhile.0, meanwhile.1);
                            house.check();
                            // Killed here, in another history.
                            let image = tempfile::tempdir().unwrap();
                            copy(house.directory.path(), image.path());
                            images.borrow_mut().push(image);
                        }
                        Some(step) != gone
                    });
                    prop_assert!(packed.is_some() || gone.is_some());
                    for image in images.into_inner() {
                        open(image).check();
                    }
                }
                Step::Kill => house = house.kill(),
            }
            house.check();
        }
        house = house.kill();
        house.check();
        // And it mends whatever came before.
        let bound = house.fleet.inner.table.scan(keys::BOUND, None, 100).unwrap().len();
        prop_assert_eq!(house.fleet.pack_cards().unwrap(), bound as u64);
        prop_assert_eq!((house.check(), house.packs(), house.marks()), (bound, 1, 0));
    }
}

#[test]
fn a_change_leaves_one_mark_and_only_what_it_touches_is_read_from_its_rows() {
    let house = house();
    let ids: Vec<_> = (0..3).map(|n| house.enrol(n).unwrap()).collect();
    let is_used = |n: usize| house.fleet.inner.live.cards().get(&ids[n]).is_some();
    assert!(!is_used(0));
    assert_eq!(house.fleet.pack_cards().unwrap(), 3);
    assert!(is_used(0) && is_used(1) && is_used(2));
    for value in 0..3 {
        house.act(0, Act::Attribute(value));
        house.act(1, Act::Deactivate);
        house.act(1, Act::Activate);
    }
    assert!(!is_used(0) && !is_used(1) && is_used(2));
    assert_eq!(house.marks(), 2);
    // What comes is in no pack: nothing is to be marked.
    house.enrol(4).unwrap();
    assert_eq!(house.marks(), 2);
    let house = house.kill();
    assert_eq!((house.check(), house.marks()), (1, 2));
    assert_eq!(house.fleet.pack_cards().unwrap(), 4);
    assert_eq!((house.check(), house.marks()), (4, 0));
}

#[test]
fn packs_that_fail_leave_no_second_mark_and_no_outdated_card() {
    let house = house();
    let ids: Vec<_> = (0..3).map(|n| house.enrol(n).unwrap()).collect();
    house.fleet.pack_cards().unwrap();
    house.act(0, Act::Attribute(0));
    // No more can be made here.
    let packs = house.directory.path().join("store/packs/cards");
    let aside = house.directory.path().join("aside");
    std::fs::rename(&packs, &aside).unwrap();
    std::fs::write(&packs, "no directory").unwrap();
    for value in 0..4 {
        house.fleet.pack_cards().unwrap_err();
        house.act(0, Act::Attribute(value));
        house.act(1, Act::Attribute(value));
        // What changes while one is made is outdated in it and in the one before.
        let cards = house.fleet.inner.live.cards();
        cards.begin();
        house.act(value as usize % 2, Act::Quarantine(value < 2));
        cards.give_up();
    }
    // Of the first two, and twice of each while one was made.
    assert_eq!((house.marks(), house.check()), (2 + 4, 1));
    assert!(house.fleet.inner.live.cards().state.read().marks.len() == 1);
    std::fs::remove_file(&packs).unwrap();
    std::fs::rename(&aside, &packs).unwrap();
    let house = house.kill();
    assert_eq!((house.check(), house.marks()), (1, 6));
    assert!(house.fleet.inner.live.cards().get(&ids[2]).is_some());
    // Nor is one marked again after a start.
    house.act(0, Act::Attribute(2));
    assert_eq!(house.marks(), 6);
    assert_eq!(house.fleet.pack_cards().unwrap(), 3);
    assert_eq!((house.check(), house.marks()), (3, 0));
}

#[test]
fn a_registry_without_packs_marks_nothing_and_one_whose_pack_is_gone_or_damaged_goes_on() {
    for damage in ["gone", "cut", "changed", "version"] {
        let house = house();
        house.enrol(0).unwrap();
        house.act(0, Act::Join);
        assert_eq!((house.marks(), house.packs()), (0, 0));
        house.fleet.pack_cards().unwrap();
        let packs = house.directory.path().join("store/packs/cards");
        let pack = std::fs::read_dir(packs).unwrap().next().unwrap().unwrap();
        let whole = std::fs::read(pack.path()).unwrap();
        if damage == "version" {
            let table = &house.fleet.inner.table;
            let mut row: CountsRow = table.get_as(keys::PACKED).unwrap().unwrap().value;
            row.version += 1;
            let row = Write::put(keys::PACKED, &row, Expect::Any).unwrap();
            table.batch(&[row]).unwrap();
        }
        let (directory, fleet) = (house.directory, house.fleet);
        drop((fleet, house.store));
        match damage {
            "gone" => std::fs::remove_file(pack.path()).unwrap(),
            "cut" => std::fs::write(pack.path(), &whole[..whole.len() - 1]).unwrap(),
            "version" => {}
            _ => std::fs::write(pack.path(), vec![0; whole.len()]).unwrap(),
        }
        let house = open(directory);
        assert_eq!((house.check(), house.packs()), (0, 0), "{damage}");
        house.act(0, Act::Leave);
        // The file that comes back is outdated by a change that nobody has marked.
        std::fs::write(pack.path(), &whole).unwrap();
        let house = house.kill();
        assert_eq!((house.check(), house.packs()), (0, 0), "{damage}");
        assert_eq!(house.fleet.pack_cards().unwrap(), 1);
        assert_eq!(house.check(), 1);
    }
}

#[test]
fn a_card_of_another_release_or_damaged_in_its_place_is_read_from_its_rows() {
    let house = house();
    let id = house.enrol(0).unwrap();
    house.fleet.pack_cards().unwrap();
    let packs = house.directory.path().join("store/packs/cards");
    let pack = std::fs::read_dir(packs).unwrap().next().unwrap().unwrap();
    let mut bytes = std::fs::read(pack.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(pack.path(), bytes).unwrap();
    assert!(house.fleet.inner.live.cards().get(&id).is_none());
    let standing = house.fleet.standing(&id).unwrap();
    assert!(standing.now().is_active(SystemTime::now()));
    // Made anew from the rows.
    assert_eq!(house.fleet.pack_cards().unwrap(), 1);
    assert_eq!(house.check(), 1);
}

#[test]
fn what_is_read_from_rows_often_is_packed_by_itself() {
    let house = house();
    house.enrol(0).unwrap();
    let cards = house.fleet.inner.live.cards();
    for _ in 1..READ_FLOOR_ITEMS {
        cards.missed();
    }
    assert!(cards.pack().is_none());
    cards.missed();
    until(|| cards.pack().is_some());
    assert_eq!(house.check(), 1);
}

#[test]
fn what_the_broker_sees_of_a_device_is_marked_too() {
    let house = house();
    let ids: Vec<_> = (0..2).map(|n| house.enrol(n).unwrap()).collect();
    house.fleet.pack_cards().unwrap();
    let standing = house.fleet.standing(&ids[0]).unwrap();
    house
        .fleet
        .note_violation(&standing, "too loud", SystemTime::now());
    let kept = || house.fleet.health(&House::name(0)).unwrap().violation;
    until(|| kept().is_some());
    // Whatever is acknowledged, all before it has been applied.
    house.act(1, Act::Join);
    assert_eq!((house.check(), house.marks()), (0, 2));
    assert_eq!(house.kill().check(), 0);
}

#[test]
fn standings_that_come_up_while_things_change_say_what_the_rows_say() {
    let house = house();
    let ids: Vec<_> = (0..DEVICES).map(|n| house.enrol(n).unwrap()).collect();
    house.fleet.pack_cards().unwrap();
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _end = End(&going);
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                house.fleet.pack_cards().unwrap();
            }
        });
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                for id in &ids {
                    house.fleet.standing(id).unwrap();
                }
            }
        });
        for round in 0..60 {
            let device = round % DEVICES;
            let act = match round / DEVICES % 4 {
                0 => Act::Deactivate,
                1 => Act::Attribute((round % 3) as u8),
                2 => Act::Activate,
                _ => Act::Join,
            };
            house.act(device, act);
            let standing = house.fleet.standing(&ids[device]).unwrap();
            let record = house.fleet.certificate(&ids[device]).unwrap();
            let now = standing.now();
            assert_eq!(now.status, Some(record.status), "{act:?}");
            let facts = now.thing_facts.clone().unwrap();
            let thing = house.fleet.thing(&House::name(device)).unwrap();
            assert_eq!(
                facts.attributes["site"].as_ref(),
                thing.attributes["site"],
                "{act:?}"
            );
            let groups = house.fleet.groups_of(&thing.name).unwrap();
            assert_eq!(now.groups.to_vec(), groups, "{act:?}");
        }
    });
    house.check();
}

/// Waits for what another thread does.
fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain");
        std::thread::yield_now();
    }
}

/// Ends what others do, also where this one fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
