//! A journal on a disk in memory, committed by hand: for the simulator. The journal's own code runs
//! unchanged; only its files and the thread that commits are under the simulator's control.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::committer::{self, Outcome};
use super::segment::{Disk, SegmentFile};
use super::{Handle, Journal, Options, Replay, read};
use crate::error::StoreError;
use crate::room::Room;

/// Files that outlive the journals opened on them. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<PathBuf, Content>,
    notes: BTreeMap<PathBuf, String>,
    faults: Faults,
}

#[derive(Default)]
struct Content {
    /// What was written.
    bytes: Vec<u8>,
    /// How many of them a crash leaves, at least: a journal never writes over what is synced.
    synced: usize,
}

/// What goes wrong on a [`MemoryDisk`] from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Writes stop in their middle and fail.
    pub writes_fail: bool,
    /// Syncs fail; what was written may be there after a crash, or not.
    pub syncs_fail: bool,
}

impl MemoryDisk {
    /// Sets what goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.lock().faults = faults;
    }

    /// The machine loses its power. `kept` is asked, for each file with bytes that were written and
    /// not synced, how many of so many are on the disk all the same.
    pub fn crash(&self, mut kept: impl FnMut(usize) -> usize) {
        for content in self.inner.lock().files.values_mut() {
            let torn = content.bytes.len() - content.synced;
            if torn > 0 {
                content.synced += kept(torn).min(torn);
                content.bytes.truncate(content.synced);
            }
        }
    }
}

/// Does what the thread of a journal does otherwise.
pub struct Committer(committer::Committer);

impl Committer {
    /// Compacts a step and makes durable all that waits. Whether it is; false where the disk fails.
    pub fn commit(&mut self) -> bool {
        self.0.compact();
        self.0.commit() != Outcome::Failed
    }
}

/// Opens the journal on `disk`.
///
/// # Errors
/// As [`crate::Store::journal`].
pub fn open(
    disk: &MemoryDisk,
    options: Options,
) -> Result<(Journal, Replay, Committer), StoreError> {
    let (shared, committer, replay) = read(
        Box::new(disk.clone()),
        Path::new("simulated"),
        options,
        None,
    )?;
    let handle = Arc::new(Handle {
        shared,
        committer: Mutex::new(None),
    });
    Ok((Journal { handle }, replay, Committer(committer)))
}

impl Disk for MemoryDisk {
    fn room(&self, _: &Path) -> Option<Room> {
        None
    }

    fn prepare(&self, _: &Path) -> Result<(), StoreError> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.inner.lock().files.keys().cloned().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let mut inner = self.inner.lock();
        inner.files.entry(path.to_path_buf()).or_default();
        Ok(Arc::new(MemoryFile {
            inner: Arc::clone(&self.inner),
            path: path.to_path_buf(),
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.inner.lock().files.remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn read_note(&self, path: &Path) -> io::Result<String> {
        let found = self.inner.lock().notes.get(path).cloned();
        found.ok_or(io::ErrorKind::NotFound.into())
    }

    fn write_note(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if inner.faults.writes_fail || inner.faults.syncs_fail {
            let full = io::ErrorKind::StorageFull.into();
            return Err(StoreError::io("write", path, full));
        }
        inner.notes.insert(path.to_path_buf(), text.to_owned());
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemoryFile {
    inner: Arc<Mutex<Inner>>,
    path: PathBuf,
}

impl MemoryFile {
    fn with<R>(&self, work: impl FnOnce(&mut Content, Faults) -> io::Result<R>) -> io::Result<R> {
        let mut inner = self.inner.lock();
        let faults = inner.faults;
        match inner.files.get_mut(&self.path) {
            Some(content) => work(content, faults),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl SegmentFile for MemoryFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|content, _| {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let found = content.bytes.get(start..).unwrap_or_default();
            let pairs = bytes.iter_mut().zip(found);
            Ok(pairs.map(|(to, from)| *to = *from).count())
        })
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_at(bytes, offset)? == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        self.with(|content, _| Ok(content.bytes.clone()))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|content, faults| {
            let bytes = match faults.writes_fail {
                true => bytes.get(..bytes.len() / 2).unwrap_or_default(),
                false => bytes,
            };
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(bytes.len());
            if content.bytes.len() < end {
                content.bytes.resize(end, 0);
            }
            if let Some(place) = content.bytes.get_mut(start..end) {
                place.copy_from_slice(bytes);
            }
            match faults.writes_fail {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|content, faults| {
            if faults.syncs_fail {
                return Err(io::Error::other("the disk does not sync"));
            }
            content.synced = content.bytes.len();
            Ok(())
        })
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.with(|content, _| {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            content.bytes.truncate(length);
            content.synced = content.synced.min(length);
            Ok(())
        })
    }
}
