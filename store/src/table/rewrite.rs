//! The database's place on the disk, and its rewriting: sled does not give space back under churn,
//! so a database far larger than its rows is copied into a fresh one when it is opened.
//!
//! So is one whose rows or whose log lie as an earlier release put them.
//!
//! The database lives in `tables.N`. A copy is made as `tables.N+1.new` and takes over by one
//! rename to `tables.N+1`, once it is durable. The highest N without `.new` is the one that
//! counts; all else is what a crash left and goes. So there is no moment without a whole database.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::chunk::{self, Chunk};
use super::head::Head;
use super::redo::Redo;
use super::spill::Spilled;
use super::window::{self, Edit, Window};
use super::{CACHE_BYTES, HEAD_KEY, StoreError, read_revision};
use crate::files::{create_directory, sync_directory};
use crate::room;

/// When a database is rewritten. Rows that come in order take about 1.7 bytes for each byte of theirs, rows that come in
/// any order up to five, whatever is done; what is past the bound is garbage that sled keeps for good. It must be far
/// past what rows take by themselves, or a large registry would be copied at each start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Only past so many bytes on the disk for each byte of keys and values,
    pub(super) amplification_max: u64,
    /// and so many bytes more: small databases are let be.
    pub(super) slack_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            amplification_max: 8,
            slack_bytes: 64 * 1024 * 1024,
        }
    }
}

/// How long sled's threads may take to let go of a database after its last handle.
const RELEASE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const RELEASE_STEP: Duration = Duration::from_millis(2);
/// Rows copied per batch.
const COPY_ROWS: usize = 1000;

/// Opens the database below `directory`, rewritten where it is due; also tells its path.
pub(super) fn open_current(
    directory: &Path,
    bounds: Bounds,
) -> Result<(sled::Db, PathBuf), StoreError> {
    let generation = settle(directory)?;
    let path = path_of(directory, generation);
    create_directory(&path, 0o700)?;
    let (db, segments) = open(&path)?;
    Redo::new(directory).recover(&db, &path)?;
    let on_disk = db.size_on_disk().map_err(StoreError::database("measure"))?;
    let live = match segments {
        Segments::Now => live_bytes(&db)?,
        Segments::Before => None,
    };
    if let Some(live) = live
        && on_disk
            <= live
                .saturating_mul(bounds.amplification_max)
                .saturating_add(bounds.slack_bytes)
    {
        return Ok((db, path));
    }
    // Rows packed into chunks take less than they did.
    let needed = live.unwrap_or(on_disk).saturating_mul(2);
    match (live, room::check(directory, needed, 0)) {
        (Some(live), Ok(())) => {
            tracing::info!(on_disk, live, "rewriting the tables to give space back")
        }
        (Some(live), Err(error)) => {
            tracing::warn!(on_disk, live, %error, "the tables could not be rewritten to give space back");
            return Ok((db, path));
        }
        (None, room) => {
            room?;
            tracing::info!(
                on_disk,
                "rewriting the tables: they lie otherwise from now on"
            );
        }
    }
    let fresh = directory.join(format!("tables.{}.new", generation + 1));
    copy(&db, &fresh)?;
    drop(db);
    let path = path_of(directory, generation + 1);
    fs::rename(&fresh, &path).map_err(|e| StoreError::io("rename", &fresh, e))?;
    sync_directory(directory)?;
    settle(directory)?;
    let (db, _) = open(&path)?;
    Ok((db, path))
}

fn path_of(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("tables.{generation}"))
}

/// Finds the generation that counts (1 where there is none) and removes what a crash left.
fn settle(directory: &Path) -> Result<u64, StoreError> {
    let list = |e| StoreError::io("list", directory, e);
    let mut generations = Vec::new();
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(rest) = name.strip_prefix("tables.") else {
            continue;
        };
        if let Some(number) = rest.strip_suffix(".new") {
            if number.parse::<u64>().is_ok() {
                leftovers.push(path);
            }
        } else if let Ok(generation) = rest.parse::<u64>() {
            generations.push(generation);
        }
    }
    generations.sort_unstable();
    let current = generations.pop().unwrap_or(1);
    leftovers.extend(generations.iter().map(|older| path_of(directory, *older)));
    for path in leftovers {
        fs::remove_dir_all(&path).map_err(|e| StoreError::io("remove", &path, e))?;
    }
    Ok(current)
}

