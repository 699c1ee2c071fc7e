use std::thread;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::Store;

fn put(key: &str, value: &[u8], expect: Expect) -> Write {
    Write::Put {
        key: key.into(),
        value: value.to_vec(),
        expect,
    }
}

fn keys(rows: &[(String, Row)]) -> Vec<&str> {
    rows.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn revisions_rise_over_all_tables_and_over_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.revision(), 0);
    let (a, b) = (store.table("a").unwrap(), store.table("b").unwrap());
    assert_eq!(a.batch(&[put("k", b"1", Expect::Any)]).unwrap(), 1);
    assert_eq!(b.batch(&[put("k", b"2", Expect::Any)]).unwrap(), 2);
    assert_eq!(
        b.batch(&[Write::delete("k", Expect::Revision(2))]).unwrap(),
        3
    );
    assert_eq!(b.batch(&[]).unwrap(), 3);
    drop((store, a, b));
    let store = Store::open(dir.path()).unwrap();
    // The newest batch left no row, and still its revision is not given again.
    assert_eq!(store.revision(), 3);
    let a = store.table("a").unwrap();
    assert_eq!(
        a.get("k").unwrap(),
        Some(Row {
            revision: 1,
            value: b"1".to_vec()
        })
    );
    assert_eq!(a.batch(&[put("k", b"3", Expect::Revision(1))]).unwrap(), 4);
}

#[test]
fn one_unmet_expectation_undoes_the_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    let first = table.batch(&[put("here", b"1", Expect::Absent)]).unwrap();
    for expect in [
        Expect::Absent,
        Expect::Revision(first + 1),
        Expect::Revision(0),
    ] {
        let writes = [put("new", b"", Expect::Absent), put("here", b"2", expect)];
        let error = table.batch(&writes).unwrap_err();
        assert!(matches!(error, StoreError::Conflict { key } if key == "here"));
    }
    let error = table
        .batch(&[Write::delete("gone", Expect::Revision(first))])
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { key } if key == "gone"));
    assert_eq!(table.get("new").unwrap(), None);
    assert_eq!(table.get("here").unwrap().unwrap().value, b"1");
    // A refused batch takes no revision.
    assert_eq!(
        table
            .batch(&[Write::delete("here", Expect::Revision(first))])
            .unwrap(),
        first + 1
    );
}

#[test]
fn a_scan_is_ordered_paged_and_kept_to_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    let all = [
        "a",
        "thing/",
        "thing/1",
        "thing/10",
        "thing/2",
        "thing0",
        "\u{10ffff}",
    ];
    let writes: Vec<_> = all.iter().map(|key| put(key, b"", Expect::Any)).collect();
    table.batch(&writes).unwrap();
    let scan = |prefix, after, limit| table.scan(prefix, after, limit).unwrap();
    assert_eq!(keys(&scan("", None, 100)), all);
    assert_eq!(keys(&scan("thing/", None, 2)), ["thing/", "thing/1"]);
    assert_eq!(
        keys(&scan("thing/", Some("thing/1"), 100)),
        ["thing/10", "thing/2"]
    );
    assert_eq!(keys(&scan("thing/", Some("a"), 1)), ["thing/"]);
    assert!(scan("thing/", Some("thing0"), 100).is_empty());
    assert!(scan("", None, 0).is_empty());
}

#[test]
fn bounds_are_kept_at_the_bound_and_one_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    let long = "k".repeat(KEY_BYTES_MAX);
    let large = vec![1; VALUE_BYTES_MAX + 1];
    table
        .batch(&[put(&long, &large[1..], Expect::Any)])
        .unwrap();
    assert_eq!(table.get(&long).unwrap().unwrap().value, &large[1..]);
    let error = table.batch(&[put("k", &large, Expect::Any)]).unwrap_err();
    assert!(matches!(error, StoreError::ValueTooLarge { .. }));
    for key in ["", &format!("{long}k")] {
        let error = table.batch(&[put(key, b"", Expect::Any)]).unwrap_err();
        assert!(matches!(error, StoreError::KeyLength { .. }));
    }
    let twice = [put("k", b"", Expect::Any), Write::delete("k", Expect::Any)];
    assert!(matches!(
        table.batch(&twice),
        Err(StoreError::DuplicateKey { .. })
    ));
    let many: Vec<_> = (0..=BATCH_WRITES_MAX)
        .map(|n| Write::delete(n.to_string(), Expect::Any))
        .collect();
    assert!(matches!(
        table.batch(&many),
        Err(StoreError::BatchTooLarge { .. })
    ));
    table.batch(&many[1..]).unwrap();
}

