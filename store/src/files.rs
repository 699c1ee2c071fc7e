//! Whole files, written so that a reader and a crash see the old content or the new, never a part.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::StoreError;

/// Writes a secret: mode 0600, missing parents 0700; durable when this returns.
///
/// # Errors
/// [`StoreError::Permission`] or [`StoreError::Io`], naming the path.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write(path, bytes, 0o600, 0o700)
}

/// Writes what anybody may read: mode 0644, missing parents 0755; durable when this returns.
///
/// # Errors
/// [`StoreError::Permission`] or [`StoreError::Io`], naming the path.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write(path, bytes, 0o644, 0o755)
}

/// What a file is called until it is whole.
pub(crate) const UNFINISHED: &str = ".writing-";

/// Removes what a crash left half written in a directory. For whoever alone writes there.
///
/// # Errors
/// [`StoreError::Permission`] or [`StoreError::Io`], naming the path.
pub fn sweep(directory: &Path) -> Result<(), StoreError> {
    let io = |what| move |e| StoreError::io(what, directory, e);
    for entry in fs::read_dir(directory).map_err(io("list"))? {
        let entry = entry.map_err(io("list"))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let path = entry.path();
            fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8], mode: u32, parent_mode: u32) -> Result<(), StoreError> {
    let parent = parent(path);
    create_directory(parent, parent_mode)?;
    let io = |what| move |e| StoreError::io(what, path, e);
    // The temporary file is made 0600 from its first byte and renamed over the target, so a secret
    // is at no moment readable by others, and a symbolic link at `path` is replaced, not followed.
    let make = || {
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(parent)
    };
    let mut file = patiently(make).map_err(io("write"))?;
    file.write_all(bytes).map_err(io("write"))?;
    // Set apart from creation, where the umask would have its say.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .map_err(io("set the mode of"))?;
    file.as_file().sync_all().map_err(io("sync"))?;
    file.persist(path)
        .map_err(|e| StoreError::io("write", path, e.error))?;
    sync_directory(parent)
}

/// Makes a directory and what is missing above it, each durable in its parent.
pub(crate) fn create_directory(path: &Path, mode: u32) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if above != path {
        create_directory(above, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_directory(above),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(StoreError::NotADirectory {
            path: path.to_path_buf(),
        }),
        Err(e) => Err(StoreError::io("create the directory", path, e)),
    }
}

/// How long what the system has no file descriptor for is tried again, and how often.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Opens something, again and again while there is no file descriptor left for it: that passes, and nothing has been done
/// yet. A commit that gave up for it would end all changes until the next start.
pub(crate) fn patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(error) if lacks_descriptors(&error) && Instant::now() < until => {
                std::thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

/// Makes the entries of a directory (creations, renames, removals) durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    patiently(|| File::open(path))
        .and_then(|directory| directory.sync_all())
        .map_err(|e| StoreError::io("sync the directory", path, e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lacks_a_descriptor_is_tried_again() {
        let tries = |errno: Errno| {
            let mut tries = 0;
            let outcome = patiently(|| {
                tries += 1;
                if tries < 4 { Err(errno.into()) } else { Ok(()) }
            });
            (tries, outcome.is_ok())
        };
        assert_eq!(tries(Errno::MFILE), (4, true));
        assert_eq!(tries(Errno::NFILE), (4, true));
        assert_eq!(tries(Errno::NOSPC), (1, false));
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_0600_below_0700_and_a_public_one_0644_below_0755() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("ca/keys/root.key");
        write_private(&secret, b"secret").unwrap();
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!(
            (mode(&secret), mode(secret.parent().unwrap())),
            (0o600, 0o700)
        );
        let open = dir.path().join("open/root.crt");
        write_public(&open, b"certificate").unwrap();
        assert_eq!((mode(&open), mode(open.parent().unwrap())), (0o644, 0o755));
    }

    #[test]
    fn writing_again_replaces_content_and_mode_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_public(&path, b"first, and longer").unwrap();
        write_private(&path, b"second").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap().as_slice(), mode(&path)),
            (&b"second"[..], 0o600)
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        write_public(&dir.path().join("whole"), b"x").unwrap();
        fs::write(dir.path().join(".writing-abc"), b"half").unwrap();
        sweep(dir.path()).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["whole"]);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_private(&link, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_failure_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"kept").unwrap();
        let error = write_public(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
