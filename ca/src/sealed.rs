//! Private keys under a passphrase: PKCS#8 EncryptedPrivateKeyInfo (RFC 5958 §3) with PBES2
//! (RFC 8018 §6.2). PBKDF2 with HMAC-SHA-256 and AES-256-CBC are written, which every OpenSSL
//! reads; PBKDF2 with any SHA-2 and AES-128 or AES-256 are read.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA384, PBKDF2_HMAC_SHA512};
use aws_lc_rs::rand;
use der::{Decode, Encode};
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{self, Kdf, Pbkdf2Prf};
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use crate::error::CaError;
use crate::pem;

const LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// Rounds of the key derivation, as OWASP's password storage cheat sheet has it for HMAC-SHA-256.
const ROUNDS: u32 = 600_000;
/// Most rounds that are gone through for a file of others: about ten seconds.
const MAX_ROUNDS: u32 = 20_000_000;
/// Characters of the shortest passphrase that something is sealed with.
const MIN_PASSPHRASE_CHARS: usize = 12;
/// Octets of the longest passphrase.
const MAX_PASSPHRASE_BYTES: usize = 1024;
const SALT_BYTES: usize = 16;
const IV_BYTES: usize = 16;

/// What a private key is encrypted under. Wiped from memory when dropped, never shown.
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes what a file or a variable holds; one line end behind it does not belong to it.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for nothing, for more than 1024 octets, and for what is no text.
    pub fn new(text: &[u8]) -> Result<Self, CaError> {
        let refused = |reason: &str| CaError::invalid("passphrase", "(not shown)", reason);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() || text.len() > MAX_PASSPHRASE_BYTES {
            return Err(refused("it has 1 to 1024 octets"));
        }
        let text = std::str::from_utf8(text).map_err(|_| refused("it is text in UTF-8"))?;
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text, for handing it on.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Whether a PEM text is of a private key under a passphrase.
pub(crate) fn is_sealed(text: &[u8]) -> bool {
    parse_x509_pem(text).is_ok_and(|(_, pem)| pem.label == LABEL)
}

/// Encrypts a PKCS#8 key.
pub(crate) fn seal(pkcs8: &[u8], passphrase: &Passphrase) -> Result<String, CaError> {
    if passphrase.0.chars().count() < MIN_PASSPHRASE_CHARS {
        let reason = "a key is sealed under 12 characters or more";
        return Err(CaError::invalid("passphrase", "(not shown)", reason));
    }
    let failed = CaError::Cryptography("encrypt a private key");
    let mut salt = [0; SALT_BYTES];
    let mut iv = [0; IV_BYTES];
    if rand::fill(&mut salt).is_err() || rand::fill(&mut iv).is_err() {
        return Err(failed);
    }
    let Ok(parameters) = pbes2::Parameters::pbkdf2_sha256_aes256cbc(ROUNDS, &salt, &iv) else {
        return Err(failed);
    };
    let scheme = Scheme {
        derivation: PBKDF2_HMAC_SHA256,
        rounds: ROUNDS,
        salt: &salt,
        cipher: &AES_256,
        iv,
    };
    let mut data = pkcs8.to_vec();
    let key = scheme.key(passphrase).and_then(|key| {
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
        // A salt and an initialisation vector for this one message.
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        key.less_safe_encrypt(&mut data, context).ok()
    });
    let info = EncryptedPrivateKeyInfo {
        encryption_algorithm: EncryptionScheme::Pbes2(parameters),
        encrypted_data: &data,
    };
    match (key, info.to_der()) {
        (Some(_), Ok(der)) => Ok(pem::encode(LABEL, &der).as_str().to_owned()),
        _ => Err(failed),
    }
}

/// Decrypts a key: PKCS#8 in DER.
pub(crate) fn open(text: &[u8], passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, CaError> {
    let refused = |reason: &str| CaError::invalid("encrypted private key", "(not shown)", reason);
    let (_, pem) = parse_x509_pem(text).map_err(|_| refused("it is not whole PEM"))?;
    let info = EncryptedPrivateKeyInfo::from_der(&pem.contents)
        .map_err(|_| refused("it is not an EncryptedPrivateKeyInfo (RFC 5958) with PBES2"))?;
    let scheme = Scheme::of(&info.encryption_algorithm).ok_or_else(|| {
        refused("its encryption is PBES2 with PBKDF2 (SHA-256, SHA-384 or SHA-512) and AES-128-CBC or AES-256-CBC; `openssl pkcs8 -topk8 -v2 aes-256-cbc` makes that")
    })?;
    let mut data = Zeroizing::new(info.encrypted_data.to_vec());
    let length = scheme.key(passphrase).and_then(|key| {
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let context = DecryptionContext::Iv128(FixedLength::from(scheme.iv));
        Some(key.decrypt(&mut data, context).ok()?.len())
    });
    let length = length.ok_or_else(|| refused("the passphrase is another"))?;
    data.truncate(length);
    Ok(data)
}

/// How a key is derived and what it deciphers.
struct Scheme<'a> {
    derivation: pbkdf2::Algorithm,
    rounds: u32,
    salt: &'a [u8],
    cipher: &'static Algorithm,
    iv: [u8; IV_BYTES],
}

impl<'a> Scheme<'a> {
    fn of(scheme: &EncryptionScheme<'a>) -> Option<Self> {
        let EncryptionScheme::Pbes2(parameters) = scheme else {
            return None;
        };
        let Kdf::Pbkdf2(derivation) = &parameters.kdf else {
            return None;
        };
        let (cipher, iv) = match parameters.encryption {
            pbes2::EncryptionScheme::Aes128Cbc { iv } => (&AES_128, *iv),
            pbes2::EncryptionScheme::Aes256Cbc { iv } => (&AES_256, *iv),
            _ => return None,
        };
        if derivation.iteration_count > MAX_ROUNDS {
            return None;
        }
        Some(Self {
            derivation: match derivation.prf {
                Pbkdf2Prf::HmacWithSha256 => PBKDF2_HMAC_SHA256,
                Pbkdf2Prf::HmacWithSha384 => PBKDF2_HMAC_SHA384,
                Pbkdf2Prf::HmacWithSha512 => PBKDF2_HMAC_SHA512,
                _ => return None,
            },
            rounds: derivation.iteration_count,
            salt: derivation.salt,
            cipher,
            iv,
        })
    }

    fn key(&self, passphrase: &Passphrase) -> Option<UnboundCipherKey> {
        let rounds = NonZeroU32::new(self.rounds)?;
        let length = if self.cipher == &AES_256 { 32 } else { 16 };
        let mut key = Zeroizing::new(vec![0; length]);
        pbkdf2::derive(
            self.derivation,
            rounds,
            self.salt,
            passphrase.as_bytes(),
            &mut key,
        );
        UnboundCipherKey::new(self.cipher, &key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passphrases() {
        let read = |text: &[u8]| Passphrase::new(text).map(|one| one.reveal().to_owned());
        assert_eq!(read(b"a b \r\n").unwrap(), "a b ");
        assert_eq!(read(b"a\n\n").unwrap(), "a\n");
        for bad in [&b""[..], b"\n", &[b'x'; 1025], b"\xff"] {
            assert!(read(bad).is_err());
        }
        let short = Passphrase::new(b"only eleven").unwrap();
        assert!(seal(b"key", &short).unwrap_err().to_string().contains("12"));
        assert_eq!(format!("{short:?}"), "Passphrase(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// No panic, no endless derivation.
        #[test]
        fn rubbish_is_refused(der in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = pem::encode(LABEL, &der);
            let passphrase = Passphrase::new(b"passphrase").unwrap();
            prop_assert!(is_sealed(text.as_bytes()));
            prop_assert!(open(text.as_bytes(), &passphrase).is_err());
        }
    }
}
