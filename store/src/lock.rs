//! The exclusive lock on the data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::StoreError;

/// Held by everything that writes below the directory; the kernel frees it with the process, so a
/// crash leaves nothing to clean up.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory (mode 0700) where it is missing and locks `directory/lock`.
    pub(crate) fn take(directory: &Path) -> Result<DirectoryLock, StoreError> {
        match fs::metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(StoreError::NotADirectory {
                    path: directory.to_path_buf(),
                });
            }
            Ok(_) => {}
            Err(_) => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|e| StoreError::io("create the directory", directory, e))?,
        }
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| StoreError::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
                dir: directory.to_path_buf(),
            }),
            Err(TryLockError::Error(e)) => Err(StoreError::io("lock", &path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_opener_gets_a_sentence_and_the_next_one_after_release_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err();
        assert!(matches!(&error, StoreError::InUse { dir: d } if d == dir.path()));
        let sentence = error.to_string();
        assert!(
            sentence.contains("is in use by another server"),
            "{sentence}"
        );
        drop(first);
        DirectoryLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_new_directory_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        let _lock = DirectoryLock::take(&inner).unwrap();
        assert_eq!(
            fs::metadata(&inner).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data");
        fs::write(&file, b"x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let error = DirectoryLock::take(&path).unwrap_err();
            assert!(
                matches!(&error, StoreError::NotADirectory { path: p } if *p == path),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_missing_permission_names_path_and_mend() {
        let path = Path::new("/some/where");
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let sentence = StoreError::io("create", path, denied).to_string();
        assert!(
            sentence.contains("/some/where") && sentence.contains("chown"),
            "{sentence}"
        );
        // The kernel's own refusal, where the test does not run as root.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
        if File::create(dir.path().join("probe")).is_err() {
            let error = DirectoryLock::take(dir.path()).unwrap_err();
            assert!(matches!(error, StoreError::Permission { .. }), "{error:?}");
        }
    }
}
