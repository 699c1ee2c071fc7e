//! Room on the disk: what would fill it is not begun.

use std::path::Path;

use crate::error::StoreError;

/// What a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl Room {
    /// Of the disk that holds `directory`; `None` where it cannot be told.
    pub(crate) fn of(directory: &Path) -> Option<Room> {
        let disk = rustix::fs::statvfs(directory).ok()?;
        Some(Room {
            free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }

    /// Whether what is left is for changes of the registry and for deletions: what devices send must not fill a disk so
    /// far that none of them can be revoked. Where it `was` low there has to be a tenth more, so that it is not the one and
    /// the other in turn.
    pub(crate) fn is_low(self, was: bool) -> bool {
        let kept = self.kept_bytes();
        self.free_bytes < if was { kept + kept / 10 } else { kept }
    }

    /// What is kept back for them.
    pub(crate) fn kept_bytes(self) -> u64 {
        (self.total_bytes / 16).clamp(KEPT_BYTES_MIN, KEPT_BYTES_MAX)
    }

    /// What there is until only that is left.
    pub(crate) fn ordinary_bytes(self) -> u64 {
        self.free_bytes.saturating_sub(self.kept_bytes())
    }

    /// What there is for records of a bounded amount, each of which may be written again and again: a quarter of what is
    /// kept back.
    pub(crate) fn bounded_bytes(self) -> u64 {
        self.free_bytes.saturating_sub(self.kept_bytes() / 4 * 3)
    }

    /// What there is for what has to be written in order to delete more.
    pub(crate) fn compaction_bytes(self) -> u64 {
        self.free_bytes.saturating_sub(self.kept_bytes() / 8 * 5)
    }
}

/// Least that is kept back of a disk: five eighths of it are more than a small change of the registry needs.
const KEPT_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Most that is kept back of a disk.
const KEPT_BYTES_MAX: u64 = 256 * 1024 * 1024;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixteenth_of_a_disk_is_kept_back_and_of_a_large_one_256_mib() {
        const GIB: u64 = 1 << 30;
        let low = |free_bytes, total_bytes| {
            Room {
                free_bytes,
                total_bytes,
            }
            .is_low(false)
        };
        assert!(low(GIB / 16 - 1, GIB) && !low(GIB / 16, GIB));
        assert!(low(KEPT_BYTES_MAX - 1, 100 * GIB) && !low(KEPT_BYTES_MAX, 100 * GIB));
        let edge = Room {
            free_bytes: GIB / 16,
            total_bytes: GIB,
        };
        assert!(!edge.is_low(false) && edge.is_low(true));
        let edge = Room {
            free_bytes: 16 << 20,
            total_bytes: 64 << 20,
        };
        assert_eq!(edge.kept_bytes(), 16 << 20);
        assert_eq!(edge.ordinary_bytes(), 0);
        assert_eq!(edge.bounded_bytes(), 4 << 20);
        assert_eq!(edge.compaction_bytes(), 6 << 20);
        let here = Room::of(Path::new(".")).unwrap();
        assert!(here.total_bytes >= here.free_bytes && here.total_bytes > 0);
    }
}
