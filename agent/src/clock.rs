//! The time, on a device that may not know it.
//!
//! A device without a battery wakes in 1970. What the device authority signed says when it did: the
//! device's own certificate, and the server's as it comes. Time is never taken to be before that, so a
//! certificate is never found "not valid yet", and no expiry is judged by a clock that stands before
//! something that has happened already. Nothing makes it go faster than what was signed; and what is signed with the
//! issuing key alone moves it no further than that key's certificate lasts, which the root has signed. The floor is
//! kept in memory only: after a restart it is the device's own certificate again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::VerifierBuilderError;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The system's clock, and the newest signed time that was seen.
#[derive(Debug)]
pub(crate) struct Clock {
    /// That time, and when it was seen.
    seen: Mutex<(SystemTime, Instant)>,
}

impl Clock {
    /// A clock that is never before `signed`.
    pub(crate) fn since(signed: SystemTime) -> Self {
        Self {
            seen: Mutex::new((signed, Instant::now())),
        }
    }

    /// The time: the system's, unless that is known to be wrong.
    pub(crate) fn now(&self) -> SystemTime {
        self.at(SystemTime::now(), Instant::now())
    }

    fn at(&self, system: SystemTime, instant: Instant) -> SystemTime {
        let (signed, when) = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        system.max(signed + instant.saturating_duration_since(when))
    }

    /// Something was signed at this time by whom the device trusts.
    pub(crate) fn saw(&self, signed: SystemTime) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if signed > seen.0 + seen.1.elapsed() {
            *seen = (signed, Instant::now());
        }
    }
}

/// Judges a server's certificate as rustls does, at the clock's time, or at the certificate's own
/// beginning where that is later.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    judge: Arc<WebPkiServerVerifier>,
    clock: Arc<Clock>,
    /// The chain that was found good last.
    shown: Mutex<Vec<CertificateDer<'static>>>,
    /// What was wrong with the last one, where it was not good.
    refused: Mutex<Option<rustls::Error>>,
}

impl ServerVerifier {
    pub(crate) fn new(
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
        clock: Arc<Clock>,
    ) -> Result<Self, VerifierBuilderError> {
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self {
            judge: judge.build()?,
            clock,
            shown: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// What a server showed that was found good last, its own certificate first; nothing before there was one.
    pub(crate) fn shown(&self) -> Vec<CertificateDer<'static>> {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Why the server that was dialled last is not believed; `None` where it is, or has shown nothing.
    pub(crate) fn refused(&self) -> Option<rustls::Error> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        let signed = chain.filter_map(begins).max().unwrap_or(UNIX_EPOCH);
        let at = self.clock.now().max(signed);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let verified = self.judge.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            UnixTime::since_unix_epoch(since),
        );
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) =
            verified.as_ref().err().cloned();
        let verified = verified?;
        // What the server sent beside its chain proves nothing; its own certificate was signed.
        self.clock.saw(begins(end_entity).unwrap_or(UNIX_EPOCH));
        let chain = std::iter::once(end_entity).chain(intermediates);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) =
            chain.map(|one| one.clone().into_owned()).collect();
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// From when on a certificate is valid.
fn begins(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::identity::tests::Ca;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn time_is_the_systems_unless_that_is_before_what_was_signed() {
        let signed = UNIX_EPOCH + 1000 * HOUR;
        let before = Instant::now();
        let clock = Clock::since(signed);
        let (start, later) = (Instant::now(), Instant::now() + HOUR);
        assert!(clock.at(UNIX_EPOCH, start) >= signed);
        // It goes on from there, and no faster than time does.
        assert!(clock.at(UNIX_EPOCH, later) >= signed + HOUR);
        assert!(clock.at(UNIX_EPOCH, later) <= signed + (later - before));
        let right = signed + 5000 * HOUR;
        assert_eq!(clock.at(right, later), right);
        // Older news changes nothing.
        clock.saw(UNIX_EPOCH);
        assert!(clock.at(UNIX_EPOCH, start) < signed + HOUR);
        clock.saw(signed + 10 * HOUR);
        assert!(clock.at(UNIX_EPOCH, Instant::now()) >= signed + 10 * HOUR);
    }

    #[test]
    fn who_has_the_issuing_key_moves_time_no_further_than_the_root_has_signed() {
        let now = SystemTime::now();
        let authority = |name: &str, until: SystemTime| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let common_name = rcgen::DnType::CommonName;
            params.distinguished_name.push(common_name, name);
            (params.not_before, params.not_after) = ((now - HOUR).into(), until.into());
            params
        };
        let key = || rcgen::KeyPair::generate().unwrap();
        let root = authority("root", now + 100_000 * HOUR);
        let root = rcgen::CertifiedIssuer::self_signed(root, key()).unwrap();
        let issuing = authority("issuing", now + 48 * HOUR);
        let issuing = rcgen::CertifiedIssuer::signed_by(issuing, key(), &root).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let clock = Arc::new(Clock::since(UNIX_EPOCH));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = ServerVerifier::new(roots, provider, Arc::clone(&clock)).unwrap();
        let judge = |from: SystemTime| {
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            (params.not_before, params.not_after) = (from.into(), (from + 9000 * HOUR).into());
            let server = params.signed_by(&key(), &issuing).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let chain = [issuing.der().clone()];
            verifier
                .verify_server_cert(server.der(), &chain, &name, &[], UnixTime::now())
                .is_ok()
        };
        assert!(!judge(now + 49 * HOUR));
        assert!(clock.now() < now + HOUR);
        assert!(judge(now + 47 * HOUR));
        assert!(clock.now() >= now + 46 * HOUR && clock.now() < now + 48 * HOUR);
    }

    #[test]
    fn a_server_is_never_too_young_and_may_be_too_old() {
        let ca = Ca::new();
        let now = SystemTime::now();
        let mut roots = RootCertStore::empty();
        roots.add(ca.root_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let judge = |certificate: &str, ca_roots: &RootCertStore, clock: &Arc<Clock>| {
            let (roots, provider) = (ca_roots.clone(), Arc::clone(&provider));
            let verifier = ServerVerifier::new(roots, provider, Arc::clone(clock)).unwrap();
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            verifier
                .verify_server_cert(&der, &[], &name, &[], UnixTime::now())
                .is_ok()
        };
        // A certificate of tomorrow: today's clock is behind, and knows it from then on.
        let (young, _) = ca.issue("server", &["localhost"], now + 24 * HOUR, now + 48 * HOUR);
        let clock = Arc::new(Clock::since(UNIX_EPOCH));
        assert!(judge(&young, &roots, &clock));
        assert!(clock.now() >= now + 23 * HOUR);
        // By what was signed since, one that ended today is over.
        let (old, _) = ca.issue("server", &["localhost"], now - HOUR, now + HOUR);
        assert!(judge(&old, &roots, &Arc::new(Clock::since(UNIX_EPOCH))));
        assert!(!judge(&old, &roots, &clock));
        // A stranger's moves nothing.
        let clock = Arc::new(Clock::since(UNIX_EPOCH));
        let (foreign, _) =
            Ca::new().issue("server", &["localhost"], now + 24 * HOUR, now + 48 * HOUR);
        assert!(!judge(&foreign, &roots, &clock));
        assert!(clock.now() < now + HOUR);
    }
}
