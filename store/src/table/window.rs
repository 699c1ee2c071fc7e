//! How much is written to sled's log between two flushes, and why that has a bound.
//!
//! sled writes the buffers of its log, and cuts the free end off its file, in one pool of some seven threads. Each write
//! ends by taking the lock of the list of segments; whoever needs a new segment at the file's end takes that lock and,
//! holding it, waits for a cut that is still queued. Where as many writes are ahead of the cut in the queue as the pool
//! has threads, all of them wait for the lock and the cut for one of them: the database stands still for good
//! (`SegmentAccountant::bump_tip` of sled 0.34.7; nothing outside can end it).
//!
//! A cut leaves at least one free segment, so a whole segment of log is written between the cut and whoever waits for
//! it. Where a flush falls in between, all that was ahead of the cut in the queue is in the file by then. And a batch of
//! a window's size is too few writes to fill the pool, even where much more comes of it than was reckoned with.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;

/// A segment of sled's log, in bytes. Its own default is a quarter of that; larger ones make the window larger, and a
/// buffer of this size lies in memory.
pub(super) const SEGMENT_BYTES: usize = 2 * 1024 * 1024;
/// What it was in databases of earlier releases: they are copied when they are opened.
pub(super) const SEGMENT_BYTES_BEFORE: usize = 512 * 1024;
/// Most log between two flushes, in bytes, as it is reckoned beforehand; what comes of it is less than a segment.
const WINDOW_BYTES: u64 = SEGMENT_BYTES as u64 / 4;

/// One change of the database: a key, and its bytes or that it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) key: Vec<u8>,
    pub(super) bytes: Option<Vec<u8>>,
}

impl Edit {
    /// About the most log that it makes, in bytes, as measured: itself; every tenth change of a page, of sixteen such and
    /// more, writes it anew, and moves another out of a segment that is mostly garbage. Often all pages are due together.
    fn log_bytes(&self) -> u64 {
        const SMALL: u64 = 1024;
        if self.bytes.is_none() {
            // How large what goes was is not known.
            return 6 * SMALL;
        }
        let bytes = self.bytes();
        SMALL + 3 * bytes.min(SMALL) + 16 * bytes.saturating_sub(SMALL)
    }

    /// Bytes of it and its key.
    pub(super) fn bytes(&self) -> u64 {
        (self.key.len() + self.bytes.as_ref().map_or(0, Vec::len)) as u64
    }
}

/// Cuts edits into parts of which each fits into a window; one edit always does.
pub(super) fn parts(edits: &[Edit]) -> Vec<&[Edit]> {
    let (mut parts, mut from, mut used) = (Vec::new(), 0, 0);
    for (at, edit) in edits.iter().enumerate() {
        let bytes = edit.log_bytes();
        if used + bytes > WINDOW_BYTES && at > from {
            parts.extend(edits.get(from..at));
            (from, used) = (at, 0);
        }
        used += bytes;
    }
    parts.extend(edits.get(from..).filter(|rest| !rest.is_empty()));
    parts
}

/// What was written since the newest flush began. Only one thread at a time may write.
#[derive(Debug, Default)]
pub(super) struct Window {
    used_bytes: AtomicU64,
}