/// Of what size the segments of a database's log are, which sled cannot change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Segments {
    Now,
    Before,
}

fn open(path: &Path) -> Result<(sled::Db, Segments), StoreError> {
    let mut segments = Segments::Now;
    let deadline = Instant::now() + RELEASE;
    loop {
        let config = sled::Config::new()
            .path(path)
            .segment_size(match segments {
                Segments::Now => window::SEGMENT_BYTES,
                Segments::Before => window::SEGMENT_BYTES_BEFORE,
            })
            .cache_capacity(CACHE_BYTES)
            // Every commit flushes; a timer would only flush what nobody waits for.
            .flush_every_ms(None);
        match config.open() {
            Ok(db) => {
                sync_directory(path)?;
                return Ok((db, segments));
            }
            // The directory's lock is ours, so what holds the database is a thread of sled's that
            // outlives the handle dropped a moment ago.
            Err(sled::Error::Io(e))
                if e.to_string().contains("could not acquire lock")
                    && Instant::now() < deadline =>
            {
                thread::sleep(RELEASE_STEP);
            }
            Err(sled::Error::Unsupported(_)) if segments == Segments::Now => {
                segments = Segments::Before;
            }
            Err(source) => {
                return Err(StoreError::Database {
                    what: "open",
                    source,
                });
            }
        }
    }
}

/// What the tables say of themselves: a large database is not gone through at every start. `None` where one of them
/// must be rewritten anyway.
fn live_bytes(db: &sled::Db) -> Result<Option<u64>, StoreError> {
    let mut bytes: u64 = 0;
    for name in db.tree_names() {
        let tree = db
            .open_tree(&name)
            .map_err(StoreError::database("open a table"))?;
        let Some(head) = Head::of(&tree)? else {
            return Ok(None);
        };
        bytes = bytes.saturating_add(head.live_bytes);
    }
    Ok(Some(bytes))
}

/// Copies every table into a new database at `path`, its rows packed anew, and makes it durable.
fn copy(from: &sled::Db, path: &Path) -> Result<(), StoreError> {
    create_directory(path, 0o700)?;
    let (to, _) = open(path)?;
    let window = Window::default();
    for name in from.tree_names() {
        let source = from
            .open_tree(&name)
            .map_err(StoreError::database("open a table"))?;
        let target = to
            .open_tree(&name)
            .map_err(StoreError::database("open a table"))?;
        let target = Target {
            db: &to,
            tree: target,
            window: &window,
        };
        copy_table(&source, &target)?;
    }
    window.flush(&to)?;
    drop(to);
    Spilled::new(path).sync()?;
    let file = path.join("db");
    fs::File::open(&file)
        .and_then(|file| file.sync_all())
        .map_err(|e| StoreError::io("sync", &file, e))?;
    sync_directory(path)
}

/// A table of the new database.
struct Target<'a> {
    db: &'a sled::Db,
    tree: sled::Tree,
    window: &'a Window,
}

impl Target<'_> {
    /// Puts rows that come behind all that are there.
    fn put(&self, rows: Chunk, head: &mut Head) -> Result<(), StoreError> {
        let edits: Vec<_> = rows
            .pieces()
            .into_iter()
            .map(|(first, bytes)| Edit {
                key: first.to_vec(),
                bytes: Some(bytes),
            })
            .collect();
        for edit in &edits {
            head.live_bytes += edit.bytes();
        }
        self.apply(&edits)
    }

    fn finish(&self, head: Head) -> Result<(), StoreError> {
        self.apply(&[Edit {
            key: HEAD_KEY.to_vec(),
            bytes: Some(head.to_bytes().to_vec()),
        }])
    }

    fn apply(&self, edits: &[Edit]) -> Result<(), StoreError> {
        window::parts(edits)
            .into_iter()
            .try_for_each(|part| self.window.apply(self.db, &self.tree, part))
    }
}

