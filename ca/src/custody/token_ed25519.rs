//! Ed25519 keys in a token: what signs firmware metadata, where the authority's own keys are P-256.

use aws_lc_rs::rand;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, ObjectClass};
use data_encoding::HEXLOWER;
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode, Encode};

use super::CustodyError;
use super::token::{ID_BYTES, Token, ec_point, read_uri, uri};
use crate::error::CaError;

/// RFC 8410 §3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const PUBLIC_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 key in a token. The private half can neither be read nor taken out.
#[derive(Debug)]
pub struct TokenSigner {
    token: Token,
    id: Vec<u8>,
    public: [u8; PUBLIC_BYTES],
}

impl TokenSigner {
    /// Makes a key pair in the token.
    ///
    /// # Errors
    /// [`CaError::Custody`], saying what the token is missing or answered.
    pub fn generate(token: &Token) -> Result<Self, CaError> {
        let mut id = [0; ID_BYTES];
        rand::fill(&mut id).map_err(|_| CaError::Cryptography("make random octets"))?;
        let name = format!("muster release {}", HEXLOWER.encode(&id));
        let curve = ED25519
            .to_der()
            .map_err(|_| CaError::Cryptography("name a curve"))?;
        let point = token.with(|session| {
            let shared = |of_public: bool| {
                vec![
                    Attribute::Token(true),
                    Attribute::Private(!of_public),
                    Attribute::Id(id.to_vec()),
                    Attribute::Label(name.clone().into_bytes()),
                ]
            };
            let mut public = shared(true);
            public.extend([Attribute::EcParams(curve.clone()), Attribute::Verify(true)]);
            let mut private = shared(false);
            private.extend([
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ]);
            let mechanism = Mechanism::EccEdwardsKeyPairGen;
            let (public, _) = session.generate_key_pair(&mechanism, &public, &private)?;
            ec_point(session, public)
        })?;
        Self::of(token, id.to_vec(), point)
    }

    /// The key that a URI from [`TokenSigner::uri`] names.
    ///
    /// # Errors
    /// [`CaError::Custody`] where the token is away or has no such key.
    pub fn open(token: &Token, uri: &str) -> Result<Self, CaError> {
        let Some((_, id)) = read_uri(uri) else {
            return Err(token
                .failed("the URI names no key by token= and id=".to_owned())
                .into());
        };
        let template = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::Id(id.clone()),
        ];
        let point = token.with(|session| {
            let found = session.find_objects(&template)?;
            let point = found.first().map(|key| ec_point(session, *key));
            point.transpose().map(Option::flatten)
        })?;
        Self::of(token, id, point)
    }

    /// CKA_EC_POINT is an OCTET STRING around the key, or, from some tokens, the key itself.
    fn of(token: &Token, id: Vec<u8>, point: Option<Vec<u8>>) -> Result<Self, CaError> {
        let public = point.and_then(|point| {
            let inner = OctetString::from_der(&point);
            let raw = inner
                .as_ref()
                .map_or(point.as_slice(), |inner| inner.as_bytes());
            <[u8; PUBLIC_BYTES]>::try_from(raw).ok()
        });
        match public {
            Some(public) => Ok(Self {
                token: token.clone(),
                id,
                public,
            }),
            None => {
                let what = format!("the key {} is not in it", uri(token, &id));
                Err(token.failed(what).into())
            }
        }
    }

    /// The public half (RFC 8032).
    #[must_use]
    pub const fn public(&self) -> [u8; PUBLIC_BYTES] {
        self.public
    }

    /// Where it is, as a PKCS #11 URI (RFC 7512).
    #[must_use]
    pub fn uri(&self) -> String {
        uri(&self.token, &self.id)
    }

    /// Signs `message` (64 octets, RFC 8032).
    ///
    /// # Errors
    /// [`CustodyError`] where the token is away or refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CustodyError> {
        let signature = self.token.with_private(&self.id, |session, key| {
            let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
            session.sign(&mechanism, key, message)
        })?;
        if signature.len() == SIGNATURE_BYTES {
            return Ok(signature);
        }
        Err(self
            .token
            .failed(format!("its signature has {} octets", signature.len())))
    }
}

/// The token that a URI names.
#[must_use]
pub fn token_of(uri: &str) -> Option<String> {
    read_uri(uri).map(|(token, _)| token)
}
