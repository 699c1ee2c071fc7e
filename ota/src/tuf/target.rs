//! A target file: where it is, and whether bytes are it.

use super::TufError;
use super::hashes::Check;
use super::metadata::TargetFile;

/// A target that trusted targets metadata describes.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) path: String,
    pub(super) file: TargetFile,
    pub(super) consistent: bool,
}

impl Target {
    /// Its path, as the metadata has it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.file.length
    }

    /// Where it lies below the repository's targets: its path, and with consistent snapshots `HASH.` before
    /// its last part (TUF 1.0 §5.7.3). Not percent-encoded.
    #[must_use]
    pub fn remote_path(&self) -> String {
        let hash = ["sha256", "sha512", "sha384"]
            .iter()
            .find_map(|name| self.file.hashes.get(*name))
            .or_else(|| self.file.hashes.values().next());
        match (self.consistent, hash) {
            (true, Some(hash)) => {
                let (directory, slash, name) = self
                    .path
                    .rsplit_once('/')
                    .map_or(("", "", self.path.as_str()), |(directory, name)| {
                        (directory, "/", name)
                    });
                format!("{directory}{slash}{hash}.{name}")
            }
            _ => self.path.clone(),
        }
    }

    /// Begins to judge bytes against the target's length and hashes.
    ///
    /// # Errors
    /// [`TufError::Content`] where none of its hashes can be checked here.
    pub fn check(&self) -> Result<TargetCheck, TufError> {
        let what = format!("target `{}`", self.path);
        Check::new(what, Some(self.file.length), Some(&self.file.hashes)).map(TargetCheck)
    }
}

/// Bytes on their way to being a target. See [`Target::check`].
pub struct TargetCheck(Check);

impl TargetCheck {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`TufError::Content`] as soon as there are more than the target has.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        self.0.update(bytes)
    }

    /// Says whether what came is the target.
    ///
    /// # Errors
    /// [`TufError::Content`] where it is not.
    pub fn finish(self) -> Result<(), TufError> {
        self.0.finish()
    }
}