#[test]
fn names_outside_the_pattern_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.table(&"a".repeat(64)).unwrap();
    for name in ["", "A", "a/b", "..", "__sled__default", &"a".repeat(65)] {
        assert!(
            matches!(store.table(name), Err(StoreError::Name { .. })),
            "{name}"
        );
        assert!(
            matches!(store.journal(name), Err(StoreError::Name { .. })),
            "{name}"
        );
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: String,
}
impl Stored for Thing {}

#[test]
fn typed_values_come_back_with_their_revision() {
    let dir = tempfile::tempdir().unwrap();
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    let thing = Thing {
        name: "lamp-1".into(),
    };
    let revision = table
        .batch(&[Write::put("thing/1", &thing, Expect::Absent).unwrap()])
        .unwrap();
    let row = table.get_as::<Thing>("thing/1").unwrap().unwrap();
    assert_eq!((row.revision, &row.value), (revision, &thing));
    assert_eq!(
        table.scan_as::<Thing>("thing/", None, 9).unwrap(),
        [("thing/1".into(), row)]
    );
    table.batch(&[put("thing/2", b"{}", Expect::Any)]).unwrap();
    let error = table.scan_as::<Thing>("thing/", None, 9).unwrap_err();
    assert!(error.to_string().contains("thing/2"), "{error}");
}

#[test]
fn a_watcher_sees_each_batch_once_in_order_and_after_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let table = store.table("t").unwrap();
    let mut watch = table.watch(store.revision());
    let other = store.table("other").unwrap();
    let last = thread::scope(|scope| {
        for n in 0..4 {
            let (table, other) = (&table, &other);
            scope.spawn(move || {
                for m in 0..25 {
                    table
                        .batch(&[put(&format!("{n}/{m}"), b"", Expect::Any)])
                        .unwrap();
                    other.batch(&[put("x", b"", Expect::Any)]).unwrap();
                }
            });
        }
        let mut before = 0;
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let Some(Event::Changed { revision, keys }) = watch.next() else {
                panic!()
            };
            assert!(revision > before && revision <= store.revision());
            before = revision;
            seen.extend(keys.iter().cloned());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 100);
        before
    });
    assert_eq!(watch.try_next(), None);
    // Nothing was kept for a late one; it is told so.
    let revision = last;
    assert_eq!(table.watch(0).try_next(), Some(Event::Lagged { revision }));
    let deadline = std::time::Instant::now();
    assert_eq!(table.watch(store.revision()).next_before(deadline), None);
}

#[test]
fn a_watcher_that_the_ring_has_passed_is_told_to_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let table = store.table("t").unwrap();
    let mut watch = table.watch(0);
    table.batch(&[put("first", b"", Expect::Any)]).unwrap();
    // More keys than the ring remembers, in two batches.
    let many = |from: usize| -> Vec<_> {
        let names = from..from + WATCH_KEYS_MAX / 2;
        names
            .map(|n| Write::delete(n.to_string(), Expect::Any))
            .collect()
    };
    table.batch(&many(0)).unwrap();
    table.batch(&many(0)).unwrap();
    assert_eq!(watch.next(), Some(Event::Lagged { revision: 1 }));
    assert!(matches!(
        watch.next(),
        Some(Event::Changed { revision: 2, .. })
    ));
    drop(store);
    drop(table);
    // Changes of an earlier run are not remembered.
    let store = Store::open(dir.path()).unwrap();
    let mut watch = store.table("t").unwrap().watch(2);
    assert_eq!(watch.next(), Some(Event::Lagged { revision: 3 }));
}

