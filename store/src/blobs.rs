//! Content-addressed files: written once under their SHA-256, never changed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use tempfile::NamedTempFile;

use crate::error::StoreError;
use crate::files::{create_directory, sync_directory};
use crate::lock::DirectoryLock;
use crate::room;

/// Bytes left free beside a blob: what tables and journals need to go on while an operator makes room.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The directory of content-addressed files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    directory: PathBuf,
    _lock: Arc<DirectoryLock>,
}

impl Blobs {
    pub(crate) fn at(directory: &Path, lock: Arc<DirectoryLock>) -> Result<Blobs, StoreError> {
        let blobs = Blobs {
            directory: directory.to_path_buf(),
            _lock: lock,
        };
        create_directory(&blobs.writing(), 0o700)?;
        Ok(blobs)
    }

    /// Removes what writers of a process that is gone left behind. Only right before the first
    /// writer of this process, so `Store::open` calls it, not `at` above.
    pub(crate) fn remove_leftovers(directory: &Path) -> Result<(), StoreError> {
        let writing = directory.join("tmp");
        let entries = match fs::read_dir(&writing) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(StoreError::io("list", &writing, e)),
        };
        for entry in entries {
            let path = entry
                .map_err(|e| StoreError::io("list", &writing, e))?
                .path();
            fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
        Ok(())
    }

    fn writing(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    fn path(&self, hash: &str) -> Result<PathBuf, StoreError> {
        path(&self.directory, hash)
    }

    /// What looks at blobs without holding the store open.
    #[must_use]
    pub fn check(&self) -> BlobCheck {
        BlobCheck {
            directory: self.directory.clone(),
        }
    }

    /// A new blob of at most `limit_bytes`. Dropped before `commit`, it leaves nothing behind.
    ///
    /// # Errors
    /// [`StoreError::Io`] where no file can be made.
    pub fn writer(&self, limit_bytes: u64) -> Result<BlobWriter, StoreError> {
        let writing = self.writing();
        let file = NamedTempFile::new_in(&writing)
            .map_err(|e| StoreError::io("create a file in", &writing, e))?;
        Ok(BlobWriter {
            blobs: self.clone(),
            file,
            hash: digest::Context::new(&digest::SHA256),
            length: 0,
            limit_bytes,
            over: false,
        })
    }

    /// Opens the blob for reading; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Hash`] where `hash` is not 64 lower-case hex digits, [`StoreError::Io`].
    pub fn open(&self, hash: &str) -> Result<Option<File>, StoreError> {
        let path = self.path(hash)?;
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("open", &path, e)),
        }
    }

    /// Refuses a blob of so many bytes where the disk would be nearly full with it.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        room::check(&self.directory, bytes, SPARE_BYTES)
    }

    /// Removes the blob, durably; whether there was one. Open files of it stay readable.
    ///
    /// # Errors
    /// As [`Blobs::open`].
    pub fn delete(&self, hash: &str) -> Result<bool, StoreError> {
        let path = self.path(hash)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.directory).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("remove", &path, e)),
        }
    }
}

fn path(directory: &Path, hash: &str) -> Result<PathBuf, StoreError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if hash.len() != 2 * digest::SHA256_OUTPUT_LEN || !hash.bytes().all(hex) {
        return Err(StoreError::Hash {
            hash: hash.chars().take(80).collect(),
        });
    }
    Ok(directory.join(hash))
}

/// Looks whether blobs are what they were.
#[derive(Clone, Debug)]
pub struct BlobCheck {
    directory: PathBuf,
}

impl BlobCheck {
    /// Reads the blob to its end: whether it is there, has `size` bytes where that is known, and is what its
    /// name says.
    ///
    /// # Errors
    /// [`StoreError::Hash`] where `hash` is not 64 lower-case hex digits, [`StoreError::Io`].
    pub fn holds(&self, hash: &str, size: Option<u64>) -> Result<bool, StoreError> {
        let path = path(&self.directory, hash)?;
        let read = |e| StoreError::io("read", &path, e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(read(e)),
        };
        let length = file.metadata().map_err(read)?.len();
        if size.is_some_and(|size| size != length) {
            return Ok(false);
        }
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(HEXLOWER.encode(context.finish().as_ref()) == hash),
                Ok(count) => context.update(buffer.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read(e)),
            }
        }
    }
}

/// Takes a blob's bytes as a stream.
pub struct BlobWriter {
    blobs: Blobs,
    file: NamedTempFile,
    hash: digest::Context,
    length: u64,
    limit_bytes: u64,
    over: bool,
}

