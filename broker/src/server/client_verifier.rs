//! Whose certificates come through a handshake: those of our own authority, whose chain is judged here, and those of
//! other authorities, of which the registry is asked one by one. Nothing is remembered between handshakes, so that an
//! authority that was switched off is off for the next one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleet::Fleet;
use fleet::authorities::{Admission, NotAdmitted};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Judges by our own authority first, then by what the registry says of others.
pub(super) struct WithOutside {
    pub(super) own: Arc<dyn ClientCertVerifier>,
    pub(super) fleet: Fleet,
    pub(super) provider: Arc<CryptoProvider>,
    /// Whether a certificate that is new here may come through, to be registered.
    pub(super) newcomers: bool,
}

impl fmt::Debug for WithOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WithOutside")
    }
}

impl WithOutside {
    fn outside(
        &self,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        match self.fleet.admit(leaf, self.newcomers, at) {
            // Its validity is the registry's to judge, like that of every other.
            Admission::Alone => Ok(ClientCertVerified::assertion()),
            Admission::Under(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.into())?;
                let provider = Arc::clone(&self.provider);
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?
                    // The authority itself has signed what it registers: nothing stands in between.
                    .verify_client_cert(leaf, &[], now)
            }
            // The alert that says so to the client as well.
            Admission::Refused(NotAdmitted::Stranger) => {
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
            }
            Admission::Refused(why) => Err(Error::InvalidCertificate(CertificateError::Other(
                OtherError(Arc::new(why)),
            ))),
        }
    }
}

impl ClientCertVerifier for WithOutside {
    fn offer_client_auth(&self) -> bool {
        self.own.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.own.client_auth_mandatory()
    }

    /// None: a client that chooses by such hints would not show a certificate of another authority.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.own.verify_client_cert(leaf, intermediates, now) {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                self.outside(leaf, now)
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}
