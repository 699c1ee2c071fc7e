//! Which image of a slot was confirmed: a file beside its manifest with the image's hash. The state says so as well; where
//! that is lost, this tells the image that ran from one whose trial was not over, or ended badly.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::files::{self, Files};
use crate::update::{Installed, Slot};

/// The file.
pub(crate) const NAME: &str = "confirmed";
/// What it says of a slot that has had no image which was confirmed: no hash.
const NONE: &str = "none";
/// A hash in hexadecimal, and some room.
const BYTES_MAX: u64 = 256;

/// The mark of a slot, there or not.
pub(crate) fn path(state: &Path, slot: Slot) -> PathBuf {
    state.join("slots").join(slot.as_str()).join(NAME)
}

/// Which image was confirmed last in a slot (SHA-256, hexadecimal; or that none was), and when.
pub(crate) fn read(state: &Path, slot: Slot) -> Option<(String, SystemTime)> {
    let path = path(state, slot);
    let facts = std::fs::metadata(&path).ok()?;
    if facts.len() > BYTES_MAX {
        return None;
    }
    let hash = std::fs::read_to_string(&path).ok()?;
    Some((hash, facts.modified().ok()?))
}

/// Says of a slot's directory, durably, that no image in it is confirmed. There is a mark then all the same: without any the
/// images would be those of an agent of before there were marks, of which nobody knows.
///
/// # Errors
/// What the file system said.
pub(crate) fn clear(files: &dyn Files, dir: &Path) -> io::Result<()> {
    files::replace(files, &dir.join(NAME), NONE.as_bytes())
}

/// Marks an image as confirmed, durably, unless it is marked so.
///
/// # Errors
/// What the file system said.
pub(crate) fn write(files: &dyn Files, state: &Path, image: &Installed) -> io::Result<()> {
    let known = read(state, image.slot);
    let path = path(state, image.slot);
    let there = path.parent().is_some_and(Path::is_dir);
    if !there || known.is_some_and(|(hash, _)| hash == image.sha256) {
        return Ok(());
    }
    files::replace(files, &path, image.sha256.as_bytes())
}
