//! `kill -9` at a random moment: whatever was acknowledged before is there after reopening.
//! The child is this test program itself, told by an environment variable where to write; it
//! prints each acknowledgement and never ends by itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test are part of it"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

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
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), round);
    1 + usize::try_from(random % 400).unwrap()
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