impl BlobWriter {
    /// Makes the blob durable and visible under its hash (64 lower-case hex digits); also tells
    /// its length in bytes. A blob that is there already stays as it is.
    ///
    /// # Errors
    /// [`StoreError::BlobTooLarge`] where a write was refused, [`StoreError::Io`] otherwise; then
    /// nothing is left behind.
    pub fn commit(self) -> Result<(String, u64), StoreError> {
        if self.over {
            return Err(StoreError::BlobTooLarge {
                limit: self.limit_bytes,
            });
        }
        let hash = HEXLOWER.encode(self.hash.finish().as_ref());
        let path = self.blobs.path(&hash)?;
        self.file
            .as_file()
            .sync_all()
            .map_err(|e| StoreError::io("sync", &path, e))?;
        self.file
            .persist(&path)
            .map_err(|e| StoreError::io("write", &path, e.error))?;
        sync_directory(&self.blobs.directory)?;
        Ok((hash, self.length))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length.saturating_add(bytes.len() as u64) > self.limit_bytes {
            self.over = true;
        }
        if self.over {
            let error = StoreError::BlobTooLarge {
                limit: self.limit_bytes,
            };
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    // SHA-256 of "abc", FIPS 180-2 appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn content(blobs: &Blobs, hash: &str) -> Option<Vec<u8>> {
        let mut file = blobs.open(hash).unwrap()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn a_blob_is_found_under_its_hash_after_commit_only_and_again_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blobs = store.blobs().unwrap();
        let mut writer = blobs.writer(3).unwrap();
        writer.write_all(b"a").unwrap();
        writer.write_all(b"bc").unwrap();
        assert_eq!(content(&blobs, ABC), None);
        assert_eq!(writer.commit().unwrap(), (ABC.to_owned(), 3));
        // The same content again is the same blob.
        let mut writer = blobs.writer(3).unwrap();
        writer.write_all(b"abc").unwrap();
        writer.commit().unwrap();
        drop((store, blobs));
        let blobs = Store::open(dir.path()).unwrap().blobs().unwrap();
        assert_eq!(content(&blobs, ABC).unwrap(), b"abc");
        assert!(blobs.delete(ABC).unwrap());
        assert!(!blobs.delete(ABC).unwrap());
        assert_eq!(content(&blobs, ABC), None);
    }

    #[test]
    fn a_blob_is_held_only_while_it_is_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(dir.path()).unwrap().blobs().unwrap();
        assert!(!blobs.check().holds(ABC, None).unwrap());
        let mut writer = blobs.writer(3).unwrap();
        writer.write_all(b"abc").unwrap();
        writer.commit().unwrap();
        assert!(blobs.check().holds(ABC, None).unwrap());
        assert!(blobs.check().holds(ABC, Some(3)).unwrap());
        assert!(!blobs.check().holds(ABC, Some(4)).unwrap());
        fs::write(dir.path().join("blobs").join(ABC), "abd").unwrap();
        assert!(!blobs.check().holds(ABC, Some(3)).unwrap());
    }

    #[test]
    fn there_is_no_room_for_more_than_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(dir.path()).unwrap().blobs().unwrap();
        blobs.room_for(1).unwrap();
        let error = blobs.room_for(u64::MAX).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
    }

    #[test]
    fn one_byte_past_the_bound_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let blobs = store.blobs().unwrap();
        let mut writer = blobs.writer(3).unwrap();
        writer.write_all(b"abc").unwrap();
        assert_eq!(
            writer.write_all(b"d").unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert!(matches!(
            writer.commit(),
            Err(StoreError::BlobTooLarge { limit: 3 })
        ));
        assert_eq!(fs::read_dir(blobs.writing()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_of_a_crash_go_at_open_and_those_of_live_writers_stay() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("blobs/tmp/left");
        fs::create_dir_all(left.parent().unwrap()).unwrap();
        fs::write(&left, b"half").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(!left.exists());
        let mut writer = store.blobs().unwrap().writer(9).unwrap();
        writer.write_all(b"abc").unwrap();
        store.blobs().unwrap();
        assert_eq!(writer.commit().unwrap().0, ABC);
    }

    #[test]
    fn only_a_hash_opens_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Store::open(dir.path()).unwrap().blobs().unwrap();
        for bad in [
            "",
            "../lock",
            "tmp",
            &ABC.to_uppercase(),
            &ABC[1..],
            &format!("{ABC}0"),
        ] {
            assert!(
                matches!(blobs.open(bad), Err(StoreError::Hash { .. })),
                "{bad}"
            );
        }
    }
}
