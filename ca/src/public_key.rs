//! Public keys that may stand in a certificate, and why others may not.

use rcgen::PublicKeyData;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_DSA, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521,
    OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS, OID_SIG_ED448, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::roca;

use crate::facts::parse;

/// What every refusal ends with.
const ACCEPTED: &str = "accepted are ECDSA P-256, ECDSA P-384, Ed25519 and RSA 2048 to 4096";

/// Bits of the smallest RSA modulus.
const MIN_RSA_BITS: usize = 2048;
/// Bits of the largest RSA modulus: verifying a larger one costs the server more than it is worth.
const MAX_RSA_BITS: usize = 4096;
/// Octets of the largest RSA exponent that the TLS library verifies with.
const MAX_RSA_EXPONENT_BYTES: usize = 4;

/// The kinds of key a certificate may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256, the default.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA with a modulus of that many bits.
    Rsa(usize),
}

/// A key that no certificate is issued for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is {found}: {ACCEPTED}")]
pub struct KeyRefused {
    /// What the key is.
    pub found: String,
}

/// A public key of an accepted kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    info: rcgen::SubjectPublicKeyInfo,
    der: Vec<u8>,
    kind: KeyKind,
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    ///
    /// Whether an elliptic-curve point lies on its curve shows when a signature is verified with
    /// it, which [`crate::Csr::parse`] does.
    ///
    /// # Errors
    /// [`KeyRefused`] naming what was found and what is accepted.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyRefused> {
        let (rest, parsed) = SubjectPublicKeyInfo::from_der(der)
            .map_err(|_| refused("not readable as a public key"))?;
        if !rest.is_empty() {
            return Err(refused("followed by trailing octets"));
        }
        let kind = kind_of(&parsed)?;
        let info = rcgen::SubjectPublicKeyInfo::from_der(der).map_err(|_| {
            refused("of an accepted kind, but its parameters are not those of the standard")
        })?;
        Ok(Self {
            info,
            der: der.to_owned(),
            kind,
        })
    }

    /// Reads the key that a DER certificate is for.
    ///
    /// # Errors
    /// [`KeyRefused`] for what is no readable certificate, and as [`PublicKey::from_der`].
    pub fn of_certificate(der: &[u8]) -> Result<Self, KeyRefused> {
        let certificate = parse(der).map_err(|error| refused(error.to_string()))?;
        Self::from_der(certificate.public_key().raw)
    }

    /// The DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The kind of the key.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        self.info.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.info.algorithm()
    }
}

fn refused(found: impl Into<String>) -> KeyRefused {
    KeyRefused {
        found: found.into(),
    }
}

fn kind_of(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, KeyRefused> {
    let algorithm = &key.algorithm.algorithm;
    let octets: &[u8] = &key.subject_public_key.data;
    if key.subject_public_key.unused_bits != 0 {
        return Err(refused("not a whole number of octets"));
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        // Explicit parameters are a SEQUENCE in the name's place, and open to forgery.
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .filter(|any| any.tag() == Tag::Oid)
            .and_then(|any| any.as_oid().ok());
        let (kind, length, name) = match curve {
            Some(oid) if oid == OID_EC_P256 => (KeyKind::P256, 65, "P-256"),
            Some(oid) if oid == OID_NIST_EC_P384 => (KeyKind::P384, 97, "P-384"),
            Some(oid) if oid == OID_NIST_EC_P521 => return Err(refused("ECDSA P-521")),
            Some(oid) => return Err(refused(format!("ECDSA on the curve {oid}"))),
            None => return Err(refused("an elliptic-curve key without a named curve")),
        };
        // RFC 5480 §2.2: the uncompressed form, which every verifier must take.
        return if octets.first() == Some(&4) && octets.len() == length {
            Ok(kind)
        } else {
            Err(refused(format!(
                "an ECDSA {name} key that is not an uncompressed point"
            )))
        };
    }
    if *algorithm == OID_SIG_ED25519 {
        return if octets.len() == 32 {
            Ok(KeyKind::Ed25519)
        } else {
            Err(refused("an Ed25519 key that is not 32 octets long"))
        };
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return rsa_kind(key);
    }
    Err(refused(match algorithm {
        oid if *oid == OID_KEY_TYPE_DSA => "DSA".to_owned(),
        oid if *oid == OID_SIG_ED448 => "Ed448".to_owned(),
        oid if *oid == OID_PKCS1_RSASSAPSS => "RSA restricted to PSS".to_owned(),
        oid => format!("of the unknown algorithm {oid}"),
    }))
}

fn rsa_kind(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, KeyRefused> {
    let Ok(ParsedKey::RSA(rsa)) = key.parsed() else {
        return Err(refused("an RSA key that cannot be read"));
    };
    let (Some(modulus), Some(exponent)) = (magnitude(rsa.modulus), magnitude(rsa.exponent)) else {
        return Err(refused(
            "an RSA key with a modulus or exponent that is not positive",
        ));
    };
    let bits = modulus.len() * 8
        - modulus
            .first()
            .map_or(0, |first| first.leading_zeros() as usize);
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(refused(format!("RSA {bits}")));
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    if !odd(modulus) {
        return Err(refused("an RSA key with an even modulus"));
    }
    if !odd(exponent) || exponent == [1] || exponent.len() > MAX_RSA_EXPONENT_BYTES {
        return Err(refused(
            "an RSA key whose exponent is not an odd number from 3 up to 32 bits (65537 is usual)",
        ));
    }
    if roca::has_fingerprint(modulus) {
        return Err(refused(
            "an RSA key of a library whose keys can be broken (ROCA, CVE-2017-15361): make it with another",
        ));
    }
    Ok(KeyKind::Rsa(bits))
}

/// The octets of a positive DER INTEGER without its sign octet, which is there only where it must.
fn magnitude(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => Some(rest),
        [first, ..] if (1..0x80).contains(first) => Some(integer),
        _ => None,
    }
}
