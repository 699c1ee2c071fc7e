#![allow(unused, dead_code, clippy::todo)]
//! A journal: an append-only log of puts and deletes in which the newest record of a key is alive.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::lock::DirectoryLock;

/// The bounds of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of a segment file, in bytes.
    pub segment_bytes: u64,
    /// Most bytes put and not yet durable; a put past it gets [`Behind`].
    pub backlog_bytes_max: usize,
    /// Compaction keeps the segments at or below this many times the live bytes,
    pub compact_factor: u64,
    /// plus this many bytes.
    pub compact_slack_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 * 1024 * 1024,
            backlog_bytes_max: 64 * 1024 * 1024,
            compact_factor: 3,
            compact_slack_bytes: 160 * 1024 * 1024,
        }
    }
}

/// The position of a record in its journal; records become durable in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A record was not taken; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Behind {
    /// The disk is behind: so many bytes wait already. Try again after the next commit.
    #[error("{backlog_bytes} bytes wait for the disk, the bound is {limit_bytes}")]
    Full {
        /// Waiting, in bytes.
        backlog_bytes: usize,
        /// The bound in bytes.
        limit_bytes: usize,
    },
    /// Key or value is longer than a record may be; trying again does not help.
    #[error("a record of {length} bytes, the bound is {limit_bytes}")]
    TooLarge {
        /// Length of the record in bytes.
        length: usize,
        /// The bound in bytes.
        limit_bytes: usize,
    },
}

/// Whether the journal's writes reach the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They do.
    Good,
    /// The last try failed (said here); it is tried again, and nothing is durable meanwhile.
    Failing(Arc<str>),
}

/// What a journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys alive.
    pub live_keys: u64,
    /// Bytes of their records.
    pub live_bytes: u64,
    /// Bytes of all segments.
    pub disk_bytes: u64,
    /// Bytes put and not yet durable.
    pub backlog_bytes: u64,
}

/// An open journal. Cheap to clone; dropping the last clone makes everything durable.
#[derive(Clone)]
pub struct Journal {}

impl Journal {
    /// Makes `key` have the concatenation of `parts` as its value. Does not block: the record is
    /// durable once [`Journal::durable`] has reached the returned position.
    ///
    /// # Errors
    /// [`Behind`].
    pub fn put(&self, key: &[u8], parts: &[&[u8]]) -> Result<Lsn, Behind> {
        todo!()
    }
    /// Makes `key` not be; of an absent key, the position of the last record.
    ///
    /// # Errors
    /// [`Behind`].
    pub fn delete(&self, key: &[u8]) -> Result<Lsn, Behind> {
        todo!()
    }
    /// The newest value of `key`, durable or not yet.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }
    /// Everything up to here is on the disk. One atomic load.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        todo!()
    }
    /// Wakes `waker` once `lsn` is durable (at once where it is), and when a write fails: the woken
    /// task looks at [`Journal::durable`] and registers again where it is still behind.
    pub fn wake_when_durable(&self, lsn: Lsn, waker: &Waker) {
        todo!()
    }
    /// Blocks until `lsn` is durable.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where a write fails meanwhile.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), StoreError> {
        todo!()
    }
    /// Whether writes reach the disk.
    #[must_use]
    pub fn health(&self) -> Health {
        todo!()
    }
    /// What it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }
}

/// What was alive when the journal was opened: (key, value) in the order they were put.
pub struct Replay {}

impl Iterator for Replay {
    type Item = Result<(Bytes, Bytes), StoreError>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}

pub(crate) type OpenNames = Arc<Mutex<HashSet<String>>>;

/// The one live handle of a journal's name; holds the directory's lock.
pub(crate) struct Claim {
    name: String,
    names: OpenNames,
    _lock: Arc<DirectoryLock>,
}

impl Claim {
    pub(crate) fn new(
        name: &str,
        names: &OpenNames,
        lock: Arc<DirectoryLock>,
    ) -> Result<Claim, StoreError> {
        if !names.lock().insert(name.to_owned()) {
            return Err(StoreError::JournalOpen {
                name: name.to_owned(),
            });
        }
        Ok(Claim {
            name: name.to_owned(),
            names: Arc::clone(names),
            _lock: lock,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.names.lock().remove(&self.name);
    }
}

pub(crate) fn open(
    directory: &Path,
    options: Options,
    claim: Claim,
) -> Result<(Journal, Replay), StoreError> {
    todo!()
}