#[test]
fn the_ring_holds_so_many_changes_and_not_one_more() {
    let hub = Arc::new(Hub::new(0));
    let change = |revision| watch::Change {
        revision,
        keys: Arc::from([]),
    };
    let [mut one, mut other] = [(); 2].map(|()| Watch::new(Arc::clone(&hub), 0));
    for revision in 1..=WATCH_CHANGES_MAX as u64 {
        hub.publish(change(revision));
    }
    assert!(matches!(
        one.try_next(),
        Some(Event::Changed { revision: 1, .. })
    ));
    hub.publish(change(WATCH_CHANGES_MAX as u64 + 1));
    assert_eq!(other.try_next(), Some(Event::Lagged { revision: 1 }));
    assert!(matches!(
        one.try_next(),
        Some(Event::Changed { revision: 2, .. })
    ));
}

#[test]
fn the_ring_keeps_what_somebody_is_still_to_be_told_and_nothing_else() {
    let hub = Arc::new(Hub::new(0));
    let publish = |revision| {
        let keys = Arc::from([format!("key {revision}")]);
        hub.publish(watch::Change { revision, keys });
    };
    (1..=10).for_each(publish);
    assert_eq!(hub.kept(), (0, 0), "nobody watches");
    let [mut one, mut other] = [(); 2].map(|()| Watch::new(Arc::clone(&hub), 10));
    (11..=20).for_each(publish);
    while one.try_next().is_some() {}
    assert_eq!(hub.kept(), (10, 10));
    assert!(matches!(
        other.try_next(),
        Some(Event::Changed { revision: 11, .. })
    ));
    assert_eq!(hub.kept(), (9, 9));
    drop(other);
    assert_eq!(hub.kept(), (0, 0));
    publish(21);
    assert!(matches!(
        one.try_next(),
        Some(Event::Changed { revision: 21, .. })
    ));
}

#[test]
fn a_blocked_watcher_ends_by_its_handle_by_the_stores_word_and_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let table = store.table("t").unwrap();
    let (mut one, mut two, mut three) = (table.watch(0), table.watch(0), table.watch(0));
    let stop = one.stop_handle();
    let ended = thread::spawn(move || one.next());
    stop.stop();
    assert_eq!(ended.join().unwrap(), None);
    let ended = thread::spawn(move || two.next());
    drop((store, table));
    assert_eq!(ended.join().unwrap(), None);
    assert_eq!(three.next(), None);
    let store = Store::open(dir.path()).unwrap();
    let table = store.table("t").unwrap();
    let ended = thread::spawn(move || table.watch(0).next());
    while !ended.is_finished() {
        store.stop_watches();
        thread::yield_now();
    }
    assert_eq!(ended.join().unwrap(), None);
}

#[test]
fn a_failed_commit_is_for_good_and_durable_rows_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let table = store.table("t").unwrap();
    table.batch(&[put("k", b"1", Expect::Any)]).unwrap();
    let error = StoreError::io(
        "sync",
        Path::new("db"),
        std::io::ErrorKind::StorageFull.into(),
    );
    table.writable().unwrap();
    table.shared.commit.broken(&error);
    assert!(matches!(table.writable(), Err(StoreError::Failed { .. })));
    let refused = table.batch(&[put("k", b"2", Expect::Any)]);
    assert!(matches!(refused, Err(StoreError::Failed { .. })));
    assert_eq!(table.get("k").unwrap().unwrap().value, b"1");
    assert_eq!(store.revision(), 1);
}

