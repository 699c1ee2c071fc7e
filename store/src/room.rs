//! Room on the disk: what would fill it is not begun.

use std::path::Path;

use crate::error::StoreError;

/// Refuses `bytes` more, and `spare_bytes` beside them, where the disk that holds `directory` has not as many.
pub(crate) fn check(directory: &Path, bytes: u64, spare_bytes: u64) -> Result<(), StoreError> {
    let disk = rustix::fs::statvfs(directory)
        .map_err(|errno| StoreError::io("look for room in", directory, errno.into()))?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed_bytes = bytes.saturating_add(spare_bytes);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(StoreError::Full {
        directory: directory.to_path_buf(),
        free_bytes,
        needed_bytes,
    })
}
