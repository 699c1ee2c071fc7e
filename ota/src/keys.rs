//! Release keys: Ed25519, in the files everyone's tools read (PKCS#8 and SPKI PEM), and their TUF ids.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use data_encoding::HEXLOWER;
use pem::{EncodeConfig, LineEnding, Pem};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::canonical::canonical;
use crate::digest::sha256;
use crate::{Error, Sha256};

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PUBLIC_BYTES: usize = 32;

/// A key's id as TUF has it: SHA-256 of the canonical JSON of the key (TUF 1.0 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Sha256);

impl KeyId {
    pub(crate) const fn digest(&self) -> &Sha256 {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The public half: what a trust root names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

impl PublicKey {
    /// Reads `release.pub` or `online.pub`: a SubjectPublicKeyInfo PEM with an Ed25519 key.
    ///
    /// # Errors
    /// [`Error::Key`] where the text is something else; a private key is named as such.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = section(text, PUBLIC_LABEL)?;
        // RFC 8410 §4: an Ed25519 SPKI ends with the 32 bytes of the key. Whether these are the key is
        // settled by encoding them again and comparing the whole.
        let raw = der
            .last_chunk::<PUBLIC_BYTES>()
            .copied()
            .ok_or_else(not_ed25519)?;
        let key = Self(raw);
        if key.der()? == *der {
            Ok(key)
        } else {
            Err(not_ed25519())
        }
    }

    /// The SubjectPublicKeyInfo PEM.
    ///
    /// # Errors
    /// [`Error::Key`] where the bytes are no point of the curve.
    pub fn to_pem(&self) -> Result<String, Error> {
        Ok(written(&Pem::new(PUBLIC_LABEL, self.der()?)))
    }

    /// The raw key in lower-case hex, as TUF's `keyval.public` carries it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// The raw key (RFC 8032).
    ///
    /// # Errors
    /// [`Error::Key`] where the bytes are no point of the curve.
    pub fn from_raw(raw: [u8; PUBLIC_BYTES]) -> Result<Self, Error> {
        let key = Self(raw);
        key.der()?;
        Ok(key)
    }

    pub(crate) fn from_hex(text: &str) -> Result<Self, Error> {
        let bytes = HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| not_ed25519())?;
        let key = Self(bytes.try_into().map_err(|_| not_ed25519())?);
        key.der()?;
        Ok(key)
    }

    /// The key's TUF id.
    ///
    /// # Errors
    /// Never in practice; canonical JSON is fallible in its types.
    pub fn id(&self) -> Result<KeyId, Error> {
        Ok(KeyId(sha256(&canonical(&self.to_tuf())?)))
    }

    pub(crate) fn to_tuf(self) -> serde_json::Value {
        serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": self.to_hex()}})
    }

    /// Whether `signature` is this key's over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        parse(&self.0).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }

    fn der(&self) -> Result<Vec<u8>, Error> {
        let parsed = parse(&self.0)?;
        let der: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| not_ed25519())?;
        Ok(der.as_ref().to_vec())
    }
}

fn parse(raw: &[u8; PUBLIC_BYTES]) -> Result<ParsedPublicKey, Error> {
    ParsedPublicKey::new(&ED25519, raw).map_err(|_| not_ed25519())
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.to_hex())
    }
}

/// What signs with an Ed25519 key that is kept elsewhere: in a token, with a service.
pub trait Signer: Send + Sync {
    /// Signs `message` (64 bytes, RFC 8032).
    ///
    /// # Errors
    /// Why it cannot, in words.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// The private half of a release key (or of the server's online key), or the way to it. Its `Debug` shows
/// the public half.
pub struct ReleaseKey {
    secret: Secret,
    public: PublicKey,
}

enum Secret {
    Here(Ed25519KeyPair),
    Elsewhere(Box<dyn Signer>),
}

impl ReleaseKey {
    /// A new key from the system's random source.
    ///
    /// # Errors
    /// [`Error::Key`] where the random source fails.
    pub fn generate() -> Result<Self, Error> {
        let pair = Ed25519KeyPair::generate().map_err(|_| Error::Key {
            why: "the system gave no randomness for a new key".into(),
        })?;
        Self::of(pair)
    }

    /// Reads `release.key`: a PKCS#8 PEM with an Ed25519 key (RFC 8410; what `openssl genpkey` writes too).
    ///
    /// # Errors
    /// [`Error::Key`] where the text is something else.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der = Zeroizing::new(section(text, PRIVATE_LABEL)?);
        let pair = Ed25519KeyPair::from_pkcs8(&der)
            .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der))
            .map_err(|_| not_ed25519())?;
        Self::of(pair)
    }

    /// The PKCS#8 PEM; wiped from memory when dropped. Write it with mode 0600.
    ///
    /// # Errors
    /// [`Error::Key`] where the key cannot be encoded.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, Error> {
        let Secret::Here(pair) = &self.secret else {
            return Err(Error::Key {
                why: "it is kept elsewhere and cannot be taken out".into(),
            });
        };
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| not_ed25519())?;
        Ok(Zeroizing::new(written(&Pem::new(
            PRIVATE_LABEL,
            der.as_ref(),
        ))))
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// A key of which only the public half is known here.
    #[must_use]
    pub fn elsewhere(public: PublicKey, signer: Box<dyn Signer>) -> Self {
        Self {
            secret: Secret::Elsewhere(signer),
            public,
        }
    }

    /// Signs `message` (64 bytes, RFC 8032).
    ///
    /// # Errors
    /// [`Error::Key`] where the key is kept elsewhere and what keeps it does not sign, or signs with
    /// another key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.secret {
            Secret::Here(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Secret::Elsewhere(signer) => {
                let signature = signer.sign(message).map_err(|why| Error::Key { why })?;
                if self.public.verifies(message, &signature) {
                    return Ok(signature);
                }
                Err(Error::Key {
                    why: "what keeps it signed with another key".into(),
                })
            }
        }
    }

    fn of(pair: Ed25519KeyPair) -> Result<Self, Error> {
        let raw: [u8; PUBLIC_BYTES] = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| not_ed25519())?;
        Ok(Self {
            secret: Secret::Here(pair),
            public: PublicKey(raw),
        })
    }
}

