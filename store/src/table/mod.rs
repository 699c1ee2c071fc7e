//! Tables: ordered keyed rows with revisions, compare-and-set, atomic batches and watch, kept in
//! sled, many in a chunk (`chunk.rs`). Every answer speaks of durable state only: a batch returns once its commit is on
//! the disk, and a read that meets a row still on its way there waits for it.

mod chunk;
mod commit;
mod group;
mod head;
mod mark;
mod redo;
mod rewrite;
mod room;
mod spill;
mod touched;
mod watch;
mod window;

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::envelope::{self, Stored};
use crate::error::StoreError;
use crate::lock::DirectoryLock;
use commit::Commit;
use group::Waiting;
use head::Head;
use mark::Mark;
use redo::Redo;
use watch::Hub;
pub use watch::{Event, WATCH_CHANGES_MAX, WATCH_KEYS_MAX, Watch, WatchStop};

/// Longest key of a row, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value of a row, in bytes; larger content belongs into blobs.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Most writes of one batch.
pub const BATCH_WRITES_MAX: usize = 65_536;
/// sled's page cache, in bytes: what is hot is cached by the rooms above.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Holds what is known of the tree as a whole, written in the same atomic batch as its rows: [`Head`]. No row key can
/// be this: 0xFF never occurs in UTF-8.
const HEAD_KEY: &[u8] = &[0xff];

/// A row as read: its value and the revision of the batch that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<T = Vec<u8>> {
    /// The store's revision at which the row was last put.
    pub revision: u64,
    /// The value: bytes, or what `get_as` and `scan_as` made of them.
    pub value: T,
}

/// What must hold of a row for a write to it (and so its whole batch) to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is no such row.
    Absent,
    /// The row is there, last put at this revision.
    Revision(u64),
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Make the row have this value.
    Put {
        /// The row.
        key: String,
        /// Its new value, at most [`VALUE_BYTES_MAX`].
        value: Vec<u8>,
        /// The condition.
        expect: Expect,
    },
    /// Change nothing, but let the batch fail where the condition does not hold: what a decision was read from.
    Check {
        /// The row.
        key: String,
        /// The condition.
        expect: Expect,
    },
    /// Make the row not be. Deleting an absent row with [`Expect::Any`] is no error.
    Delete {
        /// The row.
        key: String,
        /// The condition.
        expect: Expect,
    },
}

impl Write {
    /// A put of a typed value in its versioned envelope; read it with [`Table::get_as`].
    ///
    /// # Errors
    /// [`StoreError::Encode`] where the value cannot be serialised.
    pub fn put<T: Stored>(
        key: impl Into<String>,
        value: &T,
        expect: Expect,
    ) -> Result<Write, StoreError> {
        let key = key.into();
        let value = envelope::encode(&key, value)?;
        Ok(Write::Put { key, value, expect })
    }

    /// The typed value that a put would write; `None` for what puts nothing.
    ///
    /// # Errors
    /// [`StoreError::Decode`] where it is not one.
    pub fn value_as<T: Stored>(&self) -> Result<Option<T>, StoreError> {
        match self {
            Write::Put { key, value, .. } => envelope::decode(key, value).map(Some),
            Write::Check { .. } | Write::Delete { .. } => Ok(None),
        }
    }

    /// A delete.
    pub fn delete(key: impl Into<String>, expect: Expect) -> Write {
        Write::Delete {
            key: key.into(),
            expect,
        }
    }

    /// The row it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        let (Write::Put { key, .. } | Write::Check { key, .. } | Write::Delete { key, .. }) = self;
        key
    }

    /// Bytes of its key and value.
    fn bytes(&self) -> usize {
        let value = match self {
            Write::Put { value, .. } => value.len(),
            Write::Check { .. } | Write::Delete { .. } => 0,
        };
        self.key().len() + value
    }

    fn expect(&self) -> Expect {
        let (Write::Put { expect, .. }
        | Write::Check { expect, .. }
        | Write::Delete { expect, .. }) = self;
        *expect
    }
}

/// All tables of a store: one sled database, one counter of revisions, one order of commits.
pub(crate) struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    tables: Mutex<HashMap<String, Arc<Opened>>>,
    commit: Commit,
    /// The revision at open: every later change of a table is told to its hub.
    opened_at: u64,
    // Last: released after the database has been flushed and closed.
    _lock: Arc<DirectoryLock>,
}

