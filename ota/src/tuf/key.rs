//! Keys as TUF metadata carries them (TUF 1.0 §4.2.2): Ed25519, ECDSA and RSA.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use serde_json::Value;

use crate::signed::Verifier;

#[derive(Deserialize)]
struct KeyWire {
    keytype: String,
    scheme: String,
    keyval: KeyValueWire,
}

#[derive(Deserialize)]
struct KeyValueWire {
    public: String,
}

/// A key that can be used. Two are equal where the key material is, so that one key under two ids counts
/// once towards a threshold (TUF 1.0 §4.3).
#[derive(Clone, Debug)]
pub(super) struct Key {
    parsed: ParsedPublicKey,
    /// SubjectPublicKeyInfo, whatever form the metadata had.
    spki: Vec<u8>,
}

impl Key {
    /// `None` for a key of a kind unknown here, or one that is not what it says: it never verifies
    /// anything, and the metadata that names it may still be met by other keys.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let wire = KeyWire::deserialize(value).ok()?;
        let algorithm = algorithm(&wire.keytype, &wire.scheme)?;
        let parsed = ParsedPublicKey::new(algorithm, material(&wire.keyval.public)?).ok()?;
        let der: PublicKeyX509Der<'_> = parsed.as_der().ok()?;
        let spki = der.as_ref().to_vec();
        Some(Self { parsed, spki })
    }
}

fn algorithm(keytype: &str, scheme: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (keytype, scheme) {
        ("ed25519", "ed25519") => &ED25519,
        ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => &ECDSA_P256_SHA256_ASN1,
        ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => &ECDSA_P384_SHA384_ASN1,
        ("rsa", "rsassa-pss-sha256") => &RSA_PSS_2048_8192_SHA256,
        ("rsa", "rsassa-pss-sha384") => &RSA_PSS_2048_8192_SHA384,
        ("rsa", "rsassa-pss-sha512") => &RSA_PSS_2048_8192_SHA512,
        ("rsa", "rsa-pkcs1v15-sha256") => &RSA_PKCS1_2048_8192_SHA256,
        ("rsa", "rsa-pkcs1v15-sha384") => &RSA_PKCS1_2048_8192_SHA384,
        ("rsa", "rsa-pkcs1v15-sha512") => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

/// The specification has PEM for RSA and ECDSA and hex for Ed25519.
fn material(public: &str) -> Option<Vec<u8>> {
    if public.starts_with("-----BEGIN ") {
        return Some(pem::parse(public).ok()?.into_contents());
    }
    HEXLOWER_PERMISSIVE.decode(public.as_bytes()).ok()
}

impl Verifier for Key {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.spki.cmp(&other.spki)
    }
}

/// The keys a delegator names, by the ids it gives them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "BTreeMap<String, Value>")]
pub(super) struct Keys(BTreeMap<String, Option<Key>>);

impl From<BTreeMap<String, Value>> for Keys {
    fn from(wire: BTreeMap<String, Value>) -> Self {
        Self(
            wire.into_iter()
                .map(|(id, value)| (id, Key::read(&value)))
                .collect(),
        )
    }
}

impl Keys {
    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.get(id)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// RFC 8410 §10.1's key and one of the P-256 curve (RFC 6979 §A.2.5).
    const ED25519_HEX: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    const P256_POINT: &str = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb67903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";

    fn key(keytype: &str, scheme: &str, public: &str) -> Option<Key> {
        Key::read(&json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}}))
    }

    #[test]
    fn one_key_in_two_forms_is_one_key() {
        let hex = key("ed25519", "ed25519", ED25519_HEX).unwrap();
        assert_eq!(hex, key("ed25519", "ed25519", ED25519_PEM).unwrap());
        let point = key("ecdsa", "ecdsa-sha2-nistp256", P256_POINT).unwrap();
        let named = key("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", P256_POINT).unwrap();
        assert_eq!(point, named);
        assert_ne!(point, hex);
    }

    #[test]
    fn a_key_of_an_unknown_kind_or_a_broken_one_is_no_key() {
        for (keytype, scheme, public) in [
            ("ml-dsa", "ml-dsa-65/1", ED25519_HEX),
            ("ed25519", "ed25519ph", ED25519_HEX),
            ("rsa", "rsassa-pss-sha256", ED25519_PEM),
            ("ecdsa", "ecdsa-sha2-nistp256", ED25519_HEX),
            ("ecdsa", "ecdsa-sha2-nistp384", P256_POINT),
            ("ed25519", "ed25519", "zz"),
            ("ed25519", "ed25519", ""),
            ("ed25519", "ed25519", "-----BEGIN PUBLIC KEY-----"),
        ] {
            assert!(key(keytype, scheme, public).is_none(), "{keytype} {scheme}");
        }
        assert!(Key::read(&json!({"keytype": "ed25519"})).is_none());
        let keys = Keys::from(BTreeMap::from([
            ("new".to_owned(), json!({"keytype": "new"})),
            (
                "old".to_owned(),
                json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": ED25519_HEX}}),
            ),
        ]));
        assert!(keys.get("new").is_none() && keys.get("none").is_none());
        assert!(keys.get("old").is_some());
    }
}
