//! Room on the disk. sled gives up, until the next start, at the first write that fails; so none is begun where the
//! disk might fill meanwhile, and once there is room again changes are taken again.

use std::path::Path;

use super::chunk::CHUNK_BYTES_MAX;
use crate::error::StoreError;

/// Bytes that must be free beside those of the batch: sled writes whole log segments and, now and then, a snapshot of
/// its page table.
const SPARE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of log for each byte of a row or of its chunk: the page may be written anew.
const LOG_FACTOR: u64 = 4;

/// Refuses a batch of so many rows and bytes where the disk that holds `directory` is nearly full.
pub(super) fn check(directory: &Path, rows: usize, bytes: usize) -> Result<(), StoreError> {
    let chunks = (rows as u64).saturating_mul(CHUNK_BYTES_MAX as u64);
    let log_bytes = (bytes as u64)
        .saturating_add(chunks)
        .saturating_mul(LOG_FACTOR);
    crate::room::check(directory, log_bytes, SPARE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_batch_has_room_and_one_larger_than_any_disk_has_not() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 10, 1000).unwrap();
        let error = check(dir.path(), 1, usize::MAX).unwrap_err();
        let StoreError::Full { needed_bytes, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(needed_bytes, u64::MAX);
        assert!(error.to_string().contains(&*dir.path().to_string_lossy()));
    }
}
