//! Keys in a token behind PKCS #11 (a hardware security module, a smart card, SoftHSM): made there,
//! used there, never seen here.
//!
//! The token is opened when it is first needed and let go of when it fails, so that one that was
//! away is used again once it is back.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use aws_lc_rs::rand;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use data_encoding::HEXLOWER;
use der::asn1::{Any, BitString, Null, ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use super::{Custody, CustodyError};
use crate::error::CaError;
use crate::public_key::{KeyKind, PublicKey};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// 65537, big-endian.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// Octets of a key's id in the token (CKA_ID).
pub(super) const ID_BYTES: usize = 16;

/// A token and how it is opened. Clones share it.
#[derive(Clone)]
pub struct Token {
    inner: Arc<Inner>,
}

struct Inner {
    module: PathBuf,
    label: String,
    pin: Zeroizing<String>,
    open: Mutex<Option<Open>>,
}

/// Dropped in this order: the session, then what it belongs to.
struct Open {
    session: Session,
    context: Pkcs11,
}

impl Token {
    /// A token by its label, behind the library `module`. Nothing is opened yet.
    #[must_use]
    pub fn new(module: PathBuf, label: String, pin: Zeroizing<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                module,
                label,
                pin,
                open: Mutex::new(None),
            }),
        }
    }

    /// The token's label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// Makes a key pair in the token; the private key can neither be read nor taken out. What was
    /// made and cannot be used is removed again.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for a kind that no token is asked for; [`CaError::Custody`], saying what
    /// the token is missing or answered.
    pub(crate) fn generate(&self, kind: KeyKind) -> Result<TokenKey, CaError> {
        let (mechanism, of_kind) = making(kind)?;
        let mut id = [0; ID_BYTES];
        rand::fill(&mut id).map_err(|_| CaError::Cryptography("make random octets"))?;
        let name = format!("muster {}", HEXLOWER.encode(&id));
        let made = self.with(|session| {
            let shared = |of_public: bool| {
                vec![
                    Attribute::Token(true),
                    Attribute::Private(!of_public),
                    Attribute::Id(id.to_vec()),
                    Attribute::Label(name.clone().into_bytes()),
                ]
            };
            let mut public = shared(true);
            public.extend(of_kind.iter().cloned());
            public.push(Attribute::Verify(true));
            let mut private = shared(false);
            private.extend([
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ]);
            let (public, _) = session.generate_key_pair(&mechanism, &public, &private)?;
            shown(session, public, kind)
        });
        let key = |public| TokenKey {
            token: self.clone(),
            id: id.to_vec(),
            public,
        };
        let public = match made {
            Ok(info) => info.and_then(|info| PublicKey::from_der(&info).ok()),
            Err(error) => {
                // The public half may have failed to be read after both were made.
                let _ = self.destroy(&id);
                return Err(error.into());
            }
        };
        match public {
            Some(public) if public.kind() == kind => Ok(key(public)),
            _ => {
                let _ = self.destroy(&id);
                let reason = "it made a key and does not show the public half";
                Err(self.failed(reason.to_owned()).into())
            }
        }
    }

    /// Removes both halves of the key with an id; that there is none is no error.
    ///
    /// # Errors
    /// What the token is missing or answered.
    pub(crate) fn destroy(&self, id: &[u8]) -> Result<(), CustodyError> {
        self.with(|session| {
            for object in session.find_objects(&[Attribute::Id(id.to_vec())])? {
                session.destroy_object(object)?;
            }
            Ok(())
        })
    }

    /// The key with an id, which is that of `public`. Whether the token has it shows when it signs.
    pub(crate) fn key(&self, id: Vec<u8>, public: PublicKey) -> TokenKey {
        TokenKey {
            token: self.clone(),
            id,
            public,
        }
    }

    /// Does something in a session that is logged in. What fails is tried once more in a fresh one:
    /// the token may have been away.
    pub(super) fn with<T>(
        &self,
        work: impl Fn(&Session) -> Result<T, Error>,
    ) -> Result<T, CustodyError> {
        let mut open = self.inner.open.lock();
        let was_open = open.is_some();
        let mut outcome = self.attempt(&mut open, &work);
        if outcome.is_err() && was_open {
            close(&mut open);
            outcome = self.attempt(&mut open, &work);
        }
        if outcome.is_err() {
            close(&mut open);
        }
        outcome
    }

    /// Does something with the handle of the private key with this id.
    pub(super) fn with_private<T>(
        &self,
        id: &[u8],
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>,
    ) -> Result<T, CustodyError> {
        let template = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Id(id.to_vec()),
        ];
        let done = self.with(|session| {
            let keys = session.find_objects(&template)?;
            keys.first().map(|key| work(session, *key)).transpose()
        })?;
        done.ok_or_else(|| {
            let what = format!("the key {} is not in it", uri(self, id));
            self.failed(what)
        })
    }

    fn attempt<T>(
        &self,
        open: &mut Option<Open>,
        work: &impl Fn(&Session) -> Result<T, Error>,
    ) -> Result<T, CustodyError> {
        let open = match open {
            Some(open) => open,
            None => open.insert(self.open()?),
        };
        work(&open.session).map_err(|error| self.failed(said(&error)))
    }

    fn open(&self) -> Result<Open, CustodyError> {
        let module = &self.inner.module;
        let failed = |error: &Error| self.failed(said(error));
        let context = Pkcs11::new(module).map_err(|error| {
            let module = module.display();
            self.failed(format!("its library {module} cannot be loaded ({error})"))
        })?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failed(&error)),
        }
        let session = self.log_in(&context);
        match session {
            Ok(session) => Ok(Open { session, context }),
            Err(error) => {
                // So that a token that comes later is seen.
                let _ = context.finalize();
                Err(error)
            }
        }
    }

    fn log_in(&self, context: &Pkcs11) -> Result<Session, CustodyError> {
        let failed = |error: Error| self.failed(said(&error));
        let slots = context.get_slots_with_initialized_token().map_err(failed)?;
        let slot = slots.into_iter().find(|slot| {
            let info = context.get_token_info(*slot);
            info.is_ok_and(|info| info.label() == self.inner.label)
        });
        let Some(slot) = slot else {
            return Err(self.failed(
                "no token of that label is there: plug it in, or set ca.pkcs11_token".to_owned(),
            ));
        };
        let session = context.open_rw_session(slot).map_err(failed)?;
        let pin = AuthPin::new(self.inner.pin.as_str().into());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(RvError::PinIncorrect, _)) => Err(self.failed(
                "its PIN is another; it locks itself after some tries, so nothing is tried again by itself"
                    .to_owned(),
            )),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn failed(&self, reason: String) -> CustodyError {
        CustodyError {
            reason: format!("token {:?}: {reason}", self.inner.label),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("module", &self.inner.module)
            .field("label", &self.inner.label)
            .finish_non_exhaustive()
    }
}