impl fmt::Debug for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleaseKey({})", self.public.to_hex())
    }
}

/// With the line ends that other tools write here.
fn written(pem: &Pem) -> String {
    pem::encode_config(pem, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn not_ed25519() -> Error {
    Error::Key {
        why: "it holds no Ed25519 key; make one with `muster firmware keygen`".into(),
    }
}

fn section(text: &str, label: &'static str) -> Result<Vec<u8>, Error> {
    let found = pem::parse(text).map_err(|_| Error::Key {
        why: format!("it is not one PEM section `-----BEGIN {label}-----`"),
    })?;
    if found.tag() != label {
        let mend = match (label, found.tag()) {
            (PUBLIC_LABEL, PRIVATE_LABEL) => {
                "; this is a private key: give the .pub file, and keep this one offline"
            }
            (PRIVATE_LABEL, PUBLIC_LABEL) => {
                "; this is a public key: give the .key file to sign with"
            }
            _ => "",
        };
        let tag: String = found.tag().chars().take(40).collect();
        return Err(Error::Key {
            why: format!("it holds `{tag}`, not `{label}`{mend}"),
        });
    }
    Ok(found.into_contents())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_files_and_signs_the_same() {
        let key = ReleaseKey::generate().unwrap();
        let again = ReleaseKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(key.public(), again.public());
        let public = PublicKey::from_pem(&key.public().to_pem().unwrap()).unwrap();
        let signature = again.sign(b"image").unwrap();
        assert!(public.verifies(b"image", &signature));
        assert!(!public.verifies(b"other", &signature));
        assert!(!public.verifies(b"image", b"short"));
    }

    #[test]
    fn a_key_another_tool_made_is_read() {
        // RFC 8410 §10.3 and §10.1.
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let key = ReleaseKey::from_pem(private).unwrap();
        assert_eq!(key.public(), PublicKey::from_pem(public).unwrap());
        assert_eq!(
            key.public().to_pem().unwrap(),
            public,
            "written as others write it"
        );
        assert_eq!(key.to_pem().unwrap().as_str(), private);
        assert_eq!(
            key.public().to_hex(),
            "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
        );
    }

    #[test]
    fn the_wrong_file_is_named() {
        let key = ReleaseKey::generate().unwrap();
        let private = key.to_pem().unwrap();
        let error = PublicKey::from_pem(&private).unwrap_err().to_string();
        assert!(error.contains("this is a private key"), "{error}");
        let error = ReleaseKey::from_pem(&key.public().to_pem().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("this is a public key"), "{error}");
        let error = ReleaseKey::from_pem("hello").unwrap_err().to_string();
        assert!(error.contains("PEM"), "{error}");
    }

    #[test]
    fn the_id_is_the_hash_of_the_canonical_key() {
        let public =
            PublicKey::from_hex("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1")
                .unwrap();
        let text = format!(
            r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#,
            public.to_hex()
        );
        assert_eq!(
            public.id().unwrap().to_string(),
            sha256(text.as_bytes()).to_string()
        );
    }

    #[test]
    fn a_key_kept_elsewhere_signs_as_itself_or_not_at_all() {
        struct Kept(Option<ReleaseKey>);
        impl Signer for Kept {
            fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
                let key = self.0.as_ref().ok_or("it is unplugged")?;
                key.sign(message).map_err(|error| error.to_string())
            }
        }
        let key = ReleaseKey::generate().unwrap();
        let public = key.public();
        let kept = ReleaseKey::elsewhere(public, Box::new(Kept(Some(key))));
        assert!(public.verifies(b"image", &kept.sign(b"image").unwrap()));
        assert!(kept.to_pem().unwrap_err().to_string().contains("taken out"));
        let other = ReleaseKey::generate().unwrap();
        for (signer, words) in [(None, "it is unplugged"), (Some(other), "another key")] {
            let broken = ReleaseKey::elsewhere(public, Box::new(Kept(signer)));
            let said = broken.sign(b"image").unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn debug_never_shows_the_private_half() {
        let key = ReleaseKey::generate().unwrap();
        let pem = key.to_pem().unwrap();
        let seed = pem.lines().nth(1).unwrap();
        assert!(!format!("{key:?}").contains(seed));
        assert!(format!("{key:?}").contains(&key.public().to_hex()));
    }
}
