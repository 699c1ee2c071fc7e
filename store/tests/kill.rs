//! `kill -9` at a random moment: whatever was acknowledged before is there after reopening.
//! The child is this test program itself, told by an environment variable where to write; it
//! prints each acknowledgement and never ends by itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test are part of it"
)]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use store::{Expect, Store, Write};

const DIRECTORY: &str = "STORE_KILL_TEST_DIRECTORY";
const ROUNDS: u64 = 6;
const THREADS: u64 = 4;
const ROWS_PER_BATCH: u64 = 5;

/// Runs `test` of this program as a child, kills it after `acknowledgements` lines, and returns
/// all it had printed by then.
fn run_and_kill(test: &str, directory: &Path, acknowledgements: usize) -> Vec<Vec<u64>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let line = line.unwrap();
        // The harness prints lines of its own.
        let Some((_, numbers)) = line.split_once("ack ") else {
            continue;
        };
        acknowledged.push(numbers.split(' ').map(|n| n.parse().unwrap()).collect());
        if acknowledged.len() == acknowledgements {
            // Somewhere in the next batches, which take so long.
            std::thread::sleep(Duration::from_micros(
                drawn(acknowledgements as u64) % 20_000,
            ));
            // SIGKILL. What is in the pipe still counts: it was acknowledged.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(
        acknowledged.len() >= acknowledgements,
        "the child ended by itself"
    );
    acknowledged
}

fn acknowledge(numbers: &[u64]) {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    // One write call per line, so that a kill cannot leave half of one.
    std::io::stdout()
        .write_all(format!("ack {}\n", numbers.join(" ")).as_bytes())
        .unwrap();
}

/// A number of acknowledgements that differs from round to round.
fn moment(round: u64) -> usize {
    1 + usize::try_from(drawn(round) % 400).unwrap()
}

fn drawn(from: u64) -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), from)
}

#[test]
fn acknowledged_batches_survive_kill_9() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_batches(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut known = HashMap::new();
    for round in 0..ROUNDS {
        let name = "acknowledged_batches_survive_kill_9";
        for ack in run_and_kill(name, directory.path(), moment(round)) {
            let [thread, number, revision] = ack[..] else {
                panic!("{ack:?}")
            };
            known.insert((thread, number), revision);
        }
        let store = Store::open(directory.path()).unwrap();
        let table = store.table("rows").unwrap();
        let newest = known.values().copied().max().unwrap();
        assert!(store.revision() >= newest, "revisions must not go back");
        for ((thread, number), revision) in &known {
            for row in 0..ROWS_PER_BATCH {
                let found = table.get(&format!("{thread}/{number:08}/{row}")).unwrap();
                assert_eq!(found.map(|row| row.revision), Some(*revision));
            }
        }
        // Batches are whole, acknowledged or not.
        for thread in 0..THREADS {
            let rows = table.scan(&format!("{thread}/"), None, usize::MAX).unwrap();
            assert_eq!(rows.len() as u64 % ROWS_PER_BATCH, 0);
        }
    }
}

fn write_batches(directory: &Path) {
    let store = Store::open(directory).unwrap();
    let table = store.table("rows").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let table = &table;
            scope.spawn(move || {
                let prefix = format!("{thread}/");
                let there = table.scan(&prefix, None, usize::MAX).unwrap().len() as u64;
                for number in there / ROWS_PER_BATCH.. {
                    let put = |row| Write::Put {
                        key: format!("{thread}/{number:08}/{row}"),
                        value: vec![7; 100],
                        expect: Expect::Absent,
                    };
                    let writes: Vec<_> = (0..ROWS_PER_BATCH).map(put).collect();
                    let revision = table.batch(&writes).unwrap();
                    acknowledge(&[thread, number, revision]);
                }
            });
        }
    });
}

#[test]
fn acknowledged_records_survive_kill_9() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_records(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let name = "acknowledged_records_survive_kill_9";
        let acks = run_and_kill(name, directory.path(), moment(round));
        let (_, replay) = Store::open(directory.path())
            .unwrap()
            .journal("queue")
            .unwrap();
        let pairs = replay.map(Result::unwrap);
        let found: HashMap<Vec<u8>, Vec<u8>> = pairs
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect();
        // Each acknowledgement is (number put, number deleted before); the put ones that no later
        // delete can have reached must be there, the deleted ones gone.
        let last = acks.last().unwrap()[0];
        for ack in &acks {
            let [put, deleted] = ack[..] else {
                panic!("{ack:?}")
            };
            assert!(
                !found.contains_key(&deleted.to_be_bytes()[..]),
                "{deleted} came back"
            );
            if put + ALIVE > last + IN_FLIGHT {
                let value = found.get(&put.to_be_bytes()[..]);
                assert_eq!(
                    value.map(Vec::as_slice),
                    Some(&[put as u8; 200][..]),
                    "{put}"
                );
            }
        }
    }
}

/// Messages alive at a time.
const ALIVE: u64 = 2000;
/// Messages put and deleted and not yet acknowledged, at most.
const IN_FLIGHT: u64 = 50;