fn close(open: &mut Option<Open>) {
    if let Some(Open { session, context }) = open.take() {
        drop(session);
        // The next time its library is begun anew: only then are tokens looked for again.
        let _ = context.finalize();
    }
}

fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(answer, function) => format!("it answered {function:?} with {answer}"),
        other => other.to_string(),
    }
}

/// How a kind of key is made, and what its public half is told.
fn making(kind: KeyKind) -> Result<(Mechanism<'static>, Vec<Attribute>), CaError> {
    let curve = |oid: ObjectIdentifier| {
        let parameters = oid
            .to_der()
            .map_err(|_| CaError::Cryptography("name a curve"))?;
        Ok((
            Mechanism::EccKeyPairGen,
            vec![Attribute::EcParams(parameters)],
        ))
    };
    match kind {
        KeyKind::P256 => curve(P256),
        KeyKind::P384 => curve(P384),
        KeyKind::Rsa(bits) => {
            let length = bits.try_into().map_err(|_| {
                let reason = "an RSA key has 2048 to 4096 bits";
                CaError::invalid("key kind", &bits.to_string(), reason)
            })?;
            Ok((
                Mechanism::RsaPkcsKeyPairGen,
                vec![
                    Attribute::ModulusBits(length),
                    Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
                ],
            ))
        }
        KeyKind::Ed25519 => {
            let reason = "keys in a token are made as p256, p384 or RSA";
            Err(CaError::invalid("key kind", "ed25519", reason))
        }
    }
}

/// The SubjectPublicKeyInfo of a public key in the token.
fn shown(session: &Session, key: ObjectHandle, kind: KeyKind) -> Result<Option<Vec<u8>>, Error> {
    let curve = match kind {
        KeyKind::P256 => P256,
        KeyKind::P384 => P384,
        _ => {
            let asked = [AttributeType::Modulus, AttributeType::PublicExponent];
            let (mut modulus, mut exponent) = (None, None);
            for attribute in session.get_attributes(key, &asked)? {
                match attribute {
                    Attribute::Modulus(found) => modulus = Some(found),
                    Attribute::PublicExponent(found) => exponent = Some(found),
                    _ => {}
                }
            }
            return Ok(modulus.zip(exponent).and_then(|(n, e)| rsa_key(&n, &e)));
        }
    };
    Ok(ec_point(session, key)?.and_then(|point| ec_key(curve, &point)))
}

