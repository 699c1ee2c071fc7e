//! Where verbs find the passphrase of a private key: a file, the environment, or a systemd credential. Never the command
//! line, which every process can read.

use crate::cli::PassphraseSource;
use ::ca::Passphrase;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const VARIABLE: &str = "MUSTER_PASSPHRASE";
/// In the directory that systemd names (`LoadCredential=`).
const CREDENTIAL: &str = "muster-passphrase";

/// The passphrase, if there is one.
pub(super) fn find(source: &PassphraseSource) -> anyhow::Result<Option<Passphrase>> {
    if let Some(file) = &source.passphrase_file {
        return read(file).map(Some);
    }
    if let Some(text) = std::env::var_os(VARIABLE) {
        let text = Zeroizing::new(text.into_encoded_bytes());
        return Passphrase::new(&text).context(VARIABLE).map(Some);
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let credential = credentials.map(|dir| PathBuf::from(dir).join(CREDENTIAL));
    match credential.filter(|file| file.exists()) {
        Some(file) => read(&file).map(Some),
        None => Ok(None),
    }
}

/// The passphrase, which there must be.
pub(super) fn require(source: &PassphraseSource) -> anyhow::Result<Passphrase> {
    match find(source)? {
        Some(passphrase) => Ok(passphrase),
        None => bail!(
            "a passphrase is needed: --passphrase-file FILE, the variable {VARIABLE}, or the systemd credential {CREDENTIAL}"
        ),
    }
}

fn read(file: &Path) -> anyhow::Result<Passphrase> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let text = Zeroizing::new(text);
    Passphrase::new(&text).with_context(|| file.display().to_string())
}
