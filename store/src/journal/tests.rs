use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::task::Wake;
use std::time::{Duration, Instant};

use super::segment::SegmentFile;
use super::*;
use crate::Store;
use crate::room::Room;

mod model;

/// Longest wait for the committer; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const SMALL: Options = Options {
    segment_bytes: 4096,
    backlog_bytes_max: 1 << 20,
    compact_factor: 2,
    compact_slack_bytes: 3 * 4096,
};

fn open(directory: &Path) -> (Journal, Replay) {
    try_open(directory, Box::new(RealDisk)).unwrap()
}

fn try_open(directory: &Path, disk: Box<dyn Disk>) -> Result<(Journal, Replay), StoreError> {
    let lock = Arc::new(DirectoryLock::take(directory).unwrap());
    let claim = Claim::new("queue", &OpenNames::default(), lock).unwrap();
    open_on(disk, &directory.join("journals/queue"), SMALL, claim)
}

fn replayed(replay: Replay) -> Model {
    replay
        .map(Result::unwrap)
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

fn settle(journal: &Journal, lsn: Lsn) {
    journal.wait_durable(lsn).unwrap();
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("journals/queue")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The directory as a crash at this moment would leave it.
fn snapshot(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("journals/queue");
    fs::create_dir_all(&to).unwrap();
    for path in segments(directory) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    copy
}

#[test]
fn what_was_put_is_read_at_once_when_durable_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, replay) = open(dir.path());
    assert_eq!(replay.len(), 0);
    journal.put(b"a", &[b"one, ", b"two"]).unwrap();
    assert_eq!(journal.get(b"a").unwrap().unwrap(), "one, two");
    journal.put(b"b", &[]).unwrap();
    journal.put(b"a", &[b"three"]).unwrap();
    let lsn = journal.delete(b"b").unwrap();
    assert_eq!(journal.get(b"b").unwrap(), None);
    settle(&journal, lsn);
    assert!(journal.durable() >= lsn);
    assert_eq!(journal.get(b"a").unwrap().unwrap(), "three");
    assert_eq!(journal.delete(b"never").unwrap(), lsn);
    drop(journal);
    let (journal, replay) = open(dir.path());
    assert_eq!(
        replayed(replay),
        Model::from([(b"a".to_vec(), b"three".to_vec())])
    );
    assert_eq!(journal.get(b"a").unwrap().unwrap(), "three");
}

#[test]
fn the_replay_is_in_the_order_of_puts_and_of_the_moment_of_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for n in [5u8, 3, 9, 1, 3] {
        journal.put(&[n], &[&[n; 700]]).unwrap();
    }
    drop(journal);
    let (journal, replay) = open(dir.path());
    settle(&journal, journal.delete(&[9]).unwrap());
    let keys: Vec<u8> = replay.map(|pair| pair.unwrap().0[0]).collect();
    assert_eq!(keys, [5, 9, 1, 3]);
}

#[test]
fn a_journal_is_open_once_and_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (journal, replay) = store.journal("queue").unwrap();
    assert!(matches!(
        store.journal("queue"),
        Err(StoreError::JournalOpen { .. })
    ));
    drop(store);
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::InUse { .. })
    ));
    drop((journal, replay));
    Store::open(dir.path()).unwrap().journal("queue").unwrap();
}

#[test]
fn a_record_as_long_as_a_segment_is_taken_and_one_byte_more_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let room = SMALL.segment_bytes as usize - 32 - 28 - 1;
    journal.put(b"small", &[]).unwrap();
    settle(&journal, journal.put(b"k", &[&vec![1; room]]).unwrap());
    let error = journal.put(b"k", &[&vec![2; room + 1]]).unwrap_err();
    let (length, limit_bytes) = (4096 - 32 + 1, 4096 - 32);
    assert_eq!(
        error,
        Behind::TooLarge {
            length,
            limit_bytes
        }
    );
    assert!(matches!(
        journal.put(&vec![0; 70_000], &[]),
        Err(Behind::TooLarge { .. })
    ));
    drop(journal);
    assert_eq!(replayed(open(dir.path()).1)[&b"k"[..]], vec![1; room]);
}

/// Fails as it is told; what it let through is on the disk.
#[derive(Default)]
struct Faulty {
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    /// Bytes that are free, of a large disk; 0 where nobody knows.
    free: AtomicU64,
}

