//! The two slots, each a directory with `image` and `manifest.json`.
//!
//! A slot without `manifest.json` is empty. The manifest goes first and comes last, so a slot
//! that has one has the whole image that belongs to it, at whatever instant the power went.
//! The agent only ever writes to the idle slot; which one is active is in the state file.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{self, Files};
use crate::update::Slot;

/// The slots of one state directory.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    dir: PathBuf,
}

impl Slots {
    /// The slots under `state`.
    #[must_use]
    pub(crate) fn new(state: &Path) -> Self {
        Self {
            dir: state.join("slots"),
        }
    }

    /// The image of a slot.
    #[must_use]
    pub(crate) fn image(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.as_str()).join("image")
    }

    /// The signed manifest of a slot; not there while the slot is empty.
    #[must_use]
    pub(crate) fn manifest(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.as_str()).join("manifest.json")
    }

    /// Moves a verified, durable image file into a slot, and its signed manifest with it.
    ///
    /// # Errors
    /// What the file system said; the slot is then empty or as it was, never mixed.
    pub(crate) fn install(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        manifest: &[u8],
    ) -> io::Result<()> {
        let dir = self.dir.join(slot.as_str());
        files.create_dir(&dir)?;
        files.sync_dir(&self.dir)?;
        files.remove(&self.manifest(slot))?;
        files.sync_dir(&dir)?;
        files.rename(image, &self.image(slot))?;
        files.sync_dir(&dir)?;
        files::replace(files, &self.manifest(slot), manifest)
    }

    /// Takes the image of a slot out again, when it lies there with this very manifest; the slot
    /// is then empty. Anything else in the slot stays.
    ///
    /// # Errors
    /// What the file system said.
    pub(crate) fn take_back(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        manifest: &[u8],
    ) -> io::Result<()> {
        let path = self.manifest(slot);
        match std::fs::read(&path) {
            Ok(bytes) if bytes == manifest => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        files.remove(&path)?;
        files.sync_dir(&self.dir.join(slot.as_str()))?;
        files.rename(&self.image(slot), image)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::Disk;
    use crate::files::tests::PowerCut;

    #[test]
    fn at_every_cut_a_slot_with_a_manifest_has_its_image() {
        let mut finished = false;
        for operations in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let slots = Slots::new(dir.path());
            let partial = dir.path().join("partial");
            fs::write(&partial, "old image").unwrap();
            slots.install(&Disk, Slot::B, &partial, b"old").unwrap();
            fs::write(&partial, "new image").unwrap();
            let cut = PowerCut::after(operations);
            let done = slots.install(&cut, Slot::B, &partial, b"new").is_ok();
            match fs::read_to_string(slots.manifest(Slot::B)) {
                Ok(manifest) => assert_eq!(
                    fs::read_to_string(slots.image(Slot::B)).unwrap(),
                    format!("{manifest} image"),
                    "after {operations} operations"
                ),
                Err(_) => assert!(!done),
            }
            // The device starts again: from what is left, the install can be done.
            if !partial.exists() {
                fs::write(&partial, "new image").unwrap();
            }
            slots.install(&Disk, Slot::B, &partial, b"new").unwrap();
            assert_eq!(fs::read(slots.image(Slot::B)).unwrap(), b"new image");
            finished |= done;
        }
        assert!(finished, "the loop must reach past the last operation");
    }

    #[test]
    fn the_other_slot_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::new(dir.path());
        for (slot, image) in [(Slot::A, "one"), (Slot::B, "two")] {
            let partial = dir.path().join("partial");
            fs::write(&partial, image).unwrap();
            slots
                .install(&Disk, slot, &partial, image.as_bytes())
                .unwrap();
        }
        assert_eq!(fs::read(slots.image(Slot::A)).unwrap(), b"one");
        assert_eq!(fs::read(slots.manifest(Slot::A)).unwrap(), b"one");
    }
}
