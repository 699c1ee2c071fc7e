//! sled moves pages past about 128 KiB (sixteen rows of 8 KiB are enough) into files of their own
//! below `blobs`, which it writes and does not sync. A commit is durable with them only.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::files::{patiently, sync_directory};

/// The files beside a database, and which of them are durable.
pub(super) struct Spilled {
    directory: PathBuf,
    /// Their numbers; sled never writes one twice.
    synced: HashSet<i64>,
}

impl Spilled {
    /// Of the database at `path`.
    pub(super) fn new(path: &Path) -> Spilled {
        Spilled {
            directory: path.join("blobs"),
            synced: HashSet::new(),
        }
    }

    /// Makes those durable that are not known to be, before the log that names them is.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        let list = |e| StoreError::io("list", &self.directory, e);
        let mut present = HashSet::new();
        for entry in patiently(|| fs::read_dir(&self.directory)).map_err(list)? {
            let entry = entry.map_err(list)?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse::<i64>().ok()) else {
                continue;
            };
            if !self.synced.contains(&number) && !sync_file(&entry.path())? {
                continue;
            }
            present.insert(number);
        }
        let new = present.difference(&self.synced).next().is_some();
        if new {
            sync_directory(&self.directory)?;
        }
        self.synced = present;
        Ok(())
    }
}

/// False where the file is gone: sled has replaced it meanwhile.
fn sync_file(path: &Path) -> Result<bool, StoreError> {
    let synced: io::Result<()> = patiently(|| File::open(path)).and_then(|file| file.sync_data());
    match synced {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("sync", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_synced_and_gone_ones_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        let mut spilled = Spilled::new(dir.path());
        spilled.sync().unwrap();
        assert!(spilled.synced.is_empty());
        fs::write(blobs.join("17"), b"page").unwrap();
        fs::write(blobs.join("other"), b"").unwrap();
        spilled.sync().unwrap();
        assert_eq!(spilled.synced, HashSet::from([17]));
        fs::remove_file(blobs.join("17")).unwrap();
        fs::write(blobs.join("18"), b"page").unwrap();
        spilled.sync().unwrap();
        assert_eq!(spilled.synced, HashSet::from([18]));
    }

    #[test]
    fn a_database_with_large_rows_has_such_files_where_they_are_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::open(dir.path()).unwrap();
        for n in 0..20u8 {
            db.insert([n], vec![n; super::super::VALUE_BYTES_MAX])
                .unwrap();
        }
        db.flush().unwrap();
        let mut spilled = Spilled::new(dir.path());
        spilled.sync().unwrap();
        assert!(!spilled.synced.is_empty());
    }
}