pub(super) fn ec_point(session: &Session, key: ObjectHandle) -> Result<Option<Vec<u8>>, Error> {
    let found = session.get_attributes(key, &[AttributeType::EcPoint])?;
    Ok(found.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(point),
        _ => None,
    }))
}

/// A public key out of CKA_EC_POINT: an OCTET STRING around the uncompressed point, or, from some
/// tokens, the point itself.
fn ec_key(curve: ObjectIdentifier, point: &[u8]) -> Option<Vec<u8>> {
    let inner = OctetString::from_der(point);
    let point = inner.as_ref().map_or(point, |inner| inner.as_bytes());
    let info = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: EC_PUBLIC_KEY,
            parameters: Some(Any::from(curve)),
        },
        subject_public_key: BitString::from_bytes(point).ok()?,
    };
    info.to_der().ok()
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let numbers = yasna::construct_der(|writer| {
        writer.write_sequence(|numbers| {
            numbers.next().write_bigint_bytes(modulus, true);
            numbers.next().write_bigint_bytes(exponent, true);
        });
    });
    let info = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: RSA,
            parameters: Some(Any::from(Null)),
        },
        subject_public_key: BitString::from_bytes(&numbers).ok()?,
    };
    info.to_der().ok()
}

/// A key in a token.
pub(crate) struct TokenKey {
    token: Token,
    id: Vec<u8>,
    public: PublicKey,
}

impl TokenKey {
    /// Removes it for good.
    ///
    /// # Errors
    /// What the token is missing or answered.
    pub(crate) fn destroy(&self) -> Result<(), CustodyError> {
        self.token.destroy(&self.id)
    }

    /// Where it is, as a PKCS #11 URI (RFC 7512).
    pub(crate) fn uri(&self) -> String {
        uri(&self.token, &self.id)
    }
}

/// Where a private key is, as a PKCS #11 URI (RFC 7512).
pub(super) fn uri(token: &Token, id: &[u8]) -> String {
    let id: String = id.iter().map(|octet| format!("%{octet:02X}")).collect();
    let token = utf8_percent_encode(token.label(), NON_ALPHANUMERIC);
    format!("pkcs11:token={token};id={id};type=private")
}

/// The token's label and the key's id in a PKCS #11 URI that [`uri`] wrote.
pub(crate) fn read_uri(text: &str) -> Option<(String, Vec<u8>)> {
    let attributes = text.trim_end().strip_prefix("pkcs11:")?;
    let value = |name: &str| {
        let mut found = attributes.split(';').filter_map(|one| one.split_once('='));
        let (_, value) = found.find(|(found, _)| *found == name)?;
        Some(percent_decode_str(value).collect::<Vec<u8>>())
    };
    Some((String::from_utf8(value("token")?).ok()?, value("id")?))
}

impl TokenKey {
    /// Does something with the private key's handle.
    fn with_key<T>(
        &self,
        work: impl Fn(&Session, ObjectHandle) -> Result<T, Error>,
    ) -> Result<T, CustodyError> {
        self.token.with_private(&self.id, work)
    }
}

impl Custody for TokenKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CustodyError> {
        let (hash, half) = match self.public.kind() {
            KeyKind::P256 => (digest(&SHA256, message), 32),
            KeyKind::P384 => (digest(&SHA384, message), 48),
            KeyKind::Rsa(_) => {
                let mechanism = Mechanism::Sha256RsaPkcs;
                return self.with_key(|session, key| session.sign(&mechanism, key, message));
            }
            KeyKind::Ed25519 => {
                let reason = "an Ed25519 key in a token is not used".to_owned();
                return Err(self.token.failed(reason));
            }
        };
        let signature =
            self.with_key(|session, key| session.sign(&Mechanism::Ecdsa, key, hash.as_ref()))?;
        match signature.split_at_checked(half) {
            Some((r, s)) if s.len() == half => Ok(yasna::construct_der(|writer| {
                writer.write_sequence(|numbers| {
                    numbers.next().write_bigint_bytes(r, true);
                    numbers.next().write_bigint_bytes(s, true);
                });
            })),
            _ => Err(self
                .token
                .failed(format!("its signature has {} octets", signature.len()))),
        }
    }

    fn ready(&self) -> Result<(), CustodyError> {
        self.with_key(|_, _| Ok(()))
    }
}
