//! A slot as a device: a partition or volume that holds nothing but an image, from its first byte on.
//!
//! The image is copied to the device block by block, made durable, and read back from the medium against
//! the hash that was signed before the manifest says that it is there.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ota::{Hasher, Manifest};
use rustix::fs::{Advice, fadvise};

use super::{Papers, Slots};
use crate::AgentError;
use crate::files::Files;
use crate::update::Slot;

/// What is written or read at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// The devices that are the slots. Files may stand in for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Slot `a`.
    pub a: PathBuf,
    /// Slot `b`.
    pub b: PathBuf,
}

impl Devices {
    fn path(&self, slot: Slot) -> &Path {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// Whether both are what can be a slot, and not one and the same. The device that runs is mounted and is
    /// not opened.
    pub(super) fn check(&self) -> Result<(), AgentError> {
        let seen = |slot: Slot| {
            let path = self.path(slot);
            let fault = |what: String| AgentError::SlotDevice {
                slot: slot.as_str(),
                path: path.to_path_buf(),
                what,
            };
            let facts = path.metadata().map_err(|error| {
                fault(format!(
                    "{error}; it must name a partition or a volume that is there"
                ))
            })?;
            let kind = facts.file_type();
            if kind.is_block_device() {
                Ok((facts.rdev(), 0))
            } else if kind.is_file() {
                Ok((facts.dev(), facts.ino()))
            } else {
                Err(fault("it is neither a block device nor a file".into()))
            }
        };
        if seen(Slot::A)? == seen(Slot::B)? {
            return Err(AgentError::SlotDevice {
                slot: Slot::B.as_str(),
                path: self.b.clone(),
                what: "it is the device of slot a too; each slot needs its own".into(),
            });
        }
        Ok(())
    }
}

/// The slots of one device, told of in its state directory.
#[derive(Clone, Debug)]
pub(crate) struct DeviceSlots {
    papers: Papers,
    devices: Devices,
}

impl DeviceSlots {
    /// These devices, with what lies in them told of under `state`.
    #[must_use]
    pub(crate) fn new(state: &Path, devices: Devices) -> Self {
        Self {
            papers: Papers::new(state),
            devices,
        }
    }

    /// Reads the first `size` bytes of a slot, from the medium where the system can be told so.
    fn read(
        &self,
        slot: Slot,
        size: u64,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let device = File::open(self.devices.path(slot))?;
        // What stands in memory is what was written, and proves nothing. Where the hint is not taken it is
        // compared all the same.
        let _ = fadvise(&device, 0, None, Advice::DontNeed);
        let mut rest = device.take(size);
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = rest.read(&mut block)?;
            if read == 0 {
                return Ok(());
            }
            take(block.get(..read).unwrap_or_default())?;
        }
    }
}

/// What the system says of a device that cannot be opened, with its name and, where something else has it, what to do.
fn in_words(path: &Path, error: io::Error) -> io::Error {
    let mend = match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "; it is mounted, or something else holds it: a slot is for images alone, so unmount it or name another"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("{}: {error}{mend}", path.display()))
}

impl Slots for DeviceSlots {
    fn image(&self, slot: Slot) -> PathBuf {
        self.devices.path(slot).to_path_buf()
    }

    #[cfg(test)]
    fn manifest(&self, slot: Slot) -> PathBuf {
        self.papers.manifest(slot)
    }

    fn room(&self, slot: Slot) -> io::Result<u64> {
        File::open(self.devices.path(slot))?.seek(SeekFrom::End(0))
    }

    fn install(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        signed: &[u8],
        manifest: &Manifest,
    ) -> io::Result<()> {
        let path = self.devices.path(slot);
        let mut source = File::open(image)?;
        // Before the papers go: a device that is refused keeps what is told of it.
        let device = files
            .open_device(path)
            .map_err(|error| in_words(path, error))?;
        self.papers.empty(files, slot)?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut at = 0;
        loop {
            let read = source.read(&mut block)?;
            if read == 0 {
                break;
            }
            files.write_at(&device, at, block.get(..read).unwrap_or_default())?;
            at += read as u64;
        }
        drop(device);
        files.sync(path)?;
        let mut hasher = Hasher::new();
        self.read(slot, manifest.size, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        if hasher.finish() != manifest.sha256 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} does not hold what was written to it", path.display()),
            ));
        }
        self.papers.fill(files, slot, signed)?;
        files.remove(image)
    }

    fn take_back(
        &self,
        files: &dyn Files,
        slot: Slot,
        image: &Path,
        signed: &[u8],
        size: u64,
    ) -> io::Result<()> {
        if !self.papers.has(slot, signed)? {
            return Ok(());
        }
        let mut file = files.open(image)?;
        self.read(slot, size, |bytes| files.append(&mut file, bytes))?;
        // The manifest stays until something is written over the image.
        files.sync(image)
    }
}