impl Window {
    /// Writes `edits`, all or none, behind a flush where they might not fit otherwise.
    pub(super) fn apply(
        &self,
        db: &sled::Db,
        tree: &sled::Tree,
        edits: &[Edit],
    ) -> Result<(), StoreError> {
        let bytes: u64 = edits.iter().map(Edit::log_bytes).sum();
        if self.used_bytes.load(Ordering::Relaxed) + bytes > WINDOW_BYTES {
            self.flush(db)?;
        }
        let mut batch = sled::Batch::default();
        for Edit { key, bytes } in edits {
            match bytes {
                Some(bytes) => batch.insert(key.as_slice(), bytes.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        let applied = tree
            .apply_batch(batch)
            .map_err(StoreError::database("write"));
        // Afterwards: a flush that began meanwhile has not seen all of it.
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        applied
    }

    /// Returns when all that was written before is in the file (which is not yet to say on the disk).
    pub(super) fn flush(&self, db: &sled::Db) -> Result<(), StoreError> {
        self.used_bytes.store(0, Ordering::Relaxed);
        db.flush().map(drop).map_err(StoreError::database("flush"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(number: usize, bytes: usize) -> Edit {
        Edit {
            key: format!("{number:06}").into_bytes(),
            bytes: Some(vec![1; bytes]),
        }
    }

    fn log_bytes(edits: &[Edit]) -> u64 {
        edits.iter().map(Edit::log_bytes).sum()
    }

    #[test]
    fn parts_are_all_edits_in_order_each_within_a_window_or_alone() {
        for (rows, bytes) in [(3000, 0), (3000, 600), (300, 5000), (20, 300_000)] {
            let edits: Vec<_> = (0..rows).map(|number| edit(number, bytes)).collect();
            let parts = parts(&edits);
            assert_eq!(parts.concat(), edits);
            for part in &parts {
                assert!(part.len() == 1 || log_bytes(part) <= WINDOW_BYTES);
            }
            for pair in parts.windows(2) {
                assert!(log_bytes(pair[0]) + pair[1][0].log_bytes() > WINDOW_BYTES);
            }
        }
        assert!(parts(&[]).is_empty());
    }

    const CHILD: &str = "STORE_WINDOW_TEST_DIRECTORY";

    /// Bytes that this process has written into files, among which the log's are nearly all.
    fn written_bytes() -> u64 {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        line.unwrap().parse().unwrap()
    }

    fn database(path: &std::path::Path) -> sled::Db {
        let config = sled::Config::new().path(path).segment_size(SEGMENT_BYTES);
        config.flush_every_ms(None).open().unwrap()
    }

    /// Changes `rows` rows in an order that is none, so that most of the log is garbage and its segments are cleaned,
    /// and holds what is written against what was reckoned with.
    fn churn(directory: &std::path::Path, rows: usize, bytes: usize, rounds: usize) {
        let db = database(&directory.join(format!("{bytes}")));
        let tree = db.open_tree("t").unwrap();
        let window = Window::default();
        let (mut number, mut most) = (1, 0.0_f64);
        for round in 0..rounds {
            let edits: Vec<_> = (0..rows / 2)
                .map(|_| {
                    number = (number * 48_271) % 0x7fff_ffff;
                    let mut edit = edit(number % rows, bytes / 2 + number % (bytes / 2 + 1));
                    if round % 7 == 6 {
                        edit.bytes = None;
                    }
                    edit
                })
                .collect();
            for part in parts(&edits) {
                window.flush(&db).unwrap();
                let before = written_bytes();
                window.apply(&db, &tree, part).unwrap();
                window.flush(&db).unwrap();
                let made = written_bytes() - before;
                assert!(
                    made < SEGMENT_BYTES as u64,
                    "rows of {bytes} bytes: {made} where {} were reckoned with",
                    log_bytes(part)
                );
                if round > rounds / 2 && part.len() > 10 {
                    most = most.max(made as f64 / log_bytes(part) as f64);
                }
            }
        }
        println!("rows of {bytes} bytes: at most {most:.2} of what is reckoned with");
    }

    #[test]
    fn no_more_log_is_written_than_is_reckoned_with() {
        if let Some(directory) = std::env::var_os(CHILD) {
            for (rows, bytes) in [(8000, 50), (4000, 500), (800, 3000), (400, 8000)] {
                churn(std::path::Path::new(&directory), rows, bytes, 24);
            }
            return;
        }
        // A process of its own: what it writes is counted.
        let directory = tempfile::tempdir().unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "no_more_log_is_written_than_is_reckoned_with",
                "--nocapture",
            ])
            .env(CHILD, directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
        println!("{said}");
    }
}
