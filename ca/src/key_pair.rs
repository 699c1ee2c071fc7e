//! Key pairs made here for those who bring no request of their own.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::error::CaError;
use crate::pem;
use crate::public_key::PublicKey;

/// A P-256 key pair. Its secret is wiped from memory when it is dropped and never shown by
/// `Debug`.
pub struct KeyPair {
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl KeyPair {
    /// A fresh P-256 key pair.
    ///
    /// # Errors
    /// [`CaError::Cryptography`] when the library cannot make one.
    pub fn generate() -> Result<Self, CaError> {
        let failed = |_| CaError::Cryptography("make a key pair");
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(failed)?;
        Self::from_pkcs8(document.as_ref()).ok_or(CaError::Cryptography("read its own key"))
    }

    /// Reads a PEM PKCS#8 P-256 key; `None` when it is anything else.
    #[must_use]
    pub fn from_pem(text: &[u8]) -> Option<Self> {
        let mut key = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
        let pair = Self::from_pkcs8(key.secret_pkcs8_der());
        key.zeroize();
        pair
    }

    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let public = public_of(&signer(der)?)?;
        Some(Self {
            pkcs8: Zeroizing::new(der.to_owned()),
            public,
        })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The secret as PEM PKCS#8 (RFC 5958); wiped when dropped.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// A certificate signing request of this key, as PEM (RFC 2986). Who signs it decides about the name.
    ///
    /// # Errors
    /// [`CaError::Cryptography`] when the library cannot make one.
    pub fn request(&self, common_name: &str) -> Result<String, CaError> {
        let failed = |_| CaError::Cryptography("make a certificate signing request");
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.as_slice());
        let key = rcgen::KeyPair::try_from(&der).map_err(failed)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = rcgen::DnType::CommonName;
        params.distinguished_name.push(name, common_name);
        params
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(failed)
    }

    /// The secret in the shape rustls takes.
    #[must_use]
    pub fn private_key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()).into()
    }

    /// The pair as something that signs; the secret then lives in the library's memory, which
    /// wipes it when freed.
    pub(crate) fn into_signer(self) -> Option<(EcdsaKeyPair, PublicKey)> {
        Some((signer(&self.pkcs8)?, self.public))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("kind", &self.public.kind())
            .finish_non_exhaustive()
    }
}

fn signer(pkcs8: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).ok()
}

fn public_of(pair: &EcdsaKeyPair) -> Option<PublicKey> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    PublicKey::from_der(der.as_ref()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_request_is_one_we_take() {
        let pair = KeyPair::generate().unwrap();
        let request = crate::Csr::parse(pair.request("lamp-1").unwrap().as_bytes()).unwrap();
        assert_eq!(request.public_key(), pair.public());
    }

    #[test]
    fn pem_round_trip_and_silent_debug() {
        let pair = KeyPair::generate().unwrap();
        let text = pair.to_pem();
        let again = KeyPair::from_pem(text.as_bytes()).unwrap();
        assert_eq!(again.public(), pair.public());
        assert_eq!(format!("{pair:?}"), "KeyPair { kind: P256, .. }");
        assert!(text.lines().all(|line| line.len() <= 64));
        assert!(KeyPair::from_pem(&text.as_bytes()[..text.len() / 2]).is_none());
    }
}
