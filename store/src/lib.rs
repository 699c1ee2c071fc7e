//! `store` keeps: the only room that touches the disk for state.
//! Tables (keyed rows with revisions, compare-and-set, watch), journals (append-only logs of
//! queued messages and sessions), blobs (content-addressed files), packs (files of many small values,
//! made from rows to be read fast) and whole files.
//! What a call acknowledged survives `kill -9` and power loss.
//! Below it lies nothing of ours; `fleet`, `broker`, `ota` and `control` keep their state here.

pub mod files;
pub mod journal;

mod blobs;
mod envelope;
mod error;
mod lock;
mod packs;
mod room;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use blobs::{BlobCheck, BlobWriter, Blobs};
pub use envelope::Stored;
pub use error::StoreError;
pub use journal::{Behind, Change, Health, Journal, Lsn, Replay};
pub use packs::{Pack, PackId, PackValues, PackWriter, Packs};
pub use table::{
    BATCH_WRITES_MAX, Event, Expect, KEY_BYTES_MAX, Row, Table, VALUE_BYTES_MAX, WATCH_CHANGES_MAX,
    WATCH_KEYS_MAX, Watch, WatchStop, Write,
};

/// An open data directory. Clones share it; the directory is released when the last clone and
/// the last table, journal and blob handle made from it are gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    tables: table::Database,
    journals: journal::OpenNames,
    // Last, so that it is released after everything above has been flushed and closed.
    lock: Arc<lock::DirectoryLock>,
}

impl Store {
    /// Opens `directory` (made with mode 0700 where it does not exist) and takes the exclusive
    /// lock on it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process, or another `Store`, has it open;
    /// [`StoreError::Io`] and its kin with the path and the mend otherwise.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let lock = Arc::new(lock::DirectoryLock::take(directory)?);
        Blobs::remove_leftovers(&directory.join("blobs"))?;
        let tables = table::Database::open(directory, Arc::clone(&lock))?;
        Ok(Store {
            inner: Arc::new(Inner {
                directory: directory.to_path_buf(),
                tables,
                journals: Arc::new(Mutex::default()),
                lock,
            }),
        })
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The revision of the newest durable batch in any table; 0 before the first.
    ///
    /// To follow a table without a gap: take the revision, begin to watch from it, then scan.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.inner.tables.revision()
    }

    /// Opens the table `name` (`[a-z0-9-]{1,64}`), empty where it is new.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a name outside the pattern, [`StoreError::Database`] otherwise.
    pub fn table(&self, name: &str) -> Result<Table, StoreError> {
        check_name(name)?;
        self.inner.tables.table(name)
    }

    /// Ends every [`Watch`] of this store: their `next` returns `None`, so that threads that
    /// follow a table (and may hold a `Store` themselves) can be joined.
    pub fn stop_watches(&self) {
        self.inner.tables.stop_watches();
    }

    /// At the end of the server: ends the watches and notes how far the tables have come, as
    /// dropping the last handle does; for who cannot know that no other is left.
    pub fn close(&self) {
        self.inner.tables.close();
    }

    /// Opens the journal `name` (`[a-z0-9-]{1,64}`) and reads it: the journal to append to, and
    /// what is alive in it now.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names file and offset where the journal is not what was written;
    /// [`StoreError::JournalOpen`] where a handle to it is still alive.
    pub fn journal(&self, name: &str) -> Result<(Journal, Replay), StoreError> {
        self.journal_with(name, journal::Options::default())
    }

    /// As [`Store::journal`], with other bounds than the default ones.
    ///
    /// # Errors
    /// As [`Store::journal`].
    pub fn journal_with(
        &self,
        name: &str,
        options: journal::Options,
    ) -> Result<(Journal, Replay), StoreError> {
        check_name(name)?;
        let directory = self.inner.directory.join("journals").join(name);
        let claim = journal::Claim::new(name, &self.inner.journals, Arc::clone(&self.inner.lock))?;
        journal::open(&directory, options, claim)
    }

    /// The packs of one kind, `[a-z0-9-]{1,64}`.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a name outside the pattern.
    pub fn packs(&self, name: &str) -> Result<Packs, StoreError> {
        check_name(name)?;
        let directory = self.inner.directory.join("packs").join(name);
        Ok(Packs::at(directory, Arc::clone(&self.inner.lock)))
    }

    /// The content-addressed files.
    ///
    /// # Errors
    /// [`StoreError::Io`] where their directory cannot be made or cleaned.
    pub fn blobs(&self) -> Result<Blobs, StoreError> {
        Blobs::at(
            &self.inner.directory.join("blobs"),
            Arc::clone(&self.inner.lock),
        )
    }
}

/// Longest name of a table or journal, in bytes.
const NAME_BYTES_MAX: usize = 64;

fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(StoreError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}
