//! Where secrets come from: a file, the environment, or a systemd credential. Never the command line, which every
//! process of the machine can read.

use anyhow::Context as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A secret by the names it has in each place.
pub(crate) struct Secret<'a> {
    /// The file that was named, if one was; nothing else is looked at then.
    pub(crate) file: Option<&'a Path>,
    /// The environment variable.
    pub(crate) variable: &'static str,
    /// The file in the directory that systemd names (`LoadCredential=`).
    pub(crate) credential: &'static str,
}

impl Secret<'_> {
    /// The secret with where it was found, if it is anywhere.
    pub(crate) fn find(&self) -> anyhow::Result<Option<(Zeroizing<Vec<u8>>, String)>> {
        if let Some(file) = self.file {
            return read(file).map(Some);
        }
        if let Some(text) = std::env::var_os(self.variable) {
            let text = Zeroizing::new(text.into_encoded_bytes());
            return Ok(Some((text, self.variable.to_owned())));
        }
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
        let credential = directory.map(|dir| PathBuf::from(dir).join(self.credential));
        match credential.filter(|file| file.exists()) {
            Some(file) => read(&file).map(Some),
            None => Ok(None),
        }
    }
}

fn read(file: &Path) -> anyhow::Result<(Zeroizing<Vec<u8>>, String)> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok((Zeroizing::new(text), file.display().to_string()))
}
