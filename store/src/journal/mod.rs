//! A journal: an append-only log of puts and deletes in which the newest record of a key is alive.
//! It keeps what changes quickly (queued and retained messages, sessions): records go to segment
//! files that are deleted whole, oldest first, once nothing in them is alive.
//!
//! Putting never blocks on the disk: one thread per journal writes what waits as a group and syncs
//! it (`committer`), then [`Journal::durable`] moves on and who asked to be woken is.

mod committer;
mod compact;
mod mark;
mod record;
mod recover;
mod replay;
mod segment;
#[cfg(feature = "simulate")]
pub mod simulated;
mod state;
mod wakers;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::lock::DirectoryLock;
use committer::Committer;
use record::{Body, Kind};
pub use replay::Replay;
use segment::{Disk, RealDisk};
use state::{Location, State};
use wakers::Wakers;

/// Shortest a segment may be, in bytes.
const SEGMENT_BYTES_MIN: u32 = 4096;

/// The bounds of a journal.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of a segment file, in bytes.
    pub segment_bytes: u32,
    /// Most bytes put and not yet durable; a put past it gets [`Behind`].
    pub backlog_bytes_max: usize,
    /// Compaction starts when the segments are larger than this many times the live bytes
    pub compact_factor: u64,
    /// plus this many bytes.
    pub compact_slack_bytes: u64,
}

impl Default for Options {
    /// Compaction starts before the promise (at most 4 times the live bytes + 256 MB) is at stake,
    /// so that it is kept while compaction runs.
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

/// One change of a [`Journal::batch`].
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// See [`Journal::put`].
    Put {
        /// The key.
        key: &'a [u8],
        /// Its value is their concatenation.
        parts: &'a [&'a [u8]],
    },
    /// See [`Journal::delete`].
    Delete {
        /// The key.
        key: &'a [u8],
    },
}

impl<'a> Change<'a> {
    fn body(&self) -> Option<Body<'a>> {
        match *self {
            Change::Put { key, parts } => Body::new(Kind::Put, key, parts),
            Change::Delete { key } => Body::new(Kind::Delete, key, &[]),
        }
    }

    fn put_key(&self) -> Option<&'a [u8]> {
        match *self {
            Change::Put { key, .. } => Some(key),
            Change::Delete { .. } => None,
        }
    }

    /// Bytes of its record; saturates.
    fn length(&self) -> usize {
        let (key, parts) = match *self {
            Change::Put { key, parts } => (key, parts),
            Change::Delete { key } => (key, &[][..]),
        };
        parts
            .iter()
            .fold(key.len(), |sum, part| sum.saturating_add(part.len()))
            .saturating_add(record::HEADER_BYTES)
    }
}

/// A record was not taken; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Behind {
    /// The disk is behind, and so many bytes wait already, or it is nearly full. Try again after the next commit: there is
    /// one at the latest when it has room again.
    #[error(
        "{backlog_bytes} bytes wait for the disk, the bound is {limit_bytes}; or it is nearly full"
    )]
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

/// Why nothing new is taken although nothing failed.
const NEARLY_FULL: &str =
    "the disk is nearly full, what is left is for the registry and for deletions: make room";

/// Whether the journal's writes reach the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They do.
    Good,
    /// The last try failed, and is tried again, or the disk is nearly full (said here): nothing new is durable meanwhile.
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
pub struct Journal {
    handle: Arc<Handle>,
}

struct Shared {
    directory: PathBuf,
    disk: Box<dyn Disk>,
    /// Held for memory operations only, never across a system call.
    state: Mutex<State>,
    /// Tells the committer of records, of the end, of nothing else.
    work: Condvar,
    /// Tells `wait_durable` of a commit or a failure.
    committed: Condvar,
    durable: AtomicU64,
    wakers: Wakers,
    /// The record that says the journal was closed in order has been put.
    closed: AtomicBool,
    // Last: the name and the directory are free once all else is gone.
    _claim: Option<Claim>,
}