struct Opened {
    tree: sled::Tree,
    /// Held for writing while a batch is applied and for reading during a read: sled's own
    /// iterator would see half of a batch.
    rows: RwLock<()>,
    /// The newest applied revision that deleted a row, told before it is applied.
    deleted: AtomicU64,
    /// Bytes of all chunks. Changed by the one batch that is applied.
    live: AtomicU64,
    hub: Arc<Hub>,
    /// Batches that wait for their turn.
    waiting: Waiting,
}

impl Opened {
    /// The chunk that has this row if any has: its key and its bytes.
    fn chunk_of(&self, key: &str) -> Result<Option<(sled::IVec, sled::IVec)>, StoreError> {
        let up_to = (Bound::Unbounded, Bound::Included(key.as_bytes()));
        let last = self.tree.range::<&[u8], _>(up_to).next_back();
        last.transpose().map_err(StoreError::database("read"))
    }
}

impl Database {
    pub(crate) fn open(directory: &Path, lock: Arc<DirectoryLock>) -> Result<Database, StoreError> {
        let (db, path) = rewrite::open_current(directory, rewrite::Bounds::default())?;
        let mut revision = 0;
        for name in db.tree_names() {
            let tree = db
                .open_tree(&name)
                .map_err(StoreError::database("open a table"))?;
            revision = revision.max(Head::of(&tree)?.unwrap_or_default().revision);
        }
        let mark = Mark::check(directory, &path, revision)?;
        let commit = Commit::new(db, &path, revision, mark, Redo::new(directory))?;
        let tables = Mutex::default();
        Ok(Database {
            shared: Arc::new(Shared {
                directory: directory.to_path_buf(),
                tables,
                commit,
                opened_at: revision,
                _lock: lock,
            }),
        })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.shared.commit.durable()
    }

    pub(crate) fn table(&self, name: &str) -> Result<Table, StoreError> {
        let mut tables = self.shared.tables.lock();
        let opened = if let Some(opened) = tables.get(name) {
            Arc::clone(opened)
        } else {
            let tree = self.shared.commit.tree(name)?;
            let opened = Arc::new(Opened {
                live: AtomicU64::new(Head::of(&tree)?.unwrap_or_default().live_bytes),
                tree,
                rows: RwLock::new(()),
                deleted: AtomicU64::new(0),
                hub: Arc::new(Hub::new(self.shared.opened_at)),
                waiting: Waiting::default(),
            });
            tables.insert(name.to_owned(), Arc::clone(&opened));
            opened
        };
        Ok(Table {
            opened,
            shared: Arc::clone(&self.shared),
        })
    }

    pub(crate) fn close(&self) {
        self.shared.stop_watches();
        self.shared.commit.close();
    }

    pub(crate) fn stop_watches(&self) {
        self.shared.stop_watches();
    }
}

impl Shared {
    fn stop_watches(&self) {
        for opened in self.tables.lock().values() {
            opened.hub.close();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop_watches();
        self.commit.close();
    }
}

/// One ordered collection of rows. Cheap to clone; all calls may block on the disk.
#[derive(Clone)]
pub struct Table {
    // Before `shared`: the tree must be gone when the database closes.
    opened: Arc<Opened>,
    shared: Arc<Shared>,
}

impl Table {
    /// Whether changes can still be made; a failed commit (disk full, mostly) ends that until the next start.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with what failed.
    pub fn writable(&self) -> Result<(), StoreError> {
        self.shared.commit.check()
    }

    /// The row of this key. Waits where its newest change is still on its way to the disk.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Failed`].
    pub fn get(&self, key: &str) -> Result<Option<Row>, StoreError> {
        // While a chunk is split its rows are in two places or in none.
        let guard = self.opened.rows.read();
        let chunk = self.opened.chunk_of(key)?;
        drop(guard);
        let row = match &chunk {
            Some((_, bytes)) => chunk::find(bytes, key.as_bytes())?
                .map(|value| read_row(key, value))
                .transpose()?,
            None => None,
        };
        let seen = match &row {
            Some(row) => row.revision,
            None => self.opened.deleted.load(Ordering::Acquire),
        };
        self.shared.commit.wait(seen)?;
        Ok(row)
    }

    /// The row of this key, out of its envelope.
    ///
    /// # Errors
    /// As [`Table::get`]; [`StoreError::Newer`] or [`StoreError::Decode`] where the value is not
    /// one this release can read as a `T`.
    pub fn get_as<T: Stored>(&self, key: &str) -> Result<Option<Row<T>>, StoreError> {
        let Some(row) = self.get(key)? else {
            return Ok(None);
        };
        Ok(Some(Row {
            revision: row.revision,
            value: envelope::decode(key, &row.value)?,
        }))
    }

