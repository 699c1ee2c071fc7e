//! The two slots an image can lie in, behind a trait: directories, or devices as a bootloader knows them.
//!
//! Of each slot `STATE/slots/a|b/manifest.json` says what lies in it; a slot without one is empty. The
//! manifest goes first and comes last, so a slot that has one has the whole image that belongs to it, at
//! whatever instant the power went. The agent only ever writes to the idle slot; which one is active is in
//! the state file.

mod device;
mod directory;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ota::Manifest;

use crate::AgentError;
use crate::files::{self, Files};
use crate::mark;
use crate::update::Slot;

pub(crate) use device::DeviceSlots;
pub use device::Devices;
pub(crate) use directory::DirectorySlots;

/// Where images are kept.
pub(crate) trait Slots: Send + Sync {
    /// The image of a slot: a file, or a device whose first bytes it is.
    fn image(&self, slot: Slot) -> PathBuf;

    /// The signed manifest of a slot; not there while the slot is empty.
    #[cfg(test)]
    fn manifest(&self, slot: Slot) -> PathBuf;

    /// The most bytes that an image in this slot can have.
    ///
    /// # Errors
    /// What the operating system said.
    fn room(&self, slot: Slot) -> io::Result<u64>;

    /// Puts a verified, durable image file into a slot, and its signed manifest with it. The file is gone
    /// then.
    ///
    /// # Errors
    /// What the file system said, or that the device holds something else than was written; the slot is then
    /// empty or as it was, never mixed.
    fn install(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        signed: &[u8],
        manifest: &Manifest,
    ) -> io::Result<()>;

    /// Makes a file of the image in a slot again, when it lies there with this very manifest; the slot may be
    /// empty then. Anything else in the slot stays. What was taken is to be checked anew.
    ///
    /// # Errors
    /// What the file system said.
    fn take_back(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        signed: &[u8],
        size: u64,
    ) -> io::Result<()>;
}

/// The slots of a state directory: the devices, where there are any.
///
/// # Errors
/// [`AgentError::SlotDevice`].
pub(crate) fn of(state: &Path, devices: Option<Devices>) -> Result<Arc<dyn Slots>, AgentError> {
    Ok(match devices {
        None => Arc::new(DirectorySlots::new(state)),
        Some(devices) => {
            devices.check()?;
            Arc::new(DeviceSlots::new(state, devices))
        }
    })
}

/// The directories below `STATE/slots` that say what lies in the slots.
#[derive(Clone, Debug)]
struct Papers {
    dir: PathBuf,
}

impl Papers {
    fn new(state: &Path) -> Self {
        Self {
            dir: state.join("slots"),
        }
    }

    fn dir(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.as_str())
    }

    fn manifest(&self, slot: Slot) -> PathBuf {
        self.dir(slot).join("manifest.json")
    }

    /// The slot is empty, durably.
    fn empty(&self, files: &dyn Files, slot: Slot) -> io::Result<()> {
        let dir = self.dir(slot);
        files.create_dir(&dir)?;
        files.sync_dir(&self.dir)?;
        files.remove(&self.manifest(slot))?;
        // Flushes the directory besides.
        mark::clear(files, &dir)
    }

    /// The slot has its image.
    fn fill(&self, files: &dyn Files, slot: Slot, signed: &[u8]) -> io::Result<()> {
        files::replace(files, &self.manifest(slot), signed)
    }

    /// Whether the slot has an image with this very manifest.
    fn has(&self, slot: Slot, signed: &[u8]) -> io::Result<bool> {
        match std::fs::read(self.manifest(slot)) {
            Ok(bytes) => Ok(bytes == signed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
