//! By a one-time password over EST (RFC 7030 §4.2.1): the authority's certificates first, from a server that is known
//! by a root or its fingerprint, then the certificate. The password leaves only towards a server that was found good.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE, HEXUPPER};
use rcgen::PublicKeyData as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::place::{Place, Waiting};
use super::{EnrolError, Enrolment, Fault, Trust, chain_of, passing, read_given, signed, stranger};
use crate::clock::Clock;
use crate::https::{CertificateFault, Client, Timeouts};
use crate::identity::{TlsFault, tls_side};
use crate::renewal::{self, CA_CERTIFICATES, RenewalError, certificate, certificates};
use crate::roots::{self, Known};

/// Where a device without a certificate asks for one.
const SIMPLE_ENROL: &str = "/.well-known/est/simpleenroll";
/// Where one that has a certificate asks for the next.
const SIMPLE_REENROL: &str = "/.well-known/est/simplereenroll";
/// The largest file of roots.
const ROOTS_BYTES_MAX: u64 = 64 << 10;
/// The longest password, and the end of its line.
const PASSWORD_BYTES_MAX: u64 = 256;

/// SHA-256 of a certificate's DER, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn is_of(&self, certificate: &CertificateDer<'_>) -> bool {
        digest(&SHA256, certificate).as_ref() == self.0
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                "not a SHA-256 fingerprint: 64 hexadecimal digits, as `openssl x509 -in root.crt -noout -fingerprint -sha256` prints them".into()
            })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXUPPER.encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One attempt: afterwards the place holds the whole of an identity.
pub(super) fn attempt(
    asked: &Enrolment,
    (thing, file, trust): (&str, &Path, &Trust),
    place: &mut Place<'_>,
) -> Result<(), Fault> {
    if place.waiting().is_some() {
        // Of a claim; its key may be a thing's by now.
        place.forget()?;
    }
    let basic = credentials(thing, file)?;
    let given = match trust {
        Trust::Roots(path) => roots_in(path)?,
        Trust::Root(fingerprint) => root_by(fingerprint, asked)?,
    };
    let clock = Arc::new(Clock::since(signed(&given)));
    let (tls, verifier) = tls_side(&given, &clock, None).map_err(|fault| unusable(&fault))?;
    let client = Client::over(&tls, &asked.server, asked.https_port, Timeouts::default());
    let answer = client.document(CA_CERTIFICATES).map_err(|fault| {
        verifier.refused().map_or_else(
            || passing_of(CertificateFault::Unanswered(fault)),
            |why| stranger(&why, &asked.server, &known_by(trust)),
        )
    })?;
    let offered = certificates(&answer)?;
    let known = Known {
        own: &[],
        server: &verifier.shown(),
        now: clock.now(),
    };
    let roots = roots::follow(&given, &offered, known).unwrap_or(given);

    // All that could fail here has been done: the password is good once, and then for this key only.
    let key = place.key()?;
    let request = request(&key, Some(thing))?;
    let answer = client
        .certificate(SIMPLE_ENROL, &request, Some(&basic))
        .map_err(|fault| refused(fault, thing))?;
    let leaf = certificate(&answer)?;
    let chain = chain_of(
        &leaf,
        (&key.subject_public_key_info(), Some(thing)),
        &offered,
        &roots,
    )?;
    place.enrolled(None, &chain, thing, &roots)?;
    Ok(())
}

/// What came of asking whether a certificate is a thing's.
pub(super) enum Found {
    /// It is, and there is another for that thing now.
    Enrolled,
    /// It is nobody's.
    Nobodys,
}