/// Ends the committer with the last clone of the journal.
struct Handle {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    fn close(&self) {
        self.shared.state.lock().stop = true;
        self.shared.work.notify_all();
        let committer = self.committer.lock().take();
        if let Some(committer) = committer {
            // A waker called by the committer may have dropped the last clone.
            if committer.thread().id() != thread::current().id() && committer.join().is_err() {
                tracing::error!("the journal's thread ended with a panic");
            }
        }
        // Nobody writes any more: who waits must not wait for ever.
        let mut state = self.shared.state.lock();
        state.failed.get_or_insert_with(|| "it was closed".into());
        drop(state);
        self.shared.committed.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal {
    /// Makes `key` have the concatenation of `parts` as its value. Does not block on the disk: the
    /// record is durable once [`Journal::durable`] has reached the returned position.
    ///
    /// # Errors
    /// [`Behind`].
    pub fn put(&self, key: &[u8], parts: &[&[u8]]) -> Result<Lsn, Behind> {
        self.batch(&[Change::Put { key, parts }])
    }

    /// Makes `key` not be. Of an absent key nothing is written; the position is then that of the
    /// last record, whatever it is, so waiting for it covers the delete that made the key absent. It is taken however much
    /// waits for the disk.
    ///
    /// # Errors
    /// [`Behind::TooLarge`].
    pub fn delete(&self, key: &[u8]) -> Result<Lsn, Behind> {
        self.batch(&[Change::Delete { key }])
    }

    /// Puts and deletes that become durable together or not at all, in their order.
    ///
    /// # Errors
    /// [`Behind`]; then nothing of it was written. A batch must fit in one segment.
    pub fn batch(&self, writes: &[Change<'_>]) -> Result<Lsn, Behind> {
        self.write(writes, false)
    }

    /// As [`Journal::put`], and also while the disk is nearly full, where [`Journal::has_room`] says so: only for what there
    /// is a bounded amount of, however long devices go on. Each is written again when it changes, so that is bounded too,
    /// by what compaction gives back.
    ///
    /// # Errors
    /// [`Behind`].
    pub fn put_bounded(&self, key: &[u8], parts: &[&[u8]]) -> Result<Lsn, Behind> {
        self.batch_bounded(&[Change::Put { key, parts }])
    }

    /// As [`Journal::batch`], of what [`Journal::put_bounded`] takes.
    ///
    /// # Errors
    /// [`Behind`]; then nothing of it was written.
    pub fn batch_bounded(&self, writes: &[Change<'_>]) -> Result<Lsn, Behind> {
        self.write(writes, true)
    }

    fn write(&self, writes: &[Change<'_>], bounded: bool) -> Result<Lsn, Behind> {
        let shared = &self.handle.shared;
        // The costly part, before the lock is taken.
        let bodies: Option<Vec<_>> = writes.iter().map(Change::body).collect();
        let mut state = shared.state.lock();
        let options = state.options;
        let limit_bytes = (options.segment_bytes - segment::HEADER_BYTES) as usize;
        let length = writes
            .iter()
            .fold(0_usize, |sum, write| sum.saturating_add(write.length()));
        let mut bodies = match bodies {
            Some(bodies) if length <= limit_bytes => bodies,
            _ => {
                return Err(Behind::TooLarge {
                    length,
                    limit_bytes,
                });
            }
        };
        let (backlog_bytes, limit_bytes) = (state.backlog_bytes, options.backlog_bytes_max);
        // What is larger than the bound goes alone. A deletion is never told to wait, so that nobody has to remember it and
        // nothing acknowledges what a crash undoes: it is of a key that is there, so all of them take no more than the keys.
        let deletes = writes.iter().all(|write| write.put_key().is_none());
        let full = backlog_bytes > 0 && backlog_bytes.saturating_add(length) > limit_bytes;
        // The disk is looked at after each commit. Until then no more is taken than it had room for, but for a record that
        // waits for no commit: who is refused waits for one.
        let crowded = match bounded {
            true => state.left.bounded < length as u64 && (state.low || backlog_bytes > 0),
            false => state.low || (state.left.ordinary < length as u64 && backlog_bytes > 0),
        };
        if !deletes && (full || crowded) {
            if bounded && crowded {
                let least = state.refused.unwrap_or(u64::MAX);
                state.refused = Some(least.min(length as u64));
            }
            return Err(Behind::Full {
                backlog_bytes,
                limit_bytes,
            });
        }
        // A key put earlier in the batch may be deleted later in it.
        let put: HashSet<&[u8]> = match writes {
            [_] => HashSet::new(),
            _ => writes.iter().filter_map(Change::put_key).collect(),
        };
        bodies.retain(|body| {
            body.kind != Kind::Delete
                || state.index.contains_key(body.key)
                || put.contains(body.key)
        });
        let sequence = match state.append_batch(bodies) {
            Some(sequence) => sequence,
            None => return Ok(Lsn(state.next_sequence - 1)),
        };
        drop(state);
        shared.work.notify_one();
        Ok(Lsn(sequence))
    }

    /// The newest value of `key`, durable or not yet. Reads the disk where it is.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let shared = &self.handle.shared;
        let state = shared.state.lock();
        let Some(location) = state.index.get(key).copied() else {
            return Ok(None);
        };
        let path = || segment::path(&shared.directory, location.segment);
        let damaged = || {
            let reason = "a record cannot be read any more";
            StoreError::Damaged {
                file: path(),
                offset: u64::from(location.offset),
                reason,
            }
        };
        let segment = state.segment(location.segment).ok_or_else(damaged)?;
        let value = |record: &[u8]| {
            let start = record::HEADER_BYTES + key.len();
            record.get(start..).map(Bytes::copy_from_slice)
        };
        if location.offset >= segment.durable {
            let waiting = state.waiting_record(key, location).ok_or_else(damaged)?;
            return value(waiting).map(Some).ok_or_else(damaged);
        }
        let mark = segment.mark;
        let file = segment.file.clone().ok_or_else(damaged)?;
        drop(state);
        // The open file outlives a compaction that deletes it meanwhile.
        let mut bytes = vec![0; record::length(key.len(), location.value_length)];
        file.read_exact_at(&mut bytes, u64::from(location.offset))
            .map_err(|e| StoreError::io("read", &path(), e))?;
        match record::read(mark, &bytes) {
            Ok(record) if record.key == key && record.kind == Kind::Put => {
                let start = record::HEADER_BYTES + key.len();
                Ok(Some(Bytes::from(bytes).slice(start..)))
            }
            _ => Err(damaged()),
        }
    }

    /// Everything up to here is on the disk. One atomic load.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.handle.shared.durable.load(Ordering::Acquire))
    }

    /// Wakes `waker` once `lsn` is durable (at once where it is), and when a write fails. A task
    /// is registered once, for the earliest position it asked for: when it is woken it looks at
    /// [`Journal::durable`] and registers again where it is still behind.
    pub fn wake_when_durable(&self, lsn: Lsn, waker: &Waker) {
        self.handle
            .shared
            .wakers
            .register(lsn, waker, || self.durable());
    }

    /// Blocks until `lsn` is durable.
    ///
    /// # Errors
    /// [`StoreError::Failed`] where the disk cannot be written; the record is kept, and may become
    /// durable later.
    pub fn wait_durable(&self, lsn: Lsn) -> Result<(), StoreError> {
        let mut state = self.handle.shared.state.lock();
        while self.durable() < lsn {
            if let Some(reason) = &state.failed {
                return Err(StoreError::Failed {
                    reason: reason.to_string(),
                });
            }
            self.handle.shared.committed.wait(&mut state);
        }
        Ok(())
    }

    /// Makes everything durable and ends the journal in order, as dropping the last clone does:
    /// for who cannot know that no other is left. What is put afterwards is lost.
    pub fn close(&self) {
        self.handle.close();
    }

    /// Whether writes reach the disk.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.handle.shared.state.lock();
        match &state.failed {
            Some(reason) => Health::Failing(Arc::clone(reason)),
            None if state.low => Health::Failing(NEARLY_FULL.into()),
            None => Health::Good,
        }
    }

    /// Whether nothing of an unbounded amount is taken because the disk is nearly full: that may be so for long.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        self.handle.shared.state.lock().low
    }

