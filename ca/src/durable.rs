//! Files that are there whole or not at all, also after a power failure.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::CaError;

/// Octets of the longest file read here; a chain and a key need a tenth of it.
pub(crate) const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Readers {
    Owner,
    Everyone,
}

impl Readers {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Everyone => 0o644,
        }
    }
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::File {
        action,
        path,
        source,
    }
}

/// The directory a path lies in.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes a directory (0700) and those above it where they are missing.
pub(crate) fn create_dir(dir: &Path) -> Result<(), CaError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("create the directory", dir))
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), CaError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("flush the directory", dir))
}

/// Replaces or makes a file; its contents and its name are durable on return.
pub(crate) fn write(path: &Path, contents: &[u8], readers: Readers) -> Result<(), CaError> {
    let dir = parent(path);
    let write = || {
        // Owner-only from its first moment: a temporary file is made with 0600.
        let mut file = tempfile::NamedTempFile::new_in(&dir)?;
        file.write_all(contents)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(readers.mode()))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|failure| failure.error)
    };
    write().map_err(failed("write", path))?;
    sync_dir(&dir)
}

/// What a file holds (wiped when dropped, as it may be a key) and its permission bits.
pub(crate) type Contents = (Zeroizing<Vec<u8>>, u32);

/// Reads a file; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Contents>, CaError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(None),
        Err(other) => return Err(failed("open", path)(other)),
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    let mut contents = Zeroizing::new(Vec::with_capacity(
        metadata.len().min(MAX_FILE_BYTES) as usize
    ));
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut contents)
        .map_err(failed("read", path))?;
    if contents.len() as u64 > MAX_FILE_BYTES {
        return Err(CaError::Damaged {
            path: path.to_owned(),
            problem: format!("is longer than {MAX_FILE_BYTES} octets"),
        });
    }
    Ok(Some((contents, metadata.mode() & 0o7777)))
}
