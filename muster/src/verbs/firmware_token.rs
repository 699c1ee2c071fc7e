//! Release keys in a PKCS #11 token. The file that stands in for such a key is a PKCS #11 URI (RFC 7512): which
//! token, which key, which library, and where the PIN is; it holds no secret.

use crate::secret::Secret;
use anyhow::{Context as _, bail};
use ca::{Token, TokenSigner};
use ota::{PublicKey, ReleaseKey, Signer};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::{fmt, path::PathBuf};
use zeroize::Zeroizing;

/// A token, and what it takes to use it.
pub(super) struct Place {
    label: String,
    module: PathBuf,
    pin_file: Option<PathBuf>,
}

impl Place {
    pub(super) const fn new(label: String, module: PathBuf, pin_file: Option<PathBuf>) -> Self {
        Self {
            label,
            module,
            pin_file,
        }
    }

    /// The place that a key file names; `None` where the file holds something else than a URI.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim_end();
        let label = ca::token_of(text.split('?').next()?)?;
        let (_, query) = text.split_once('?')?;
        let value = |name: &str| {
            let mut found = query.split('&').filter_map(|one| one.split_once('='));
            let (_, value) = found.find(|(found, _)| *found == name)?;
            percent_decode_str(value)
                .decode_utf8()
                .ok()
                .map(String::from)
        };
        let pin = value("pin-source");
        Some(Self {
            label,
            module: value("module-path")?.into(),
            pin_file: pin.map(|pin| pin.strip_prefix("file:").unwrap_or(&pin).into()),
        })
    }

    /// Makes a key in the token; and what to write to its file.
    pub(super) fn generate(&self) -> anyhow::Result<(ReleaseKey, String)> {
        let signer = TokenSigner::generate(&self.token()?)?;
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let module = self.module.to_str().context("--module: not a UTF-8 path")?;
        let mut reference = format!("{}?module-path={}", signer.uri(), encode(module));
        if let Some(file) = &self.pin_file {
            let file = std::path::absolute(file)?;
            let file = file.to_str().context("--pin-file: not a UTF-8 path")?;
            reference += &format!("&pin-source=file:{}", encode(file));
        }
        reference.push('\n');
        Ok((key(signer)?, reference))
    }

    /// The key that a file which [`Place::generate`] has filled stands for.
    pub(super) fn open(&self, text: &str) -> anyhow::Result<ReleaseKey> {
        let uri = text.split('?').next().unwrap_or_default();
        key(TokenSigner::open(&self.token()?, uri)?)
    }

    fn token(&self) -> anyhow::Result<Token> {
        let pin = Secret {
            file: self.pin_file.as_deref(),
            variable: "MUSTER_PKCS11_PIN",
            credential: "muster-pkcs11-pin",
        };
        let Some((text, place)) = pin.find()? else {
            bail!(
                "the token's PIN is needed: --pin-file at keygen, or the variable MUSTER_PKCS11_PIN"
            );
        };
        let text = std::str::from_utf8(&text).with_context(|| format!("{place}: no text"))?;
        let pin = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        Ok(Token::new(self.module.clone(), self.label.clone(), pin))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {:?}", self.label)
    }
}

struct InToken(TokenSigner);

impl Signer for InToken {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(message).map_err(|error| error.to_string())
    }
}

fn key(signer: TokenSigner) -> anyhow::Result<ReleaseKey> {
    let public = PublicKey::from_raw(signer.public())?;
    Ok(ReleaseKey::elsewhere(public, Box::new(InToken(signer))))
}
