//! What opens the authority's keys: the passphrase of encrypted files, the token and its PIN.

use crate::{config::KeySettings, secret::Secret};
use anyhow::{Context as _, bail};
use ca::{KeyCustody, Keyring, Passphrase, Token};
use zeroize::Zeroizing;

pub(crate) fn keyring(settings: &KeySettings) -> anyhow::Result<Keyring> {
    let passphrase = Secret {
        file: settings.passphrase_file.as_deref(),
        variable: "MUSTER_CA_PASSPHRASE",
        credential: "muster-ca-passphrase",
    };
    let passphrase = match passphrase.find()? {
        Some((text, place)) => Some(Passphrase::new(&text).context(place)?),
        None => None,
    };
    let token = match (&settings.pkcs11_module, &settings.pkcs11_token) {
        (Some(module), Some(label)) => {
            Some(Token::new(module.clone(), label.clone(), pin(settings)?))
        }
        (None, None) if settings.custody != KeyCustody::Pkcs11 => None,
        _ => bail!(
            "ca.pkcs11_module and ca.pkcs11_token: both are needed for keys in a token (the library, e.g. /usr/lib/softhsm/libsofthsm2.so, and the token's label)"
        ),
    };
    Ok(Keyring {
        custody: settings.custody,
        passphrase,
        token,
    })
}

fn pin(settings: &KeySettings) -> anyhow::Result<Zeroizing<String>> {
    let pin = Secret {
        file: settings.pkcs11_pin_file.as_deref(),
        variable: "MUSTER_PKCS11_PIN",
        credential: "muster-pkcs11-pin",
    };
    let Some((text, place)) = pin.find()? else {
        bail!(
            "the token's PIN is needed: ca.pkcs11_pin_file, the variable MUSTER_PKCS11_PIN, or the systemd credential muster-pkcs11-pin"
        );
    };
    let text = std::str::from_utf8(&text).with_context(|| format!("{place}: no text"))?;
    Ok(Zeroizing::new(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}
