//! The directory of trusted metadata.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use ota::tuf::{Datastore, TufError};

use crate::files::{self, Disk, Files as _};

/// So many bytes of a digest tell names apart.
const KNOWN_BY_BYTES: usize = 8;

/// Trusted metadata, each file replaced as a whole.
pub(super) struct TrustedFiles {
    dir: PathBuf,
}

impl TrustedFiles {
    /// Makes the directory where there is none.
    pub(super) fn open(dir: &Path) -> Result<Self, TufError> {
        Disk.create_dir(dir).map_err(store(dir))?;
        Ok(Self {
            dir: dir.to_path_buf(),
        })
    }
}

impl Datastore for TrustedFiles {
    fn load(&mut self, file: &str, bound: u64) -> Result<Option<Vec<u8>>, TufError> {
        read(&self.dir.join(file), bound)
    }

    fn keep(&mut self, file: &str, bytes: &[u8]) -> Result<(), TufError> {
        let path = self.dir.join(file);
        let temporary = self.dir.join(temporary_name(file));
        files::replace_by(&Disk, &path, &temporary, bytes).map_err(store(&path))
    }

    fn forget(&mut self, file: &str) -> Result<(), TufError> {
        let path = self.dir.join(file);
        Disk.remove(&path)
            .and_then(|()| Disk.sync_dir(&self.dir))
            .map_err(store(&path))
    }
}

/// What the names of files begin with that are being written.
pub(super) const TEMPORARY: &str = ".part-";

/// What a file is called while it is being written: as short for a long name as for a short one, and the same each
/// time, so that what a crash has left is written over.
pub(super) fn temporary_name(name: &str) -> String {
    let digest = digest(&SHA256, name.as_bytes());
    let known = digest.as_ref().get(..KNOWN_BY_BYTES).unwrap_or_default();
    format!("{TEMPORARY}{}", HEXLOWER.encode(known))
}

/// Reads a file of at most `bound` bytes, if it is there.
pub(super) fn read(path: &Path, bound: u64) -> Result<Option<Vec<u8>>, TufError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(store(path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(bound.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(store(path))?;
    if bytes.len() as u64 > bound {
        return Err(TufError::TooLarge {
            what: path.display().to_string(),
            bound,
        });
    }
    Ok(Some(bytes))
}

/// Puts the system's word on a file in an error.
pub(super) fn store(path: &Path) -> impl Fn(io::Error) -> TufError + '_ {
    move |error| TufError::Store {
        why: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = TrustedFiles::open(&dir.path().join("new/deep")).unwrap();
        assert_eq!(files.load("root.json", 10).unwrap(), None);
        files.keep("root.json", b"old").unwrap();
        files.keep("root.json", b"new ").unwrap();
        files.keep("%2Fa.json", b"x").unwrap();
        assert_eq!(files.load("root.json", 4).unwrap().unwrap(), b"new ");
        assert!(matches!(
            files.load("root.json", 3),
            Err(TufError::TooLarge { bound: 3, .. })
        ));
        files.forget("%2Fa.json").unwrap();
        files.forget("%2Fa.json").unwrap();
        let names: Vec<_> = std::fs::read_dir(&files.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["root.json"]);
    }
}