/// Of a large disk, what is kept back.
const KEPT_BYTES: u64 = 256 << 20;

impl Disk for Arc<Faulty> {
    fn room(&self, _: &Path) -> Option<Room> {
        let free_bytes = self.free.load(Ordering::SeqCst);
        (free_bytes > 0).then_some(Room {
            free_bytes,
            total_bytes: 1 << 40,
        })
    }

    fn write_at(&self, file: &dyn SegmentFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.writes_fail.load(Ordering::SeqCst) {
            // Half of it, as a full disk does.
            file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_at(bytes, offset)
    }

    fn sync(&self, file: &dyn SegmentFile) -> io::Result<()> {
        if self.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        file.sync()
    }
}

fn open_faulty(directory: &Path, faulty: &Arc<Faulty>) -> (Journal, Replay) {
    try_open(directory, Box::new(Arc::clone(faulty))).unwrap()
}

#[test]
fn what_a_killed_process_left_is_synced_before_it_counts_as_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    settle(&journal, journal.put(b"k", &[b"v"]).unwrap());
    drop(journal);
    let faulty = Arc::new(Faulty::default());
    faulty.syncs_fail.store(true, Ordering::SeqCst);
    let opened = try_open(dir.path(), Box::new(Arc::clone(&faulty)));
    assert!(matches!(opened, Err(StoreError::Io { what: "sync", .. })));
    faulty.syncs_fail.store(false, Ordering::SeqCst);
    assert_eq!(replayed(open_faulty(dir.path(), &faulty).1).len(), 1);
}

struct Told(std::sync::mpsc::Sender<()>);
impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

#[test]
fn nothing_is_durable_while_the_disk_fails_and_all_is_once_it_works_again() {
    for sync in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let faulty = Arc::new(Faulty::default());
        let (journal, _) = open_faulty(dir.path(), &faulty);
        let before = journal.put(b"before", &[b"1"]).unwrap();
        settle(&journal, before);
        let fault = if sync {
            &faulty.syncs_fail
        } else {
            &faulty.writes_fail
        };
        fault.store(true, Ordering::SeqCst);
        let lsn = journal.put(b"during", &[b"2"]).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        journal.wake_when_durable(lsn, &Waker::from(Arc::new(Told(tell))));
        assert!(matches!(
            journal.wait_durable(lsn),
            Err(StoreError::Failed { .. })
        ));
        told.recv().unwrap();
        assert!(matches!(journal.health(), Health::Failing(_)));
        assert_eq!(journal.durable(), before);
        assert_eq!(journal.get(b"during").unwrap().unwrap(), "2");
        // A crash now loses nothing that was acknowledged.
        let crashed = snapshot(dir.path());
        assert_eq!(replayed(open(crashed.path()).1)[&b"before"[..]], b"1");
        fault.store(false, Ordering::SeqCst);
        let (tell, told) = std::sync::mpsc::channel();
        let waker = Waker::from(Arc::new(Told(tell)));
        while journal.durable() < lsn {
            journal.wake_when_durable(lsn, &waker);
            told.recv().unwrap();
        }
        assert_eq!(journal.health(), Health::Good);
        drop(journal);
        let model = replayed(open(dir.path()).1);
        assert_eq!(
            (&model[&b"before"[..]], &model[&b"during"[..]]),
            (&b"1".to_vec(), &b"2".to_vec())
        );
    }
}

#[test]
fn a_nearly_full_disk_takes_deletions_only_and_who_waited_is_woken_when_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(Faulty::default());
    let (journal, _) = open_faulty(dir.path(), &faulty);
    settle(&journal, journal.put(b"old", &[b"1"]).unwrap());
    faulty.free.store(KEPT_BYTES - 1, Ordering::SeqCst);
    // It is looked at after a commit.
    let last = journal.put(b"last", &[b"2"]).unwrap();
    settle(&journal, last);
    let deadline = Instant::now() + PATIENCE;
    while journal.health() == Health::Good {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain");
        std::thread::yield_now();
    }
    assert!(matches!(
        journal.put(b"new", &[b"3"]),
        Err(Behind::Full { .. })
    ));
    let deleted = journal.delete(b"old").unwrap();
    settle(&journal, deleted);
    let bounded = journal.put_bounded(b"bounded", &[b"4"]).unwrap();
    settle(&journal, bounded);
    assert!(journal.is_nearly_full());
    let (tell, told) = std::sync::mpsc::channel();
    let next = Lsn(journal.durable().0 + 1);
    journal.wake_when_durable(next, &Waker::from(Arc::new(Told(tell))));
    faulty.free.store(2 * KEPT_BYTES, Ordering::SeqCst);
    told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(journal.health(), Health::Good);
    settle(&journal, journal.put(b"new", &[b"3"]).unwrap());
    drop(journal);
    let model = replayed(open(dir.path()).1);
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    assert_eq!(keys, [&b"bounded"[..], b"last", b"new"]);
}

