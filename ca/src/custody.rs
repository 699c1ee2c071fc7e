//! Where signing keys live. Nothing outside of this module knows whether a key is a file.
//!
//! A custodian shows its public key and signs; the secret never leaves it. One keeps a PEM PKCS#8
//! file, in the clear or encrypted, another a key in a token behind PKCS #11.

mod keyring;
mod token;
mod token_ed25519;

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use crate::durable;
use crate::error::CaError;
use crate::public_key::PublicKey;
use crate::sealed::{self, Passphrase};
use crate::secret_key::SecretKey;

pub use keyring::{KeyCustody, Keyring};
pub(crate) use keyring::{copy, find};
pub use token::Token;
pub use token_ed25519::{TokenSigner, token_of};

/// A custodian that did not sign.
#[derive(Debug, thiserror::Error)]
#[error("the signing key could not be used: {reason}")]
pub struct CustodyError {
    /// The custodian's reason.
    pub reason: String,
}

/// Something that holds a signing key.
pub trait Custody: Send + Sync {
    /// The public half. Its kind settles the signature algorithm: ECDSA with SHA-256 on P-256 and
    /// SHA-384 on P-384, Ed25519, PKCS#1 v1.5 with SHA-256 for RSA.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message` (which is not hashed yet); the signature as X.509 carries it.
    ///
    /// # Errors
    /// [`CustodyError`] when the key cannot be used now.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CustodyError>;

    /// Whether it could sign now, as far as that can be told without signing.
    ///
    /// # Errors
    /// [`CustodyError`] when the key cannot be used now.
    fn ready(&self) -> Result<(), CustodyError> {
        Ok(())
    }

    /// The secret itself, where the custodian can give it out.
    fn secret(&self) -> Option<&SecretKey> {
        None
    }
}

/// A key in a PEM PKCS#8 file of mode 0600.
pub struct FileKey {
    secret: SecretKey,
}

impl FileKey {
    /// Reads a key's file.
    ///
    /// # Errors
    /// [`CaError::Missing`], [`CaError::Exposed`], [`CaError::Damaged`] and [`CaError::File`],
    /// each naming the file.
    pub fn open(path: &Path) -> Result<Self, CaError> {
        Self::open_with(path, None)
    }

    /// The same of one that may be encrypted.
    ///
    /// # Errors
    /// As [`Self::open`], and [`CaError::Locked`] without its passphrase.
    pub(crate) fn open_with(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self, CaError> {
        let (contents, mode) = durable::read(path)?.ok_or_else(|| CaError::Missing {
            path: path.to_owned(),
        })?;
        if mode & 0o077 != 0 {
            return Err(CaError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let secret = SecretKey::from_pem(&contents, passphrase).map_err(|_| {
            if sealed::is_sealed(&contents) {
                CaError::Locked {
                    path: path.to_owned(),
                    mend: "it is encrypted under another passphrase than the one given, or none was: ca.key_passphrase_file, the variable MUSTER_CA_PASSPHRASE or the systemd credential muster-ca-passphrase".to_owned(),
                }
            } else {
                CaError::Damaged {
                    path: path.to_owned(),
                    problem: "holds no whole private key in PEM PKCS#8".to_owned(),
                }
            }
        })?;
        Ok(Self { secret })
    }
}

impl From<SecretKey> for FileKey {
    /// A key that is in memory only.
    fn from(secret: SecretKey) -> Self {
        Self { secret }
    }
}

impl Custody for FileKey {
    fn public_key(&self) -> &PublicKey {
        self.secret.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.secret.sign(message).ok_or_else(|| CustodyError {
            reason: "the cryptographic library failed to sign".to_owned(),
        })
    }

    fn secret(&self) -> Option<&SecretKey> {
        Some(&self.secret)
    }
}

/// A key that several hold.
impl Custody for Arc<FileKey> {
    fn public_key(&self) -> &PublicKey {
        self.as_ref().public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.as_ref().sign(message)
    }

    fn secret(&self) -> Option<&SecretKey> {
        self.as_ref().secret()
    }
}

/// Looks at what is about to be signed, and refuses what must not be.
pub(crate) type Look<'a> = &'a dyn Fn(&[u8]) -> Result<(), CaError>;

/// A custodian in the shape the encoder takes, for one signature.
pub(crate) struct Signer<'a> {
    custody: &'a dyn Custody,
    /// Looks at what is about to be signed.
    look: Option<Look<'a>>,
    /// The encoder's error type has no room for a custodian's reason.
    failure: OnceCell<CaError>,
}

impl<'a> Signer<'a> {
    pub(crate) fn new(custody: &'a dyn Custody) -> Self {
        Self {
            custody,
            look: None,
            failure: OnceCell::new(),
        }
    }

    /// One that signs only what `look` lets pass.
    pub(crate) fn looking(custody: &'a dyn Custody, look: Look<'a>) -> Self {
        Self {
            look: Some(look),
            ..Self::new(custody)
        }
    }

    /// The error of an encoder that was signing with this.
    pub(crate) fn explain(self, error: rcgen::Error) -> CaError {
        match self.failure.into_inner() {
            Some(failure) => failure,
            None => CaError::Encode(error),
        }
    }
}

impl rcgen::PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.custody.public_key().der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.custody.public_key().algorithm()
    }
}

impl rcgen::SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let looked = self.look.map_or(Ok(()), |look| look(message));
        let signed = looked.and_then(|()| Ok(self.custody.sign(message)?));
        signed.map_err(|failure| {
            // One signature, one failure: the cell is empty.
            let _ = self.failure.set(failure);
            rcgen::Error::RemoteKeyError
        })
    }
}