#[test]
fn many_threads_that_add_to_one_row_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    loop {
                        let row = table.get("sum").unwrap();
                        let (sum, expect) = match &row {
                            None => (0, Expect::Absent),
                            Some(row) => (row.value[0], Expect::Revision(row.revision)),
                        };
                        match table.batch(&[put("sum", &[sum + 1], expect)]) {
                            Ok(_) => break,
                            Err(StoreError::Conflict { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(table.get("sum").unwrap().unwrap().value, [80]);
}

#[test]
fn many_rows_of_all_sizes_are_there_whatever_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    let mut model = std::collections::BTreeMap::new();
    let mut state = 1_u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for round in 0..120 {
        let mut writes = std::collections::BTreeMap::new();
        for _ in 0..400 {
            let key = format!("{}/{:04}", draw(7), draw(1_500));
            // Fewer and fewer stay, so that chunks go as well as come.
            let length = (draw(120) > round).then(|| draw(10) * draw(60));
            writes.insert(key, length);
        }
        let batch: Vec<_> = writes
            .iter()
            .map(|(key, length)| match length {
                Some(length) => put(key, &vec![7; *length as usize], Expect::Any),
                None => Write::delete(key.clone(), Expect::Any),
            })
            .collect();
        let revision = table.batch(&batch).unwrap();
        for (key, length) in writes {
            match length {
                Some(length) => drop(model.insert(key, (revision, length as usize))),
                None => drop(model.remove(&key)),
            }
        }
        if round % 20 == 19 {
            let seen = |(key, row): (String, Row)| (key, (row.revision, row.value.len()));
            let all = table.scan("", None, usize::MAX).unwrap();
            assert!(all.into_iter().map(seen).eq(model.clone()), "round {round}");
            for (key, (revision, _)) in &model {
                assert_eq!(table.get(key).unwrap().unwrap().revision, *revision);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_as_an_ordered_map(
        batches in prop::collection::vec(
            prop::collection::btree_map("[a-c]{1,3}", prop::option::of(0..700_usize), 1..6), 1..12,
        ),
        reopen in any::<prop::sample::Index>(),
        prefix in "[a-c]{0,2}",
        after in "[a-c]{0,2}",
        limit in 0..8usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = std::collections::BTreeMap::new();
        let mut table = Store::open(dir.path()).unwrap().table("t").unwrap();
        let reopen = reopen.index(batches.len());
        for (at, batch) in batches.into_iter().enumerate() {
            if at == reopen {
                drop(table);
                table = Store::open(dir.path()).unwrap().table("t").unwrap();
            }
            let write = |(key, length): (&String, &Option<usize>)| match length {
                Some(length) => put(key, &vec![7; *length], Expect::Any),
                None => Write::delete(key.clone(), Expect::Any),
            };
            let writes: Vec<_> = batch.iter().map(write).collect();
            let revision = table.batch(&writes).unwrap();
            for (key, length) in batch {
                match length {
                    Some(length) => { model.insert(key, Row { revision, value: vec![7; length] }); }
                    None => { model.remove(&key); }
                }
            }
        }
        for (key, row) in &model {
            let found = table.get(key).unwrap();
            prop_assert_eq!(found.as_ref(), Some(row));
        }
        let expected: Vec<_> = model
            .into_iter()
            .filter(|(key, _)| key.starts_with(&prefix) && *key > after)
            .take(limit)
            .collect();
        prop_assert_eq!(table.scan(&prefix, Some(&after), limit).unwrap(), expected);
    }
}

#[test]
fn a_row_of_a_revision_that_was_never_given_out_is_an_error_and_no_endless_wait() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let later = Store::open(other.path()).unwrap().table("t").unwrap();
    for _ in 0..9 {
        later.batch(&[put("k", b"", Expect::Any)]).unwrap();
    }
    let table = Store::open(dir.path()).unwrap().table("t").unwrap();
    table.batch(&[put("a", b"", Expect::Any)]).unwrap();
    for pair in &later.opened.tree {
        let (key, bytes) = pair.unwrap();
        if key != HEAD_KEY {
            table.opened.tree.insert(key, bytes).unwrap();
        }
    }
    let damaged = |error| matches!(error, Some(StoreError::Damaged { .. }));
    assert!(damaged(table.get("k").err()));
    assert!(damaged(table.scan("", None, 9).err()));
    // The others can be read and written as before.
    assert_eq!(table.get("a").unwrap().unwrap().revision, 1);
    assert_eq!(table.batch(&[put("b", b"", Expect::Absent)]).unwrap(), 2);
}
