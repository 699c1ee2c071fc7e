use super::*;
use crate::Store;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lamp {
    colour: String,
}
impl Stored for Lamp {}

fn lamp(n: u64) -> Lamp {
    Lamp {
        colour: format!("colour {n} ").repeat((n % 40) as usize),
    }
}

fn id(n: u64) -> PackId {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &n.to_be_bytes());
    digest.as_ref().try_into().unwrap()
}

fn write(packs: &Packs, lamps: &BTreeMap<PackId, Lamp>, expected: u64) -> Pack {
    let mut writer = packs.create(expected).unwrap();
    for (id, lamp) in lamps {
        writer.put(id, lamp).unwrap();
    }
    writer.finish().unwrap()
}

fn names(packs: &Packs) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(&packs.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_number_is_expected_every_value_is_found_and_no_other(
        count in 0..300_u64,
        expected in prop::sample::select(vec![0, 1, 7, 300, 5_000]),
    ) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let packs = store.packs("lamps").unwrap();
        let lamps: BTreeMap<_, _> = (0..count).map(|n| (id(n), lamp(n))).collect();
        let label = write(&packs, &lamps, expected).label().to_owned();
        let pack = Arc::new(packs.open(&label).unwrap().unwrap());
        prop_assert_eq!(pack.items(), count);
        for n in 0..count + 50 {
            let found = pack.get_as::<Lamp>(&id(n)).unwrap();
            prop_assert_eq!(found, (n < count).then(|| lamp(n)));
        }
        let ids: Vec<_> = pack.values().map(|value| value.unwrap().0).collect();
        prop_assert_eq!(ids, lamps.keys().copied().collect::<Vec<_>>());
    }
}

#[test]
fn one_that_was_cut_or_changed_anywhere_is_said_to_be_damaged() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let packs = store.packs("lamps").unwrap();
    let lamps: BTreeMap<_, _> = (0..40).map(|n| (id(n), lamp(n))).collect();
    let label = write(&packs, &lamps, 40).label().to_owned();
    let path = packs.path(&label);
    let whole = fs::read(&path).unwrap();
    let read_all = || {
        let pack = Arc::new(packs.open(&label)?.unwrap());
        pack.values().collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(read_all().unwrap().len(), 40);
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        fs::write(&path, &changed).unwrap();
        assert!(
            matches!(read_all(), Err(StoreError::Damaged { .. })),
            "changed at {at}"
        );
        fs::write(&path, &whole[..at]).unwrap();
        assert!(
            matches!(read_all(), Err(StoreError::Damaged { .. })),
            "cut at {at}"
        );
    }
    // The file of another label is not taken for this one.
    let other = write(&packs, &lamps, 40).label().to_owned();
    fs::copy(packs.path(&other), &path).unwrap();
    assert!(packs.open(&label).is_err());
}

#[test]
fn values_out_of_order_and_large_ones_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let mut writer = store.packs("lamps").unwrap().create(2).unwrap();
    writer.put(&[7; 32], &lamp(1)).unwrap();
    for late in [[7; 32], [6; 32]] {
        let refused = writer.put(&late, &lamp(2));
        assert!(matches!(refused, Err(StoreError::PackOrder { .. })));
    }
    let large = vec![b'x'; VALUE_BYTES_MAX + 1];
    let refused = writer.put_bytes(&[8; 32], &large);
    assert!(matches!(refused, Err(StoreError::ValueTooLarge { .. })));
    assert_eq!(writer.finish().unwrap().items(), 1);
}

#[test]
fn only_the_one_that_counts_stays_and_nothing_is_seen_of_one_that_is_not_finished() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let packs = store.packs("lamps").unwrap();
    // Before there is any.
    packs.keep_only(None).unwrap();
    assert!(packs.open(&"0".repeat(32)).unwrap().is_none());
    assert!(packs.open("../lock").unwrap().is_none());
    let lamps: BTreeMap<_, _> = (0..40).map(|n| (id(n), lamp(n))).collect();
    let (first, second) = (write(&packs, &lamps, 40), write(&packs, &lamps, 40));
    let mode = fs::metadata(packs.path(first.label()))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    // As a crash leaves it.
    fs::write(packs.directory.join(".writing-abc"), b"half").unwrap();
    assert_eq!(names(&packs).len(), 3);
    packs.keep_only(Some(second.label())).unwrap();
    assert_eq!(names(&packs), [format!("{}.pack", second.label())]);
    // Who has it open reads on.
    assert_eq!(first.get_as::<Lamp>(&id(3)).unwrap(), Some(lamp(3)));
    let mut dropped = packs.create(1).unwrap();
    dropped.put(&id(1), &lamp(1)).unwrap();
    drop(dropped);
    assert_eq!(names(&packs).len(), 1);
}