    /// Whether a put of so many bytes, `bounded` or not, would not be told to wait because the disk is nearly full, which
    /// may be for long.
    #[must_use]
    pub fn has_room(&self, bytes: usize, bounded: bool) -> bool {
        let state = self.handle.shared.state.lock();
        !state.low || (bounded && state.left.bounded >= bytes as u64)
    }

    /// What it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.handle.shared.state.lock();
        Stats {
            live_keys: state.index.len() as u64,
            live_bytes: state.live_bytes,
            disk_bytes: state.disk_bytes,
            backlog_bytes: state.backlog_bytes as u64,
        }
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

/// Opens the journal in `directory`.
pub(crate) fn open(
    directory: &Path,
    options: Options,
    claim: Claim,
) -> Result<(Journal, Replay), StoreError> {
    open_on(Box::new(RealDisk), directory, options, claim)
}

fn open_on(
    disk: Box<dyn Disk>,
    directory: &Path,
    options: Options,
    claim: Claim,
) -> Result<(Journal, Replay), StoreError> {
    let (shared, committer, replay) = read(disk, directory, options, Some(claim))?;
    let thread = thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || committer.run())
        .map_err(|e| StoreError::io("start the thread of", directory, e))?;
    let handle = Arc::new(Handle {
        shared,
        committer: Mutex::new(Some(thread)),
    });
    Ok((Journal { handle }, replay))
}

/// Reads what the disk holds; nothing is written until the committer runs.
fn read(
    disk: Box<dyn Disk>,
    directory: &Path,
    mut options: Options,
    claim: Option<Claim>,
) -> Result<(Arc<Shared>, Committer, Replay), StoreError> {
    options.segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
    disk.prepare(directory)?;
    let state = recover::recover(directory, options, &*disk)?;
    let (dead, next_sequence) = (state.dead_segments(), state.next_sequence);
    let replay = Replay::new(directory.to_path_buf(), &state);
    let shared = Arc::new(Shared {
        directory: directory.to_path_buf(),
        disk,
        durable: AtomicU64::new(state.next_sequence - 1),
        state: Mutex::new(state),
        work: Condvar::new(),
        committed: Condvar::new(),
        wakers: Wakers::default(),
        closed: AtomicBool::new(false),
        _claim: claim,
    });
    let committer = Committer::new(Arc::clone(&shared), dead, next_sequence);
    Ok((shared, committer, replay))
}

#[cfg(test)]
mod tests;
