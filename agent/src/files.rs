//! The few file operations that must survive a power cut, behind a trait so that tests can cut
//! the power at each of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What the agent does to the disk. Each call is one point at which power may go.
pub trait Files: Send + Sync {
    /// Makes a directory and its parents; there already is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens a file (mode 0600) for reading and writing, making an empty one where there is none.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Makes or empties a file (mode 0600) and writes `bytes` to it; not durable yet.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Writes at the end of an open file; not durable yet.
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts an open file to `len` bytes.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()>;
    /// Makes a file's content durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Moves a file over another in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; not there is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Opens a device, or a file that stands in for one, for writing over what is there. Nothing is made; a
    /// block device that something else uses (is mounted, say) is refused.
    fn open_device(&self, path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(exclusive).open(path)
    }
    /// Writes over the bytes of an open device from `at` on; not durable yet.
    fn write_at(&self, device: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        device.write_all_at(bytes, at)
    }
}

/// Replaces `path` as a whole, durably: temporary file, fsync, rename, fsync of the directory.
/// A reader, now or after a power cut, sees the old bytes or the new ones.
///
/// # Errors
/// What the file system said.
pub(crate) fn replace(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    replace_by(files, path, &path.with_file_name(name), bytes)
}

/// The same by way of a temporary file of the caller's choice, in the same directory.
///
/// # Errors
/// What the file system said.
pub(crate) fn replace_by(
    files: &dyn Files,
    path: &Path,
    temporary: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    files.write(temporary, bytes)?;
    files.sync(temporary)?;
    files.rename(temporary, path)?;
    path.parent()
        .map_or(Ok(()), |parent| files.sync_dir(parent))
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        private()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        private()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?
            .write_all(bytes)
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Open options for files only the agent's user may read.
fn private() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A disk whose power goes at the n-th operation: that write is torn, nothing after it
    /// happens.
    pub(crate) struct PowerCut {
        left: AtomicUsize,
    }

    impl PowerCut {
        pub(crate) fn after(operations: usize) -> Self {
            Self {
                left: AtomicUsize::new(operations),
            }
        }

        fn step(&self) -> io::Result<()> {
            let cut = || io::Error::other("the power went");
            self.left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .map(|_| ())
                .map_err(|_| cut())
        }
    }

    impl Files for PowerCut {
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            Disk.create_dir(path)
        }
        fn open(&self, path: &Path) -> io::Result<File> {
            self.step()?;
            Disk.open(path)
        }
        fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
            if let Err(error) = self.step() {
                // Torn, but only the first time: afterwards the device is off.
                if self.left.swap(0, Ordering::SeqCst) == 0 && !path.exists() {
                    let _ = Disk.write(path, &bytes[..bytes.len() / 2]);
                }
                return Err(error);
            }
            Disk.write(path, bytes)
        }
        fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
            if let Err(error) = self.step() {
                let _ = Disk.append(file, &bytes[..bytes.len() / 2]);
                return Err(error);
            }
            Disk.append(file, bytes)
        }
        fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
            self.step()?;
            Disk.truncate(file, len)
        }
        fn sync(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            Disk.sync(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            Disk.sync_dir(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.step()?;
            Disk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.step()?;
            Disk.remove(path)
        }
        fn open_device(&self, path: &Path) -> io::Result<File> {
            self.step()?;
            Disk.open_device(path)
        }
        fn write_at(&self, device: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
            if let Err(error) = self.step() {
                let _ = Disk.write_at(device, at, &bytes[..bytes.len() / 2]);
                return Err(error);
            }
            Disk.write_at(device, at, bytes)
        }
    }

    #[test]
    fn a_replaced_file_is_old_or_new_at_every_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&Disk, &path, b"old").unwrap();
        let mut cuts = 0;
        loop {
            let done = replace(&PowerCut::after(cuts), &path, b"newer").is_ok();
            let seen = fs::read(&path).unwrap();
            assert!(seen == b"old" || seen == b"newer", "{cuts}: {seen:?}");
            if done {
                assert_eq!(seen, b"newer");
                break;
            }
            replace(&Disk, &path, b"old").unwrap();
            cuts += 1;
        }
        assert_eq!(cuts, 4, "write, fsync, rename, fsync of the directory");
    }

    #[test]
    fn what_the_agent_writes_only_its_user_reads() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&Disk, &path, b"x").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
