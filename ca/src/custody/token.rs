//! Keys in a token behind PKCS #11 (a hardware security module, a smart card, SoftHSM): made there,
//! used there, never seen here.
//!
//! The token is opened when it is first needed and let go of when it fails, so that one that was
//! away is used again once it is back.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use data_encoding::HEXLOWER;
use der::asn1::{Any, BitString, ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use zeroize::Zeroizing;

use super::{Custody, CustodyError};
use crate::error::CaError;
use crate::public_key::PublicKey;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// Octets of a coordinate of P-256, and of each half of a signature.
const COORDINATE_BYTES: usize = 32;
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

    /// Makes a P-256 key pair in the token; the private key can neither be read nor taken out.
    ///
    /// # Errors
    /// [`CaError::Custody`], saying what the token is missing or answered.
    pub(crate) fn generate(&self) -> Result<TokenKey, CaError> {
        let mut id = [0; ID_BYTES];
        rand::fill(&mut id).map_err(|_| CaError::Cryptography("make random octets"))?;
        let name = format!("muster {}", HEXLOWER.encode(&id));
        let curve = P256
            .to_der()
            .map_err(|_| CaError::Cryptography("name a curve"))?;
        let point = self.with(|session| {
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
            let mechanism = Mechanism::EccKeyPairGen;
            let (public, _) = session.generate_key_pair(&mechanism, &public, &private)?;
            ec_point(session, public)
        })?;
        let public = point.as_deref().and_then(public_key).ok_or_else(|| {
            self.failed("it made a key and does not show the public half".to_owned())
        })?;
        Ok(TokenKey {
            token: self.clone(),
            id: id.to_vec(),
            public,
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

pub(super) fn ec_point(session: &Session, key: ObjectHandle) -> Result<Option<Vec<u8>>, Error> {
    let found = session.get_attributes(key, &[AttributeType::EcPoint])?;
    Ok(found.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(point),
        _ => None,
    }))
}

/// A public key out of CKA_EC_POINT: an OCTET STRING around the uncompressed point, or, from some
/// tokens, the point itself.
fn public_key(point: &[u8]) -> Option<PublicKey> {
    let inner = OctetString::from_der(point);
    let point = inner.as_ref().map_or(point, |inner| inner.as_bytes());
    let info = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: EC_PUBLIC_KEY,
            parameters: Some(Any::from(P256)),
        },
        subject_public_key: BitString::from_bytes(point).ok()?,
    };
    PublicKey::from_der(&info.to_der().ok()?).ok()
}

/// A P-256 key in a token.
pub(crate) struct TokenKey {
    token: Token,
    id: Vec<u8>,
    public: PublicKey,
}

impl TokenKey {
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
        let hash = digest(&SHA256, message);
        let signature =
            self.with_key(|session, key| session.sign(&Mechanism::Ecdsa, key, hash.as_ref()))?;
        match signature.split_at_checked(COORDINATE_BYTES) {
            Some((r, s)) if s.len() == COORDINATE_BYTES => Ok(yasna::construct_der(|writer| {
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
