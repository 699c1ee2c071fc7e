//! Whether the confirmed image is still what was signed: disks forget, and people overwrite.
//!
//! Held against the hash that the state keeps of it since its signed manifest was verified, so that keys which were
//! rotated out since do not matter. Read as a stream; memory does not depend on the image's size.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ota::manifest::MAX_MANIFEST_BYTES;
use ota::{Hasher, Manifest, Sha256};

use crate::cancel::Cancel;
use crate::slots::Slots;
use crate::state::StateDir;
use crate::update::Installed;

/// One read of an image.
const READ_BYTES: usize = 64 * 1024;

/// Why nothing good was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Called off before the end.
    CalledOff,
    /// What is wrong, in words.
    Damage(String),
}

/// Reads the image and its papers.
///
/// # Errors
/// [`Flaw`].
pub(crate) fn look(
    state: &StateDir,
    slots: &dyn Slots,
    image: &Installed,
    cancel: &Cancel,
) -> Result<(), Flaw> {
    let slot = image.slot.as_str();
    let damage = |what: &str, error: &io::Error| {
        Flaw::Damage(match error.kind() {
            io::ErrorKind::NotFound => format!("{what} in slot {slot} is gone"),
            _ => format!("{what} in slot {slot} cannot be read: {error}"),
        })
    };
    let papers = state.path().join("slots").join(slot).join("manifest.json");
    let papers = read(&papers).map_err(|error| damage("the manifest", &error))?;
    let stated = Manifest::stated(&papers).ok();
    let own = stated.filter(|stated| stated.sha256.to_string() == image.sha256);
    let Some(own) = own else {
        return Err(Flaw::Damage(format!(
            "the manifest in slot {slot} is not that of {} {}",
            image.name, image.version
        )));
    };
    let hash = hash(&slots.image(image.slot), own.size, cancel)
        .map_err(|error| damage("the image", &error))?
        .ok_or(Flaw::CalledOff)?;
    if hash.to_string() != image.sha256 {
        return Err(Flaw::Damage(format!(
            "the image in slot {slot} is not what was signed any more"
        )));
    }
    Ok(())
}

/// Of the first `size` bytes; `None` when called off.
fn hash(path: &Path, size: u64, cancel: &Cancel) -> io::Result<Option<Sha256>> {
    let mut image = File::open(path)?.take(size);
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let read = image.read(&mut buffer)?;
        if read == 0 {
            return Ok(Some(hasher.finish()));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_MANIFEST_BYTES as u64;
    // What is longer is cut off, and is then no manifest.
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
