//! A slot as a directory with `image` and `manifest.json`.

use std::io;
use std::path::{Path, PathBuf};

use ota::Manifest;

use super::{Papers, Slots};
use crate::files::Files;
use crate::update::Slot;

/// The slots of one state directory.
#[derive(Clone, Debug)]
pub(crate) struct DirectorySlots {
    papers: Papers,
}

impl DirectorySlots {
    /// The slots under `state`.
    #[must_use]
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            papers: Papers::new(state),
        }
    }
}

impl Slots for DirectorySlots {
    fn image(&self, slot: Slot) -> PathBuf {
        self.papers.dir(slot).join("image")
    }

    #[cfg(test)]
    fn manifest(&self, slot: Slot) -> PathBuf {
        self.papers.manifest(slot)
    }

    /// The download itself moves in: where there was room for it, there is.
    fn room(&self, _: Slot) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn install(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        signed: &[u8],
        _: &Manifest,
    ) -> io::Result<()> {
        self.papers.empty(files, slot)?;
        files.rename(image, &self.image(slot))?;
        files.sync_dir(&self.papers.dir(slot))?;
        self.papers.fill(files, slot, signed)
    }

    fn take_back(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        signed: &[u8],
        _: u64,
    ) -> io::Result<()> {
        if !self.papers.has(slot, signed)? {
            return Ok(());
        }
        self.papers.empty(files, slot)?;
        files.rename(&self.image(slot), image)
    }
}