fn copy_table(source: &sled::Tree, target: &Target<'_>) -> Result<(), StoreError> {
    if source.is_empty() {
        // sled has one tree of its own.
        return Ok(());
    }
    let in_chunks = Head::of(source)?.is_some();
    let (mut head, mut revision) = (Head::default(), 0);
    let mut rows = Chunk::default();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.append(key.to_vec(), value.to_vec());
        if rows.len() == COPY_ROWS {
            target.put(std::mem::take(&mut rows), &mut head)?;
        }
        Ok(true)
    };
    for pair in source {
        let (key, value) = pair.map_err(StoreError::database("read"))?;
        if key == HEAD_KEY {
            revision = read_revision(&value).unwrap_or(0);
        } else if in_chunks {
            chunk::each(&value, &mut take)?;
        } else {
            take(&key, &value)?;
        }
    }
    target.put(rows, &mut head)?;
    head.revision = revision;
    target.finish(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SMALL: Bounds = Bounds {
        amplification_max: 2,
        slack_bytes: 1024 * 1024,
    };
    const ROWS: u32 = 3000;

    type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

    fn rows(db: &sled::Db) -> Rows {
        let tree = db.open_tree("t").unwrap();
        let mut rows = Rows::new();
        for pair in &tree {
            let (key, value) = pair.unwrap();
            if key != HEAD_KEY {
                let take = |key: &[u8], value: &[u8]| {
                    rows.insert(key.to_vec(), value.to_vec());
                    Ok(true)
                };
                chunk::each(&value, take).unwrap();
            }
        }
        rows
    }

    /// Puts rows, each in a chunk of its own.
    fn put_alone(db: &sled::Db, rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
        let mut head = Head {
            revision: 1,
            live_bytes: 0,
        };
        let target = Target {
            db,
            tree: db.open_tree("t").unwrap(),
            window: &Window::default(),
        };
        let mut edits = Vec::new();
        for (key, value) in rows {
            let mut chunk = Chunk::default();
            chunk.put(&key, value);
            edits.extend(chunk.pieces().into_iter().map(|(first, bytes)| Edit {
                key: first.to_vec(),
                bytes: Some(bytes),
            }));
        }
        head.live_bytes = edits.iter().map(Edit::bytes).sum();
        target.apply(&edits).unwrap();
        target.finish(head).unwrap();
    }

    fn churn(db: &sled::Db) {
        for round in 0..20u8 {
            let row = |n: u32| (n.to_be_bytes().to_vec(), vec![round; 300]);
            put_alone(db, (0..ROWS).map(row));
            db.flush().unwrap();
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_database_far_larger_than_its_rows_is_rewritten_and_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let (db, _) = open_current(dir.path(), SMALL).unwrap();
        churn(&db);
        let (before, expected) = (db.size_on_disk().unwrap(), rows(&db));
        assert!(
            before > 2 * live_bytes(&db).unwrap().unwrap() + SMALL.slack_bytes,
            "{before}"
        );
        drop(db);
        let (db, path) = open_current(dir.path(), SMALL).unwrap();
        assert_eq!(path, path_of(dir.path(), 2));
        assert_eq!(rows(&db), expected);
        assert!(db.size_on_disk().unwrap() < before);
        assert_eq!(names(dir.path()), ["tables.2"]);
        drop(db);
        // Within the bounds it is let be.
        let (_db, path) = open_current(dir.path(), Bounds::default()).unwrap();
        assert_eq!(path, path_of(dir.path(), 2));
    }

    #[test]
    fn a_crash_at_any_step_of_the_rewriting_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (db, path) = open_current(dir.path(), Bounds::default()).unwrap();
        put_alone(&db, [(b"k".to_vec(), b"v".to_vec())].into_iter());
        let expected = rows(&db);
        // In the middle of the copy: a new database that is not whole.
        let fresh = dir.path().join("tables.2.new");
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("db"), b"half").unwrap();
        drop(db);
        let (db, current) = open_current(dir.path(), Bounds::default()).unwrap();
        assert_eq!((&current, rows(&db)), (&path, expected.clone()));
        assert_eq!(names(dir.path()), ["tables.1"]);
        // After the rename, before the old one is gone.
        copy(&db, &path_of(dir.path(), 2)).unwrap();
        drop(db);
        let (db, current) = open_current(dir.path(), Bounds::default()).unwrap();
        assert_eq!((current, rows(&db)), (path_of(dir.path(), 2), expected));
        assert_eq!(names(dir.path()), ["tables.2"]);
    }

    #[test]
    fn rows_are_packed_anew_where_many_of_a_chunk_have_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (db, _) = open_current(dir.path(), Bounds::default()).unwrap();
        let row = |n: u32| (format!("lamp/{n:06}").into_bytes(), vec![1; 20]);
        put_alone(&db, (0..ROWS).map(row));
        let expected = rows(&db);
        copy(&db, &path_of(dir.path(), 2)).unwrap();
        drop(db);
        let (db, _) = open_current(dir.path(), Bounds::default()).unwrap();
        assert_eq!(rows(&db), expected);
        let tree = db.open_tree("t").unwrap();
        assert!(tree.len() < ROWS as usize / 10, "{} chunks", tree.len());
        let head = Head::of(&tree).unwrap().unwrap();
        assert_eq!(head.live_bytes, super::super::head::count(&tree).unwrap());
    }

    #[test]
    fn rows_of_before_there_were_chunks_are_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let db = sled::Config::new()
            .path(path_of(directory.path(), 1))
            .segment_size(window::SEGMENT_BYTES_BEFORE)
            .open()
            .unwrap();
        let tree = db.open_tree("t").unwrap();
        let row = |n: u64| [&n.to_be_bytes()[..], &vec![b'v'; (n % 700) as usize]].concat();
        let key = |n: u64| format!("thing/lamp-{n:05}");
        tree.insert(HEAD_KEY, &3000_u64.to_be_bytes()).unwrap();
        for n in 0..2500 {
            tree.insert(key(n), row(n)).unwrap();
            if n % 50 == 0 {
                db.flush().unwrap();
            }
        }
        drop((tree, db));
        let store = crate::Store::open(directory.path()).unwrap();
        assert_eq!(store.revision(), 3000);
        let table = store.table("t").unwrap();
        let all = table.scan("thing/", None, 5000).unwrap();
        assert_eq!(all.len(), 2500);
        for (n, (found, row)) in (0..).zip(&all) {
            assert_eq!((found, row.revision), (&key(n), n));
            assert_eq!(row.value.len() as u64, n % 700);
            assert_eq!(table.get(found).unwrap().as_ref(), Some(row));
        }
        assert_eq!(
            names(directory.path())
                .iter()
                .filter(|name| name.starts_with("tables."))
                .count(),
            1
        );
    }

    #[test]
    fn a_log_of_smaller_segments_is_copied_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_of(directory.path(), 1);
        let before = sled::Config::new()
            .path(&path)
            .segment_size(window::SEGMENT_BYTES_BEFORE);
        let db = before.open().unwrap();
        let row = |n: u32| (format!("lamp/{n:06}").into_bytes(), vec![1; 20]);
        put_alone(&db, (0..ROWS).map(row));
        let expected = rows(&db);
        drop(db);
        for _ in 0..2 {
            let (db, path) = open_current(directory.path(), Bounds::default()).unwrap();
            assert_eq!(path, path_of(directory.path(), 2));
            assert_eq!(rows(&db), expected);
        }
    }
}
