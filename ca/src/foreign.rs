//! What other authorities sign: their own certificates, and those of devices. Read strictly, and believed only as far
//! as one signature goes: whether an authority may sign for devices at all, the registry says.

use std::time::SystemTime;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

use crate::facts::{self, CertificateFacts, MAX_CERTIFICATE_BYTES};
use crate::identifier::CertificateId;
use crate::pem;
use crate::public_key::{KeyRefused, PublicKey};

/// Octets of the longest PEM read: base64 and its lines.
const MAX_PEM_BYTES: usize = MAX_CERTIFICATE_BYTES * 3 / 2;

/// Why a certificate that was made elsewhere is not taken. Each says how it is mended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// It is not one certificate in PEM.
    #[error("{what} is not one certificate in PEM (-----BEGIN CERTIFICATE-----): {reason}")]
    Unreadable {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Its key is of a kind that nobody should rely on.
    #[error("{what}: {refused}")]
    Key {
        /// Which argument.
        what: &'static str,
        /// Why.
        refused: KeyRefused,
    },
    /// It is good, but not for this.
    #[error("{what} {reason}")]
    Unfit {
        /// Which argument.
        what: &'static str,
        /// Why, and the mend.
        reason: &'static str,
    },
    /// It does not prove that whoever registers the authority has its key.
    #[error("verificationCertificate {0}")]
    Verification(&'static str),
}

/// An authority's own certificate, made elsewhere.
#[derive(Clone, Debug)]
pub struct ForeignAuthority {
    /// SHA-256 of its DER.
    pub id: CertificateId,
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of its subject as it is written in certificates that it signs, hexadecimal.
    pub subject_digest: String,
    /// First second of its life.
    pub not_before: SystemTime,
    /// Last second of its life.
    pub not_after: SystemTime,
    der: CertificateDer<'static>,
}

impl ForeignAuthority {
    /// Reads a certificate that may sign others.
    ///
    /// # Errors
    /// [`ForeignError`] for what is no X.509 v3 certificate of an authority (basicConstraints CA, and keyCertSign
    /// where there is a keyUsage), or has a key that is not accepted.
    pub fn parse(text: &str) -> Result<Self, ForeignError> {
        const WHAT: &str = "caCertificate";
        let der = decode(WHAT, text)?;
        let certificate = parse(WHAT, &der)?;
        let facts = read(WHAT, &certificate, &der)?;
        if !facts.is_ca {
            return Err(ForeignError::Unfit {
                what: WHAT,
                reason: "is no authority's: it has no basicConstraints CA:TRUE",
            });
        }
        if !may(&certificate, |usage| usage.key_cert_sign()) {
            return Err(ForeignError::Unfit {
                what: WHAT,
                reason: "may not sign certificates: its keyUsage lacks keyCertSign",
            });
        }
        accepted(WHAT, &certificate)?;
        Ok(Self {
            id: facts.id,
            pem: pem::encode("CERTIFICATE", &der).to_string(),
            subject_digest: sha256(certificate.subject().as_raw()),
            not_before: facts.not_before,
            not_after: facts.not_after,
            der,
        })
    }

    /// The certificate, DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Whether its key signed this certificate, whose issuer is named as its subject.
    #[must_use]
    pub fn signed(&self, der: &[u8]) -> bool {
        let (Ok(certificate), Ok(authority)) = (facts::parse(der), facts::parse(&self.der)) else {
            return false;
        };
        certificate.issuer().as_raw() == authority.subject().as_raw()
            && certificate
                .verify_signature(Some(authority.public_key()))
                .is_ok()
    }

    /// Whether a certificate proves that whoever shows it has this authority's key: signed by it over the common name
    /// `code`.
    ///
    /// # Errors
    /// [`ForeignError::Verification`] with the mend.
    pub fn prove(&self, verification: &str, code: &str) -> Result<(), ForeignError> {
        const WHAT: &str = "verificationCertificate";
        let der = decode(WHAT, verification)?;
        if !self.signed(&der) {
            return Err(ForeignError::Verification(
                "was not signed by caCertificate's key: sign it with the key that is registered",
            ));
        }
        let certificate = parse(WHAT, &der)?;
        let mut names = certificate.subject().iter_common_name();
        match (names.next().map(|name| name.as_str()), names.next()) {
            (Some(Ok(name)), None) if name == code => Ok(()),
            _ => Err(ForeignError::Verification(
                "does not carry this server's registration code as its one common name: ask for the code \
                 (GetRegistrationCode) and make it anew",
            )),
        }
    }
}

/// A device's certificate, made elsewhere.
#[derive(Clone, Debug)]
pub struct ForeignCertificate {
    /// What it says of itself.
    pub facts: CertificateFacts,
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of its issuer's name, hexadecimal: a [`ForeignAuthority::subject_digest`].
    pub issuer_digest: String,
    der: CertificateDer<'static>,
}

impl ForeignCertificate {
    /// Reads a certificate in PEM.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self, ForeignError> {
        Self::read(&decode("certificatePem", text)?)
    }

    /// Reads a certificate that a device may show: X.509 v3, no authority's, good for TLS clients where it says what
    /// it is good for, with an accepted key.
    ///
    /// # Errors
    /// [`ForeignError`], with what of it is missing.
    pub fn read(der: &[u8]) -> Result<Self, ForeignError> {
        const WHAT: &str = "certificatePem";
        let unfit = |reason| Err(ForeignError::Unfit { what: WHAT, reason });
        let certificate = parse(WHAT, der)?;
        let facts = read(WHAT, &certificate, der)?;
        if facts.is_ca || facts.key_usages.key_cert_sign {
            return unfit("is an authority's: a device shows one that signs nothing");
        }
        if !may(&certificate, |usage| usage.digital_signature()) {
            return unfit(
                "may not sign in a handshake: its keyUsage lacks digitalSignature, issue it with that",
            );
        }
        let extended = certificate.extended_key_usage().ok().flatten();
        if extended.is_some_and(|extended| !(extended.value.client_auth || extended.value.any)) {
            return unfit("is not for TLS clients: its extendedKeyUsage lacks clientAuth");
        }
        accepted(WHAT, &certificate)?;
        let der = CertificateDer::from(der.to_owned());
        Ok(Self {
            facts,
            pem: pem::encode("CERTIFICATE", &der).to_string(),
            issuer_digest: sha256(certificate.issuer().as_raw()),
            der,
        })
    }

    /// The certificate, DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

fn decode(what: &'static str, text: &str) -> Result<CertificateDer<'static>, ForeignError> {
    let unreadable = |reason: &str| ForeignError::Unreadable {
        what,
        reason: reason.to_owned(),
    };
    if text.len() > MAX_PEM_BYTES {
        return Err(unreadable(&format!(
            "it has more than {MAX_PEM_BYTES} bytes"
        )));
    }
    let mut found = CertificateDer::pem_slice_iter(text.as_bytes());
    match (found.next(), found.next()) {
        (Some(Ok(der)), None) => Ok(der),
        (Some(Ok(_)), Some(_)) => Err(unreadable("there are several, give the one alone")),
        _ => Err(unreadable("none is found")),
    }
}

fn parse<'a>(what: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, ForeignError> {
    facts::parse(der).map_err(|error| ForeignError::Unreadable {
        what,
        reason: error.to_string(),
    })
}

fn read(
    what: &'static str,
    certificate: &X509Certificate<'_>,
    der: &[u8],
) -> Result<CertificateFacts, ForeignError> {
    if certificate.version() != X509Version::V3 {
        return Err(ForeignError::Unfit {
            what,
            reason: "is not of X.509 version 3: give it extensions when it is signed (openssl x509 -extfile)",
        });
    }
    CertificateFacts::of(certificate, der).map_err(|error| ForeignError::Unreadable {
        what,
        reason: error.to_string(),
    })
}

/// Whether the keyUsage, where there is one, allows this.
fn may(
    certificate: &X509Certificate<'_>,
    usage: fn(&x509_parser::extensions::KeyUsage) -> bool,
) -> bool {
    match certificate.key_usage() {
        Ok(None) => true,
        Ok(Some(found)) => usage(found.value),
        Err(_) => false,
    }
}

fn accepted(what: &'static str, certificate: &X509Certificate<'_>) -> Result<(), ForeignError> {
    match PublicKey::from_der(certificate.public_key().raw) {
        Ok(_) => Ok(()),
        Err(refused) => Err(ForeignError::Key { what, refused }),
    }
}

fn sha256(octets: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, octets).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, KeyUsagePurpose,
    };

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(
        by: &CertifiedIssuer<'static, KeyPair>,
        name: &str,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> String {
        let mut params = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        spoil(&mut params);
        params
            .signed_by(&KeyPair::generate().unwrap(), by)
            .unwrap()
            .pem()
    }

    #[test]
    fn an_authority_is_read_and_knows_what_it_signed() {
        let (made, other) = (authority("factory"), authority("factory"));
        let read = ForeignAuthority::parse(&made.pem()).unwrap();
        let device = ForeignCertificate::parse(&leaf(&made, "lamp-1", |_| {})).unwrap();
        assert_eq!(device.issuer_digest, read.subject_digest);
        assert!(read.signed(device.der()));
        // The same name is not the same key.
        let impostor = ForeignCertificate::parse(&leaf(&other, "lamp-1", |_| {})).unwrap();
        assert_eq!(impostor.issuer_digest, read.subject_digest);
        assert!(!read.signed(impostor.der()));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        let made = authority("factory");
        let refused = |text: &str| ForeignAuthority::parse(text).unwrap_err().to_string();
        assert!(refused(&leaf(&made, "lamp-1", |_| {})).contains("CA:TRUE"));
        assert!(refused("").contains("none is found"));
        let two = format!("{}{}", made.pem(), made.pem());
        assert!(refused(&two).contains("several"));
        let mut params = named("factory");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let silent = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(refused(&silent.pem()).contains("keyCertSign"));
        let mut params = named("factory");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA256)
            .map(|key| params.self_signed(&key));
        if let Ok(Ok(made)) = key {
            assert!(refused(&made.pem()).contains("P-521"));
        }
    }

    #[test]
    fn what_is_no_devices_is_refused() {
        let made = authority("factory");
        let refused = |spoil: fn(&mut CertificateParams)| {
            let text = leaf(&made, "lamp-1", spoil);
            ForeignCertificate::parse(&text).unwrap_err().to_string()
        };
        assert!(
            refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
                .contains("authority's")
        );
        assert!(
            refused(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement])
                .contains("digitalSignature")
        );
        let server = |p: &mut CertificateParams| {
            p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert!(refused(server).contains("clientAuth"));
    }

    #[test]
    fn the_code_is_proven_by_the_key_alone() {
        let (made, other) = (authority("factory"), authority("factory"));
        let read = ForeignAuthority::parse(&made.pem()).unwrap();
        assert_eq!(read.prove(&leaf(&made, "code", |_| {}), "code"), Ok(()));
        for wrong in [leaf(&other, "code", |_| {}), leaf(&made, "other", |_| {})] {
            let error = read.prove(&wrong, "code").unwrap_err();
            assert!(matches!(error, ForeignError::Verification(_)), "{error}");
        }
        let twice = leaf(&made, "code", |p| {
            p.distinguished_name
                .push(DnType::CustomDnType(vec![2, 5, 4, 10]), "code");
            p.distinguished_name.push(DnType::CommonName, "other");
        });
        assert!(read.prove(&twice, "code").is_err());
    }

    proptest! {
        #[test]
        fn mutations_are_refused_or_read_and_never_panic(
            at in any::<prop::sample::Index>(), octet in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let made = authority("factory");
            let mut der = made.der().to_vec();
            let place = at.index(der.len());
            der[place] = octet;
            der.truncate(cut.index(der.len()) + 1);
            // Whatever becomes of it, it is no panic, and nothing signed by the authority.
            let read = ForeignCertificate::read(&der);
            if let Ok(read) = read {
                let authority = ForeignAuthority::parse(&made.pem()).unwrap();
                prop_assert!(!authority.signed(read.der()));
            }
        }
    }
}
