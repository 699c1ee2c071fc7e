//! The passphrase of a private key that a verb reads or writes.

use crate::{cli::PassphraseSource, secret::Secret};
use ::ca::Passphrase;
use anyhow::{Context as _, bail};

const VARIABLE: &str = "MUSTER_PASSPHRASE";
const CREDENTIAL: &str = "muster-passphrase";

/// The passphrase, if there is one.
pub(super) fn find(source: &PassphraseSource) -> anyhow::Result<Option<Passphrase>> {
    let secret = Secret {
        file: source.passphrase_file.as_deref(),
        variable: VARIABLE,
        credential: CREDENTIAL,
    };
    match secret.find()? {
        Some((text, place)) => Passphrase::new(&text).context(place).map(Some),
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