fn write_records(directory: &Path) {
    let (journal, replay) = Store::open(directory).unwrap().journal("queue").unwrap();
    let last = replay
        .map(|pair| u64::from_be_bytes(pair.unwrap().0[..].try_into().unwrap()))
        .max();
    let (send, receive) = mpsc::sync_channel(IN_FLIGHT as usize / 2);
    std::thread::scope(|scope| {
        let journal = &journal;
        scope.spawn(move || {
            for (lsn, put, deleted) in receive {
                journal.wait_durable(lsn).unwrap();
                acknowledge(&[put, deleted]);
            }
        });
        for put in last.map_or(ALIVE, |last| last + 1).. {
            let deleted = put - ALIVE;
            journal.delete(&deleted.to_be_bytes()).unwrap();
            let lsn = journal.put(&put.to_be_bytes(), &[&[put as u8; 100], &[put as u8; 100]]);
            send.send((lsn.unwrap(), put, deleted)).unwrap();
        }
    });
}

#[test]
fn rows_that_come_change_and_go_survive_kill_9_as_of_one_batch() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_changes(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    let mut applied = 0;
    for round in 0..ROUNDS {
        let name = "rows_that_come_change_and_go_survive_kill_9_as_of_one_batch";
        let acks = run_and_kill(name, directory.path(), moment(round));
        let store = Store::open(directory.path()).unwrap();
        let revision = store.revision();
        assert!(
            revision >= acks.last().unwrap()[0],
            "an acknowledged batch is gone"
        );
        for batch in applied + 1..=revision {
            apply(&mut model, batch);
        }
        applied = revision;
        assert_eq!(all_rows(&store), model, "as of revision {revision}");
    }
}

/// Each row with the batch that put it.
type Rows = BTreeMap<String, (u64, Vec<u8>)>;

fn apply(model: &mut Rows, batch: u64) {
    for (key, value) in changes(batch) {
        match value {
            Some(value) => drop(model.insert(key, (batch, value))),
            None => drop(model.remove(&key)),
        }
    }
}

fn all_rows(store: &Store) -> Rows {
    let all = store.table("rows").unwrap().scan("", None, usize::MAX);
    let rows = all.unwrap().into_iter();
    rows.map(|(key, row)| (key, (row.revision, row.value)))
        .collect()
}

fn write_of((key, value): (String, Option<Vec<u8>>)) -> Write {
    match value {
        Some(value) => Write::Put {
            key,
            value,
            expect: Expect::Any,
        },
        None => Write::delete(key, Expect::Any),
    }
}

/// What batch number `batch` changes: rows of many sizes, so that they are packed together, parted and removed.
fn changes(batch: u64) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut state = batch;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    // Every third is too large for one write of the database.
    let rows = if batch.is_multiple_of(3) {
        900
    } else {
        1 + draw(30)
    };
    (0..rows)
        .map(|_| {
            let key = format!("{}/{:03}", draw(3), draw(300));
            let length = draw(12) * draw(70);
            let value = (draw(3) > 0).then(|| vec![batch as u8; length as usize]);
            (key, value)
        })
        .collect()
}

fn write_changes(directory: &Path) {
    let store = Store::open(directory).unwrap();
    let table = store.table("rows").unwrap();
    for batch in store.revision() + 1.. {
        let writes: Vec<_> = changes(batch).into_iter().map(write_of).collect();
        assert_eq!(table.batch(&writes).unwrap(), batch);
        acknowledge(&[batch]);
    }
}

/// What a disk may hold in one piece.
const BLOCK_BYTES: usize = 4096;

/// The power goes while a batch is on its way: of what was written since the one before, any part may have reached the disk.
#[test]
fn a_power_cut_leaves_all_of_a_batch_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("tables.1/db");
    let store = Store::open(directory.path()).unwrap();
    let table = store.table("rows").unwrap();
    let mut model = BTreeMap::new();
    let (mut before, mut seen) = (std::fs::read(&database).unwrap(), [0, 0]);
    for batch in 1..=120 {
        let writes: Vec<_> = changes(batch).into_iter().map(write_of).collect();
        assert_eq!(table.batch(&writes).unwrap(), batch);
        let after = std::fs::read(&database).unwrap();
        let as_of_before = model.clone();
        apply(&mut model, batch);
        if batch > 1 && batch % 3 == 0 {
            let cut = torn(&before, &after, batch);
            let copy = tempfile::tempdir().unwrap();
            std::fs::create_dir(copy.path().join("tables.1")).unwrap();
            std::fs::write(copy.path().join("tables.1/db"), cut).unwrap();
            let conf = std::fs::read(directory.path().join("tables.1/conf")).unwrap();
            std::fs::write(copy.path().join("tables.1/conf"), conf).unwrap();
            let store = Store::open(copy.path()).unwrap();
            let whole = store.revision() == batch;
            seen[usize::from(whole)] += 1;
            let expected = if whole { &model } else { &as_of_before };
            assert_eq!(&all_rows(&store), expected, "cut in batch {batch}");
        }
        before = after;
    }
    assert!(
        seen[0] > 0 && seen[1] > 0,
        "each end of the cut was to be seen: {seen:?}"
    );
}

/// `before` with some of the blocks in which `after` differs.
fn torn(before: &[u8], after: &[u8], seed: u64) -> Vec<u8> {
    let mut cut = before.to_vec();
    cut.resize(before.len().max(after.len()), 0);
    let mut state = seed;
    for (number, block) in after.chunks(BLOCK_BYTES).enumerate() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // All of them one time in four: the batch is whole then.
        if seed.is_multiple_of(4) || state >> 63 == 0 {
            cut[number * BLOCK_BYTES..][..block.len()].copy_from_slice(block);
        }
    }
    cut
}