/// Puts until the disk is looked at and what it says is known.
fn nearly_full(journal: &Journal, faulty: &Faulty, free: u64) {
    faulty.free.store(free, Ordering::SeqCst);
    settle(journal, journal.put(b"last", &[b"1"]).unwrap());
    let deadline = Instant::now() + PATIENCE;
    while !journal.is_nearly_full() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain");
        std::thread::yield_now();
    }
}

#[test]
fn of_what_is_kept_back_records_of_a_bounded_amount_take_a_quarter() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(Faulty::default());
    let (journal, _) = open_faulty(dir.path(), &faulty);
    nearly_full(&journal, &faulty, KEPT_BYTES / 4 * 3 + 2000);
    assert!(journal.has_room(1000, true) && !journal.has_room(1000, false));
    let taken = journal.put_bounded(b"session", &[&[0; 1000]]).unwrap();
    settle(&journal, taken);
    assert!(!journal.has_room(3000, true));
    let refused = journal.put_bounded(b"session", &[&[0; 3000]]);
    assert!(matches!(refused, Err(Behind::Full { .. })));
    let (tell, told) = std::sync::mpsc::channel();
    let next = Lsn(journal.durable().0 + 1);
    journal.wake_when_durable(next, &Waker::from(Arc::new(Told(tell))));
    faulty
        .free
        .store(KEPT_BYTES / 4 * 3 + 4000, Ordering::SeqCst);
    told.recv_timeout(PATIENCE).unwrap();
    assert!(journal.is_nearly_full());
    settle(
        &journal,
        journal.put_bounded(b"session", &[&[0; 3000]]).unwrap(),
    );
}

#[test]
fn on_a_nearly_full_disk_what_is_written_again_and_again_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(Faulty::default());
    let options = Options {
        segment_bytes: 1 << 18,
        compact_slack_bytes: 1 << 30,
        ..SMALL
    };
    let lock = Arc::new(DirectoryLock::take(dir.path()).unwrap());
    let claim = Claim::new("queue", &OpenNames::default(), lock).unwrap();
    let directory = dir.path().join("journals/queue");
    let disk = Box::new(Arc::clone(&faulty));
    let (journal, _) = open_on(disk, &directory, options, claim).unwrap();
    nearly_full(&journal, &faulty, KEPT_BYTES - 1);
    settle(&journal, journal.put_bounded(b"kept", &[b"1"]).unwrap());
    for _ in 0..1000 {
        let lsn = journal.put_bounded(b"session", &[&[0; 1000]]).unwrap();
        settle(&journal, lsn);
    }
    let stats = journal.stats();
    assert!(stats.disk_bytes < 16 * 4096, "{stats:?}");
    drop(journal);
    let model = replayed(open(dir.path()).1);
    let keys: Vec<&[u8]> = model.keys().map(Vec::as_slice).collect();
    assert_eq!(keys, [&b"kept"[..], b"last", b"session"]);
}

#[test]
fn the_backlog_is_taken_to_its_bound_and_not_a_byte_further() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Arc::new(Faulty::default());
    let (journal, _) = open_faulty(dir.path(), &faulty);
    faulty.writes_fail.store(true, Ordering::SeqCst);
    let record = 28 + 4 + 900;
    let fit = SMALL.backlog_bytes_max / record;
    for n in 0..fit {
        journal
            .put(&u32::try_from(n).unwrap().to_le_bytes(), &[&[7; 900]])
            .unwrap();
    }
    let left = SMALL.backlog_bytes_max - fit * record;
    let exactly = vec![7; left - 28 - 4];
    assert!(matches!(
        journal.put(b"last", &[&exactly, b"+"]),
        Err(Behind::Full { .. })
    ));
    journal.put(b"last", &[&exactly]).unwrap();
    let error = journal.put(b"", &[]).unwrap_err();
    assert!(
        matches!(error, Behind::Full { backlog_bytes, limit_bytes } if backlog_bytes == limit_bytes)
    );
    // A deletion is taken all the same, is durable no sooner than what is before it, and holds.
    let deleted = journal.delete(&0_u32.to_le_bytes()).unwrap();
    assert!(journal.durable() < deleted);
    assert!(journal.put(b"", &[]).is_err());
    faulty.writes_fail.store(false, Ordering::SeqCst);
    drop(journal);
    assert_eq!(open(dir.path()).1.len(), fit);
}