/// Asks under a certificate, of which it is not known whether it was registered before the answer was lost, for the
/// next one: only a thing gets one, and its name stands in it.
pub(super) fn look(
    asked: &Enrolment,
    waiting: Waiting,
    roots: &[CertificateDer<'static>],
    place: &mut Place<'_>,
) -> Result<Found, Fault> {
    let broken = || {
        Fault::refused(
            "what was kept of an enrolment that was cut short is broken: remove enrolling.json and say it again",
        )
    };
    let own: Vec<_> = CertificateDer::pem_slice_iter(waiting.chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| broken())?;
    let own_key = PrivateKeyDer::from_pem_slice(waiting.key.as_bytes()).map_err(|_| broken())?;
    let clock = Arc::new(Clock::since(signed(&own)));
    let (tls, verifier) =
        tls_side(roots, &clock, Some((own.clone(), own_key))).map_err(|fault| unusable(&fault))?;
    let client = Client::over(&tls, &asked.server, asked.https_port, Timeouts::default());
    let key = rcgen::KeyPair::generate().map_err(RenewalError::from)?;
    let answer = match client.certificate(SIMPLE_REENROL, &request(&key, None)?, None) {
        Ok(answer) => answer,
        Err(fault) => {
            return match (verifier.refused(), passing(&fault)) {
                (Some(why), _) => Err(stranger(&why, &asked.server, "the claim's root.crt")),
                (None, Some(fault)) => Err(fault),
                (None, None) => Ok(Found::Nobodys),
            };
        }
    };
    let leaf = certificate(&answer)?;
    let mut known: Vec<_> = own.into_iter().skip(1).collect();
    known.extend(verifier.shown().into_iter().skip(1));
    let key_info = key.subject_public_key_info();
    let chain = chain_of(&leaf, (&key_info, None), &known, roots)?;
    let thing = name_of(&leaf)?;
    place.enrolled(Some(&key), &chain, &thing, roots)?;
    Ok(Found::Enrolled)
}

/// The thing that a certificate names.
fn name_of(leaf: &CertificateDer<'static>) -> Result<String, RenewalError> {
    let (_, read) =
        X509Certificate::from_der(leaf).map_err(|_| RenewalError::Answer("it cannot be read"))?;
    let name = read.subject().iter_common_name().next();
    name.and_then(|name| name.as_str().ok())
        .filter(|name| crate::identity::is_thing_name(name))
        .map(str::to_owned)
        .ok_or(RenewalError::Answer("it names no thing"))
}

fn request(key: &rcgen::KeyPair, thing: Option<&str>) -> Result<String, RenewalError> {
    Ok(BASE64.encode(renewal::request(key, thing)?.der()))
}

/// Name and password as HTTP Basic has them. Never shown.
fn credentials(thing: &str, file: &Path) -> Result<String, EnrolError> {
    const FIELD: &str = "--password-file";
    let bytes = read_given(FIELD, file, PASSWORD_BYTES_MAX)?;
    let password = bytes.trim_ascii();
    if password.is_empty() || password.iter().any(|octet| octet.is_ascii_control()) {
        return Err(EnrolError::Given {
            field: FIELD,
            value: file.display().to_string(),
            what: "holds no password alone on one line: write the last line that `muster device enrol-password` printed to it"
                .into(),
        });
    }
    Ok(BASE64.encode(&[thing.as_bytes(), b":", password].concat()))
}

fn roots_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, EnrolError> {
    const FIELD: &str = "--root";
    let bytes = read_given(FIELD, path, ROOTS_BYTES_MAX)?;
    let mut roots: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .filter_map(Result::ok)
        .collect();
    // As the server hands it out over plain HTTP (RFC 5280 §4.2.2.1), for who has that by a way it trusts.
    if roots.is_empty() && matches!(X509Certificate::from_der(&bytes), Ok(([], _))) {
        roots.push(CertificateDer::from(bytes.to_vec()));
    }
    if roots.is_empty() {
        return Err(EnrolError::Given {
            field: FIELD,
            value: path.display().to_string(),
            what:
                "holds no certificate in PEM or DER: give the server's root.crt (muster-data/ca/root.crt)"
                    .into(),
        });
    }
    Ok(roots)
}

fn known_by(trust: &Trust) -> String {
    match trust {
        Trust::Roots(path) => format!("a root in {}", path.display()),
        Trust::Root(fingerprint) => format!("the root of fingerprint {fingerprint}"),
    }
}

fn passing_of(fault: CertificateFault) -> Fault {
    passing(&fault).unwrap_or_else(|| Fault::refused(words(&fault)))
}

fn words(fault: &CertificateFault) -> String {
    match fault {
        CertificateFault::Unanswered(fault) => fault.words().to_owned(),
        CertificateFault::Answered { status, words, .. } => {
            format!("the server answered {status}: {words}")
        }
    }
}

/// What the server's no to a one-time password means.
fn refused(fault: CertificateFault, thing: &str) -> Fault {
    match fault {
        CertificateFault::Answered {
            status: 401, words, ..
        } => Fault::refused(format!(
            "the server does not take the password for {thing}: {words}. Each is good once, for the thing it was made for; whose answer was lost has it again within an hour, with the key in the same --identity"
        )),
        other => passing_of(other),
    }
}

fn unusable(fault: &TlsFault) -> Fault {
    Fault::refused(match fault {
        TlsFault::Root(why) => format!("the server's root is not usable: {why}"),
        TlsFault::Own(why) => format!("TLS cannot be set up: {why}"),
    })
}

/// Asks for the root certificate with a fingerprint, over a connection to whoever answers. Nothing of this device's is
/// said on it, and of what comes nothing is believed but what has the fingerprint (RFC 7030 §4.1.1).
fn root_by(
    fingerprint: &Fingerprint,
    asked: &Enrolment,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|why| unusable(&TlsFault::Own(why)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let client = Client::over(&tls, &asked.server, asked.https_port, Timeouts::default());
    let answer = client
        .document(CA_CERTIFICATES)
        .map_err(|fault| passing_of(CertificateFault::Unanswered(fault)))?;
    let root = certificates(&answer)?
        .into_iter()
        .find(|one| fingerprint.is_of(one) && renewal::signed(one, one));
    match root {
        Some(root) => Ok(vec![root]),
        None => Err(Fault::refused(format!(
            "--root-fingerprint {fingerprint}: {}:{} has no root certificate with it; either it is another server, or the fingerprint is not of its root.crt (`openssl x509 -in root.crt -noout -fingerprint -sha256`)",
            asked.server, asked.https_port
        ))),
    }
}

/// Takes any certificate whose key the other end has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