    /// At most `limit` rows whose key begins with `prefix` and is greater than `after`, in the
    /// order of their keys, all as of one moment. The next page's `after` is the last key.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, StoreError> {
        let after = after.filter(|after| *after >= prefix);
        let from = after.unwrap_or(prefix).as_bytes();
        let mut rows = Vec::new();
        let guard = self.opened.rows.read();
        let before = self.opened.chunk_of(after.unwrap_or(prefix))?;
        let start = match &before {
            Some((first, _)) => Bound::Included(&first[..]),
            None => Bound::Included(from),
        };
        let end = Bound::Excluded(HEAD_KEY);
        for pair in self.opened.tree.range::<&[u8], _>((start, end)) {
            let (_, bytes) = pair.map_err(StoreError::database("read"))?;
            let more = chunk::each(&bytes, |key, value| {
                if key < from || (after.is_some() && key == from) {
                    return Ok(true);
                }
                if rows.len() == limit || !key.starts_with(prefix.as_bytes()) {
                    return Ok(false);
                }
                let key = String::from_utf8_lossy(key).into_owned();
                let row = read_row(&key, value)?;
                rows.push((key, row));
                Ok(true)
            })?;
            if !more {
                break;
            }
        }
        let deleted = self.opened.deleted.load(Ordering::Acquire);
        drop(guard);
        let newest = rows.iter().map(|(_, row)| row.revision).max().unwrap_or(0);
        self.shared.commit.wait(newest.max(deleted))?;
        Ok(rows)
    }

    /// As [`Table::scan`], each value out of its envelope.
    ///
    /// # Errors
    /// As [`Table::get_as`].
    pub fn scan_as<T: Stored>(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row<T>)>, StoreError> {
        let typed = |(key, row): (String, Row)| {
            let value = envelope::decode(&key, &row.value)?;
            Ok((
                key,
                Row {
                    revision: row.revision,
                    value,
                },
            ))
        };
        self.scan(prefix, after, limit)?
            .into_iter()
            .map(typed)
            .collect()
    }

    /// Does all of `writes` or none, and returns their revision once they are durable. Callers on
    /// many threads share one flush. An empty batch does nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where an expectation did not hold, a bound's error for a key,
    /// value or batch past it, [`StoreError::Full`] (each: nothing was written); [`StoreError::Failed`] and
    /// [`StoreError::Database`] where the outcome is known at the next start only.
    pub fn batch(&self, writes: &[Write]) -> Result<u64, StoreError> {
        check(writes)?;
        if writes.is_empty() {
            return Ok(self.shared.commit.durable());
        }
        room::check(
            &self.shared.directory,
            writes.len(),
            writes.iter().map(Write::bytes).sum(),
        )?;
        group::batch(&self.shared.commit, &self.opened, writes)
    }

    /// Follows the batches of this table after `from_revision` (see [`crate::Store::revision`]). What was committed before
    /// this call and after that revision may come as [`Event::Lagged`].
    #[must_use]
    pub fn watch(&self, from_revision: u64) -> Watch {
        Watch::new(Arc::clone(&self.opened.hub), from_revision)
    }
}

fn check(writes: &[Write]) -> Result<(), StoreError> {
    if writes.len() > BATCH_WRITES_MAX {
        return Err(StoreError::BatchTooLarge {
            length: writes.len(),
            limit: BATCH_WRITES_MAX,
        });
    }
    let mut keys = HashSet::with_capacity(writes.len());
    for write in writes {
        let key = write.key();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(StoreError::KeyLength {
                length: key.len(),
                limit: KEY_BYTES_MAX,
            });
        }
        if let Write::Put { value, .. } = write
            && value.len() > VALUE_BYTES_MAX
        {
            let (key, length, limit) = (key.to_owned(), value.len(), VALUE_BYTES_MAX);
            return Err(StoreError::ValueTooLarge { key, length, limit });
        }
        if !keys.insert(key) {
            return Err(StoreError::DuplicateKey {
                key: key.to_owned(),
            });
        }
    }
    Ok(())
}

fn read_revision(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn read_row(key: &str, bytes: &[u8]) -> Result<Row, StoreError> {
    match bytes.split_first_chunk() {
        Some((revision, value)) => Ok(Row {
            revision: u64::from_be_bytes(*revision),
            value: value.to_vec(),
        }),
        None => Err(StoreError::Decode {
            key: key.to_owned(),
            reason: "it is too short to carry its revision".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