/// Puts and deletes of few keys over several segments; what must be alive after each record.
fn history(directory: &Path) -> Vec<Model> {
    let (journal, _) = open(directory);
    let mut model = Model::new();
    let mut states = vec![model.clone()];
    for n in 0..90u8 {
        // The first key is never written again: its segment stays.
        let key = if n == 0 { vec![200] } else { vec![n % 7] };
        let lsn = if n % 5 == 4 && model.contains_key(&key) {
            model.remove(&key);
            journal.delete(&key).unwrap()
        } else {
            let value = vec![n; usize::from(n) * 13 % 300 + 1];
            model.insert(key.clone(), value.clone());
            journal.put(&key, &[&value]).unwrap()
        };
        settle(&journal, lsn);
        states.push(model.clone());
    }
    drop(journal);
    states
}

#[test]
fn the_last_segment_cut_at_any_byte_leaves_a_prefix_and_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let states = history(dir.path());
    let paths = segments(dir.path());
    assert!(paths.len() > 1, "the history must span segments");
    let last = paths.last().unwrap();
    let length = fs::metadata(last).unwrap().len();
    let mut reached = states.len() - 1;
    for cut in (0..length).rev() {
        let crashed = snapshot(dir.path());
        let file = segments(crashed.path()).pop().unwrap();
        OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(cut)
            .unwrap();
        let (journal, replay) = open(crashed.path());
        let found = replayed(replay);
        // Ever earlier states, never one that was not.
        while states[reached] != found {
            assert!(reached > 0, "cut at {cut}: no state is {found:?}");
            reached -= 1;
        }
        if cut % 97 == 0 {
            journal.put(b"after", &[b"the cut"]).unwrap();
            drop(journal);
            let mut expected = found;
            expected.insert(b"after".to_vec(), b"the cut".to_vec());
            assert_eq!(replayed(open(crashed.path()).1), expected);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_closed_journal_is_refused_with_file_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    for path in segments(dir.path()) {
        let last = Some(&path) == segments(dir.path()).last();
        let bytes = fs::read(&path).unwrap();
        // The closing record vouches for what is before it, not for itself.
        let end = if last { bytes.len() - 28 } else { bytes.len() };
        for at in (0..end).step_by(11) {
            let crashed = snapshot(dir.path());
            let file = crashed
                .path()
                .join("journals/queue")
                .join(path.file_name().unwrap());
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            fs::write(&file, flipped).unwrap();
            let error = try_open(crashed.path(), Box::new(RealDisk)).err();
            let Some(StoreError::Damaged {
                file: named,
                offset,
                ..
            }) = error
            else {
                panic!("byte {at} of {path:?}: {error:?}")
            };
            assert_eq!(named, file);
            assert!(offset <= at as u64);
            // Refused means untouched.
            assert_eq!(fs::metadata(&file).unwrap().len(), bytes.len() as u64);
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let paths = segments(dir.path());
    assert!(paths.len() > 2);
    fs::remove_file(&paths[1]).unwrap();
    let opened = try_open(dir.path(), Box::new(RealDisk));
    assert!(matches!(opened, Err(StoreError::Damaged { .. })));
}

#[test]
fn dead_segments_go_and_deleted_keys_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    settle(&journal, journal.put(b"stays", &[&[1; 100]]).unwrap());
    for n in 0..2000u32 {
        journal.put(&n.to_le_bytes(), &[&[2; 100]]).unwrap();
        settle(&journal, journal.delete(&n.to_le_bytes()).unwrap());
    }
    drop(journal);
    let (journal, replay) = open(dir.path());
    assert_eq!(
        replayed(replay),
        Model::from([(b"stays".to_vec(), vec![1; 100])])
    );
    let stats = journal.stats();
    let bound = 4 * stats.live_bytes + 8 * u64::from(SMALL.segment_bytes);
    assert!(stats.disk_bytes <= bound, "{stats:?}");
    let files: u64 = segments(dir.path())
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .sum();
    assert_eq!(files, stats.disk_bytes);
}

/// Ten million messages with 200,000 alive, 4 times + 256 MB, at a fortieth of the scale; the
/// example `churn` runs it in full.
#[test]
fn churn_stays_within_four_times_the_live_bytes_and_the_slack() {
    const MESSAGES: u64 = 250_000;
    const ALIVE: u64 = 5_000;
    let standard = Options::default();
    let options = Options {
        segment_bytes: standard.segment_bytes / 40,
        backlog_bytes_max: standard.backlog_bytes_max / 40,
        compact_slack_bytes: standard.compact_slack_bytes / 40,
        ..standard
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (journal, _) = store.journal_with("queue", options).unwrap();
    let mut last = journal.put(b"retained", &[&[9; 300]]).unwrap();
    for n in 0..MESSAGES {
        last = loop {
            match journal.put(&n.to_be_bytes(), &[b"head", &[7; 296]]) {
                Ok(lsn) => break lsn,
                Err(Behind::Full { .. }) => settle(&journal, last),
                Err(error) => panic!("{error}"),
            }
        };
        // Most are acknowledged in order, some stay until far later.
        if let Some(old) = n.checked_sub(ALIVE) {
            let old = if old % 100 == 0 {
                old.saturating_sub(ALIVE)
            } else {
                old
            };
            last = loop {
                match journal.delete(&old.to_be_bytes()) {
                    Ok(lsn) => break lsn,
                    Err(_) => settle(&journal, last),
                }
            };
        }
        if n % 1000 == 0 {
            let stats = journal.stats();
            let bound = 4 * stats.live_bytes + 256_000_000 / 40;
            // What waits has its place already and is not on the disk yet.
            let on_disk = stats.disk_bytes - stats.backlog_bytes;
            assert!(on_disk <= bound, "after {n}: {stats:?}");
        }
    }
    let live = journal.stats().live_keys;
    drop((journal, store));
    assert_eq!(open_with(dir.path(), options).len() as u64, live);
}

fn open_with(directory: &Path, options: Options) -> Replay {
    Store::open(directory)
        .unwrap()
        .journal_with("queue", options)
        .unwrap()
        .1
}

#[test]
fn a_batch_cut_anywhere_is_gone_whole_and_the_record_before_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    settle(&journal, journal.put(b"before", &[b"1"]).unwrap());
    let path = segments(dir.path()).pop().unwrap();
    let begins = fs::metadata(&path).unwrap().len();
    let writes = [
        Change::Put {
            key: b"a",
            parts: &[b"2"],
        },
        Change::Delete { key: b"before" },
        Change::Delete { key: b"absent" },
        Change::Put {
            key: b"b",
            parts: &[b"3", b"4"],
        },
    ];
    let lsn = journal.batch(&writes).unwrap();
    settle(&journal, lsn);
    let ends = fs::metadata(&path).unwrap().len();
    let whole = snapshot(dir.path());
    for cut in begins..=ends {
        let torn = snapshot(whole.path());
        let path = segments(torn.path()).pop().unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(cut).unwrap();
        let (again, replay) = open(torn.path());
        let expected: Model = match cut == ends {
            true => [
                (b"a".to_vec(), b"2".to_vec()),
                (b"b".to_vec(), b"34".to_vec()),
            ]
            .into(),
            false => [(b"before".to_vec(), b"1".to_vec())].into(),
        };
        assert_eq!(replayed(replay), expected, "cut at {cut}");
        // And it goes on from there.
        settle(&again, again.put(b"after", &[b"5"]).unwrap());
        drop(again);
        let (_, replay) = open(torn.path());
        assert_eq!(replayed(replay).len(), expected.len() + 1, "cut at {cut}");
    }
}

#[test]
fn a_batch_lies_in_one_segment_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let value = vec![7; 1500];
    let parts: &[&[u8]] = &[&value];
    settle(&journal, journal.put(b"first", parts).unwrap());
    let two = [
        Change::Put { key: b"a", parts },
        Change::Put { key: b"b", parts },
    ];
    settle(&journal, journal.batch(&two).unwrap());
    assert_eq!(
        segments(dir.path()).len(),
        2,
        "no room for both in the first"
    );
    let three = [two[0], two[1], Change::Put { key: b"c", parts }];
    let refused = journal.batch(&three);
    assert!(
        matches!(refused, Err(Behind::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(journal.get(b"c").unwrap(), None);
    assert_eq!(journal.batch(&[]).unwrap(), journal.batch(&[]).unwrap());
}

#[test]
fn a_closed_journal_cut_anywhere_or_without_its_newest_segment_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    history(dir.path());
    let paths = segments(dir.path());
    let last = paths.last().unwrap();
    let whole = fs::read(last).unwrap();
    for cut in (0..whole.len()).step_by(13) {
        fs::write(last, &whole[..cut]).unwrap();
        let opened = try_open(dir.path(), Box::new(RealDisk));
        assert!(
            matches!(opened, Err(StoreError::Damaged { .. })),
            "cut at {cut}"
        );
        assert_eq!(fs::metadata(last).unwrap().len(), cut as u64);
    }
    fs::remove_file(last).unwrap();
    let opened = try_open(dir.path(), Box::new(RealDisk));
    assert!(matches!(opened, Err(StoreError::Damaged { .. })));
    fs::write(last, &whole).unwrap();
    open(dir.path());
}

#[test]
fn a_journal_without_its_oldest_segment_is_refused_unless_that_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for n in 0..200_u8 {
        // The first keys are put anew all the time, so that the oldest segments die.
        settle(&journal, journal.put(&[n % 50], &[&[n; 1000]]).unwrap());
    }
    journal.close();
    drop(journal);
    let paths = segments(dir.path());
    assert!(!paths[0].ends_with("00000001.log"), "{paths:?}");
    assert!(paths.len() > 2);
    let alive = replayed(open(dir.path()).1);
    for key in 0..50_u8 {
        assert_eq!(alive[&[key][..]], [key + 150; 1000]);
    }
    let oldest = segments(dir.path()).remove(0);
    let whole = fs::read(&oldest).unwrap();
    fs::remove_file(&oldest).unwrap();
    let opened = try_open(dir.path(), Box::new(RealDisk));
    assert!(matches!(opened, Err(StoreError::Damaged { .. })));
    fs::write(&oldest, whole).unwrap();
    assert_eq!(replayed(open(dir.path()).1), alive);
    // One of before deletions were noted is taken as it is.
    let mark = dir.path().join("journals/queue.mark");
    let text = fs::read_to_string(&mark).unwrap();
    let older: Vec<&str> = text.split_whitespace().take(2).collect();
    fs::write(&mark, older.join(" ")).unwrap();
    assert_eq!(replayed(open(dir.path()).1), alive);
}

#[test]
fn after_a_crash_a_segment_that_was_begun_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    for n in 0..20_u8 {
        settle(&journal, journal.put(&[n], &[&[n; 1000]]).unwrap());
    }
    // What the directory holds now is what a crash would leave.
    let (mark, crashed) = (dir.path().join("journals/queue.mark"), snapshot(dir.path()));
    fs::copy(mark, crashed.path().join("journals/queue.mark")).unwrap();
    let newest = segments(crashed.path()).pop().unwrap();
    let whole = fs::read(&newest).unwrap();
    // Of its records nobody can tell; its header was durable.
    fs::write(&newest, &whole[..31]).unwrap();
    let opened = try_open(crashed.path(), Box::new(RealDisk));
    assert!(matches!(opened, Err(StoreError::Damaged { .. })));
    fs::remove_file(&newest).unwrap();
    let opened = try_open(crashed.path(), Box::new(RealDisk));
    assert!(matches!(opened, Err(StoreError::Damaged { .. })));
    fs::write(&newest, &whole[..32]).unwrap();
    open(crashed.path());
}

#[test]
fn a_journal_that_was_closed_is_whole_though_a_clone_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let leaked = journal.clone();
    journal.put(b"a", &[b"1"]).unwrap();
    journal.close();
    let before = leaked.durable();
    let lost = leaked.put(b"b", &[b"2"]).unwrap();
    assert!(matches!(
        leaked.wait_durable(lost),
        Err(StoreError::Failed { .. })
    ));
    assert_eq!(leaked.durable(), before);
    let closed = snapshot(dir.path());
    let whole = fs::metadata(&segments(closed.path())[0]).unwrap().len();
    assert!(whole > 32 + 28, "the record and the one that closes");
    assert_eq!(replayed(open(closed.path()).1)[&b"a"[..]], b"1");
}
