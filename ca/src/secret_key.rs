//! Private keys that authorities sign with, of every kind that a certificate may carry, and the
//! files that hold them: PEM PKCS#8, in the clear or under a passphrase.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::{Zeroize, Zeroizing};

use crate::error::CaError;
use crate::pem;
use crate::public_key::{KeyKind, PublicKey};
use crate::sealed::{self, Passphrase};

/// A private key. Its secret is wiped from memory when it is dropped and never shown by `Debug`.
pub struct SecretKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl SecretKey {
    /// A fresh key of a kind; RSA is not made here.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for RSA; [`CaError::Cryptography`].
    pub fn generate(kind: KeyKind) -> Result<Self, CaError> {
        let failed = |_| CaError::Cryptography("make a key pair");
        let random = SystemRandom::new();
        let document = match kind {
            KeyKind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random),
            KeyKind::P384 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random),
            KeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8(&random),
            KeyKind::Rsa(bits) => {
                let reason = "an authority's own key is made as p256, p384 or ed25519";
                return Err(CaError::invalid("key kind", &format!("rsa {bits}"), reason));
            }
        };
        let document = document.map_err(failed)?;
        Self::from_pkcs8(document.as_ref()).ok_or(CaError::Cryptography("read its own key"))
    }

    /// Reads a PEM key; one under a passphrase needs it.
    ///
    /// # Errors
    /// [`CaError::Invalid`], saying what the text is instead, or that the passphrase is missing or
    /// another; never the key.
    pub fn from_pem(text: &[u8], passphrase: Option<&Passphrase>) -> Result<Self, CaError> {
        let refused = |reason: &str| CaError::invalid("private key", "(not shown)", reason);
        let unknown = "it is PKCS#8 of a P-256, P-384, Ed25519 or RSA (2048 to 4096) key";
        if sealed::is_sealed(text) {
            let passphrase = passphrase
                .ok_or_else(|| refused("it is encrypted, and no passphrase was given"))?;
            let pkcs8 = sealed::open(text, passphrase)?;
            return Self::from_pkcs8(&pkcs8).ok_or_else(|| refused(unknown));
        }
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| {
            refused("it is one PRIVATE KEY or ENCRYPTED PRIVATE KEY in PEM; make that of others with `openssl pkcs8 -topk8`")
        })?;
        let key = Self::from_pkcs8(der.secret_pkcs8_der());
        der.zeroize();
        key.ok_or_else(|| refused(unknown))
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let (pair, spki) = read(der)?;
        Some(Self {
            pkcs8: Zeroizing::new(der.to_owned()),
            public: PublicKey::from_der(&spki).ok()?,
            pair,
        })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The secret as PEM PKCS#8 in the clear; wiped when dropped.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// The secret as PEM PKCS#8 under a passphrase, as `openssl pkcs8` reads it.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for a passphrase that is too short; [`CaError::Cryptography`].
    pub fn to_sealed_pem(&self, passphrase: &Passphrase) -> Result<String, CaError> {
        sealed::seal(&self.pkcs8, passphrase)
    }

    /// Signs a message that is not hashed yet; `None` when the library fails.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).ok()?;
                Some(signature.as_ref().to_owned())
            }
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_owned()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("kind", &self.public.kind())
            .finish_non_exhaustive()
    }
}

/// The pair and its SubjectPublicKeyInfo.
fn read(der: &[u8]) -> Option<(Pair, Vec<u8>)> {
    for algorithm in [
        &ECDSA_P256_SHA256_ASN1_SIGNING,
        &ECDSA_P384_SHA384_ASN1_SIGNING,
    ] {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der) {
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
            let spki = spki.as_ref().to_owned();
            return Some((Pair::Ecdsa(pair), spki));
        }
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        let spki = spki.as_ref().to_owned();
        return Some((Pair::Ed25519(pair), spki));
    }
    let pair = RsaKeyPair::from_pkcs8(der).ok()?;
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    let spki = spki.as_ref().to_owned();
    Some((Pair::Rsa(Box::new(pair)), spki))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_goes_through_pem_and_passphrase() {
        let passphrase = Passphrase::new(b"correct horse battery\n").unwrap();
        let other = Passphrase::new(b"correct horse battery!").unwrap();
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519] {
            let key = SecretKey::generate(kind).unwrap();
            assert_eq!(key.public().kind(), kind);
            let clear = SecretKey::from_pem(key.to_pem().as_bytes(), None).unwrap();
            assert_eq!(clear.public(), key.public());
            let sealed = key.to_sealed_pem(&passphrase).unwrap();
            assert!(sealed.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
            let again = SecretKey::from_pem(sealed.as_bytes(), Some(&passphrase)).unwrap();
            assert_eq!(again.public(), key.public());
            let said = |passphrase| {
                let refused = SecretKey::from_pem(sealed.as_bytes(), passphrase);
                refused.unwrap_err().to_string()
            };
            assert!(said(None).contains("no passphrase was given"));
            assert!(said(Some(&other)).contains("passphrase"));
            assert!(key.sign(b"x").is_some());
            assert_eq!(
                format!("{key:?}"),
                format!("SecretKey {{ kind: {kind:?}, .. }}")
            );
        }
        assert!(SecretKey::generate(KeyKind::Rsa(2048)).is_err());
        for junk in [
            &b""[..],
            b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
        ] {
            let said = SecretKey::from_pem(junk, None).unwrap_err().to_string();
            assert!(said.contains("openssl pkcs8 -topk8"), "{said}");
        }
    }
}
