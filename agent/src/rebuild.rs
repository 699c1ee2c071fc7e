//! Makes an image out of the one that runs here and a delta, so that fewer bytes are fetched.
//!
//! The delta is fetched like an image, against its own signed hashes. What it makes is checked against
//! the signed image chunk by chunk as it is written; the old image is read where the delta says. Memory
//! does not depend on the size of either. Where anything is wrong with the delta, or the old image is
//! not what it was, the whole image is fetched instead: a delta saves bytes and decides nothing.

use std::fs::File;
use std::path::Path;

use ota::{Content, DeltaSource, ImageCheck, Manifest, delta};

use crate::download::{Download, DownloadFault};

/// A delta about to be fetched and applied.
pub(crate) struct Rebuild<'a> {
    /// Where it comes from, and the disk.
    pub download: &'a Download<'a>,
    /// What its image must be.
    pub manifest: &'a Manifest,
    /// What it must be.
    pub delta: &'a DeltaSource,
    /// The image that runs here.
    pub old: &'a Path,
}

impl Rebuild<'_> {
    /// Fetches the delta at `path` into `patch` and makes the image in `partial`, complete, correct
    /// and durable. `false` where the whole image is to be fetched instead; what is correct of it
    /// stays in `partial`.
    ///
    /// # Errors
    /// [`DownloadFault::Cancelled`], [`DownloadFault::Disk`].
    pub(crate) fn run(
        &self,
        path: &str,
        patch: &Path,
        partial: &Path,
    ) -> Result<bool, DownloadFault> {
        let done = self
            .download
            .run(path, Content::delta(self.manifest, self.delta), patch)
            .and_then(|()| self.apply(patch, partial));
        let made = match done {
            Ok(()) => {
                tracing::info!(
                    "{} made of {} and a delta of {} bytes, in the place of {}",
                    self.manifest.title(),
                    self.delta.from,
                    self.delta.size,
                    self.manifest.size
                );
                true
            }
            Err(DownloadFault::Wrong(words)) => {
                tracing::warn!(
                    "{}: no use of the delta from {}: {words}; fetching the whole image",
                    self.manifest.title(),
                    self.delta.from
                );
                false
            }
            Err(fault) => return Err(fault),
        };
        self.download.files.remove(patch)?;
        Ok(made)
    }

    fn apply(&self, patch: &Path, partial: &Path) -> Result<(), DownloadFault> {
        let wrong = |error: ota::Error| DownloadFault::Wrong(error.to_string());
        let old = File::open(self.old)
            .map_err(|error| DownloadFault::Wrong(format!("the image that runs here: {error}")))?;
        let patch = File::open(patch)?;
        let files = self.download.files;
        let mut file = files.open(partial)?;
        files.truncate(&file, 0)?;
        let mut check = ImageCheck::new(self.manifest);
        let mut verified = 0;
        let done = delta::apply(patch, old, self.manifest.size, |bytes| {
            if self.download.cancel.is_cancelled() {
                return Err(DownloadFault::Cancelled);
            }
            files.append(&mut file, bytes)?;
            let fine = check.update(bytes);
            verified = check.verified();
            fine.map_err(wrong)
        });
        let done = done.and_then(|()| check.finish().map_err(wrong));
        match done {
            Ok(()) => files.sync(partial)?,
            // What was signed stays: it need not be fetched again.
            Err(DownloadFault::Wrong(_)) => files.truncate(&file, verified)?,
            Err(_) => {}
        }
        done
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
