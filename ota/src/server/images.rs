//! Whether the images that are kept are still what they were: looked at once after each start, one after the
//! other, on a thread of its own. What is not is handed to nobody until its package is added again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::thread;

use store::BlobCheck;
use tracing::{error, info};

use super::records::Firmware;
use super::{Inner, Ota};
use crate::{Error, Sha256};

/// Rows read at once.
const PAGE: usize = 100;

/// Starts the look at all that is kept; it ends with the room.
///
/// # Errors
/// Where the rows cannot be read; what the operating system said.
pub(super) fn start(ota: &Ota) -> Result<(), Error> {
    let kept = kept(ota)?;
    if kept.is_empty() {
        return Ok(());
    }
    let (room, check) = (Arc::downgrade(&ota.inner), ota.inner.blobs.check());
    thread::Builder::new()
        .name("images".into())
        .spawn(move || match look(&room, &check, &kept) {
            Ok(files) => info!(files, "the images that are kept were looked at"),
            Err(error) => error!(%error, "the images that are kept could not be looked at"),
        })
        .map(drop)
        .map_err(|source| Error::Io {
            what: "starting the images thread",
            source,
        })
}

/// A file, and whose it is.
pub(super) struct KeptFile {
    of: String,
    hash: Sha256,
    size: Option<u64>,
}

/// All files there should be.
pub(super) fn kept(ota: &Ota) -> Result<Vec<KeptFile>, Error> {
    let (mut kept, mut after) = (Vec::new(), None);
    loop {
        let page = ota.firmwares(after.as_deref(), PAGE)?;
        let Some(last) = page.last() else {
            return Ok(kept);
        };
        after = Some(format!("{}/{}", last.name, last.version));
        for firmware in &page {
            let of = || format!("{} {}", firmware.name, firmware.version);
            kept.extend(files(firmware).into_iter().map(|(hash, size)| KeptFile {
                of: of(),
                hash,
                size,
            }));
        }
    }
}

/// Looks at each, and notes those that are not what they were; how many it looked at. The room is not held
/// meanwhile.
pub(super) fn look(
    room: &Weak<Inner>,
    check: &BlobCheck,
    kept: &[KeptFile],
) -> Result<usize, Error> {
    for (looked, file) in kept.iter().enumerate() {
        if room.strong_count() == 0 {
            return Ok(looked);
        }
        let holds = || check.holds(&file.hash.to_string(), file.size);
        if holds()? {
            continue;
        }
        let Some(ota) = room.upgrade().map(|inner| Ota { inner }) else {
            return Ok(looked);
        };
        let _turn = ota.turn();
        // Its package may have come again meanwhile.
        if !holds()? {
            error!(
                firmware = file.of, file = %file.hash,
                "a kept file is damaged or gone; devices do not get it until its package is added again"
            );
            ota.damaged().insert(file.hash);
        }
    }
    Ok(kept.len())
}

/// The files of a firmware, with their sizes where they are known.
fn files(firmware: &Firmware) -> BTreeMap<Sha256, Option<u64>> {
    let deltas = firmware.deltas.iter();
    deltas
        .map(|delta| (delta.sha256, Some(delta.size)))
        .chain([
            (firmware.manifest_sha256, None),
            (firmware.sha256, Some(firmware.size)),
        ])
        .collect()
}

impl Ota {
    fn damaged(&self) -> MutexGuard<'_, BTreeSet<Sha256>> {
        self.inner
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a file that was found damaged.
    pub(super) fn whole(&self, firmware: &Firmware, hash: &Sha256) -> Result<(), Error> {
        if self.damaged().contains(hash) {
            return Err(Error::Damaged {
                firmware: format!("{} {}", firmware.name, firmware.version),
            });
        }
        Ok(())
    }

    /// Forgets that a file was damaged: it has come again.
    pub(super) fn mended(&self, hash: &Sha256) {
        self.damaged().remove(hash);
    }
}
