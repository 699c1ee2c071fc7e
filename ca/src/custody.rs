//! Where signing keys live. Nothing outside of this module knows whether a key is a file.
//!
//! A custodian shows its public key and signs; the secret never leaves it. The one here keeps a
//! PEM PKCS#8 file; a hardware token fits behind the same trait.

use std::cell::OnceCell;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;

use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::key_pair::KeyPair;
use crate::public_key::PublicKey;

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
}

/// A P-256 key in a PEM PKCS#8 file of mode 0600.
pub struct FileKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl FileKey {
    /// Makes a key and its file; both durable on return.
    ///
    /// # Errors
    /// [`CaError::File`] and [`CaError::Cryptography`].
    pub(crate) fn create(path: &Path) -> Result<Self, CaError> {
        let pair = KeyPair::generate()?;
        durable::write(path, pair.to_pem().as_bytes(), Readers::Owner)?;
        Self::of(pair).ok_or(CaError::Cryptography("read its own key"))
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// [`CaError::Missing`], [`CaError::Exposed`], [`CaError::Damaged`] and [`CaError::File`],
    /// each naming the file.
    pub fn open(path: &Path) -> Result<Self, CaError> {
        let (contents, mode) = durable::read(path)?.ok_or_else(|| CaError::Missing {
            path: path.to_owned(),
        })?;
        if mode & 0o077 != 0 {
            return Err(CaError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        KeyPair::from_pem(&contents)
            .and_then(Self::of)
            .ok_or_else(|| CaError::Damaged {
                path: path.to_owned(),
                problem: "holds no whole P-256 private key in PEM PKCS#8".to_owned(),
            })
    }

    fn of(pair: KeyPair) -> Option<Self> {
        let (pair, public) = pair.into_signer()?;
        Some(Self { pair, public })
    }
}

impl Custody for FileKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_owned())
            .map_err(|_| CustodyError {
                reason: "the cryptographic library failed to sign".to_owned(),
            })
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
