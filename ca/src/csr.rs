//! Certificate signing requests (PKCS #10, RFC 2986): only the key in them is believed.

use std::io::Cursor;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_PKCS1_RSASSAPSS, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
    OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use crate::public_key::{KeyKind, KeyRefused, PublicKey};

/// Octets of the longest request read, PEM or DER; one with an RSA 4096 key takes a tenth of it.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// A request that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Longer than [`MAX_CSR_BYTES`].
    #[error(
        "the certificate signing request is {bytes} octets long: at most {MAX_CSR_BYTES} are accepted"
    )]
    TooLong {
        /// Octets given.
        bytes: usize,
    },
    /// PEM of another kind.
    #[error(
        "a CERTIFICATE REQUEST is expected, but this is a {found:?}: send the output of `openssl req -new`"
    )]
    OtherPem {
        /// The label found.
        found: String,
    },
    /// More than one object.
    #[error(
        "the certificate signing request is followed by something else: send one request alone"
    )]
    Trailing,
    /// Neither PEM nor DER, truncated or not of the standard's form.
    #[error(
        "the certificate signing request cannot be read ({reason}): send one whole PKCS #10 request, PEM or DER"
    )]
    Malformed {
        /// Where reading stopped.
        reason: &'static str,
    },
    /// A key that no certificate is issued for.
    #[error("the certificate signing request is refused: {0}")]
    Key(#[from] KeyRefused),
    /// A signature algorithm that is weak or does not fit the key.
    #[error(
        "the certificate signing request is signed with {found}: accepted are ECDSA with SHA-256 \
         or SHA-384, RSA with SHA-256 or more, and Ed25519, by the key in the request"
    )]
    SignatureAlgorithm {
        /// The algorithm's object identifier.
        found: String,
    },
    /// The requester does not hold the key, or the request was changed.
    #[error(
        "the certificate signing request's signature does not verify: it was changed on its way, \
         or its sender does not hold the private key"
    )]
    Signature,
}

/// The names that a request asks for. Nothing is ever named by them: they are there for who wants
/// to refuse a request that asks for other names than it will get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestedNames {
    /// Common names in the subject; one that is no text counts as other.
    pub common_names: Vec<String>,
    /// Whether there is more in the subject.
    pub other_attributes: bool,
    /// Whether it asks for alternative names.
    pub alternative_names: bool,
}

impl RequestedNames {
    fn of(request: &X509CertificationRequest<'_>) -> Self {
        let info = &request.certification_request_info;
        let common_names: Vec<_> = info
            .subject
            .iter_common_name()
            .filter_map(|attribute| attribute.as_str().ok().map(str::to_owned))
            .collect();
        let alternative_names = request
            .requested_extensions()
            .is_some_and(|mut extensions| {
                extensions.any(|one| matches!(one, ParsedExtension::SubjectAlternativeName(_)))
            });
        Self {
            other_attributes: info.subject.iter_attributes().count() > common_names.len(),
            common_names,
            alternative_names,
        }
    }

    /// Whether a certificate with the subject `CN=<name>` and nothing else is what was asked for;
    /// a request that names nothing takes what it gets.
    #[must_use]
    pub fn fit(&self, name: &str) -> bool {
        let named = match &self.common_names[..] {
            [] => true,
            [asked] => asked == name,
            _ => false,
        };
        named && !self.other_attributes && !self.alternative_names
    }
}

/// A request whose sender holds the private key. Subject, names and extensions that it asks for
/// decide nothing: the registry does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    key: PublicKey,
    names: RequestedNames,
}

impl Csr {
    /// Reads a request, PEM or DER, and verifies its self-signature.
    ///
    /// # Errors
    /// [`CsrError`], saying what is wrong and what is accepted.
    pub fn parse(pem_or_der: &[u8]) -> Result<Self, CsrError> {
        if pem_or_der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLong {
                bytes: pem_or_der.len(),
            });
        }
        // A DER request is a SEQUENCE; no PEM text begins with '0'.
        if pem_or_der.first() == Some(&0x30) {
            Self::from_der(pem_or_der)
        } else {
            Self::from_der(&decode_pem(pem_or_der)?)
        }
    }

    fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|_| malformed("it is truncated or not in the form of RFC 2986"))?;
        if !rest.is_empty() {
            return Err(CsrError::Trailing);
        }
        let info = &request.certification_request_info;
        if info.version != X509Version::V1 {
            return Err(malformed("its version is not 1"));
        }
        let key = PublicKey::from_der(info.subject_pki.raw)?;
        let algorithm = &request.signature_algorithm.algorithm;
        let accepted: &[_] = match key.kind() {
            KeyKind::P256 | KeyKind::P384 => {
                &[OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384]
            }
            KeyKind::Ed25519 => &[OID_SIG_ED25519],
            // PSS with SHA-1 is unknown to the verifier.
            KeyKind::Rsa(_) => &[
                OID_PKCS1_SHA256WITHRSA,
                OID_PKCS1_SHA384WITHRSA,
                OID_PKCS1_SHA512WITHRSA,
                OID_PKCS1_RSASSAPSS,
            ],
        };
        if !accepted.contains(algorithm) {
            return Err(CsrError::SignatureAlgorithm {
                found: algorithm.to_id_string(),
            });
        }
        request
            .verify_signature()
            .map_err(|_| CsrError::Signature)?;
        Ok(Self {
            key,
            names: RequestedNames::of(&request),
        })
    }

    /// The names it asks for.
    #[must_use]
    pub const fn requested_names(&self) -> &RequestedNames {
        &self.names
    }

    /// The requester's public key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.key
    }
}

const fn malformed(reason: &'static str) -> CsrError {
    CsrError::Malformed { reason }
}

fn decode_pem(text: &[u8]) -> Result<Vec<u8>, CsrError> {
    let (object, end) =
        Pem::read(Cursor::new(text)).map_err(|_| malformed("it is neither DER nor whole PEM"))?;
    // The second label is what some older tools write.
    if !["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&object.label.as_str()) {
        return Err(CsrError::OtherPem {
            found: crate::error::shorten(&object.label),
        });
    }
    let rest = text.get(end..).unwrap_or_default();
    if rest.windows(5).any(|five| five == b"-----") {
        return Err(CsrError::Trailing);
    }
    Ok(object.contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["mqtt.example".to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn size_bound() {
        let at = vec![b'x'; MAX_CSR_BYTES];
        assert!(matches!(Csr::parse(&at), Err(CsrError::Malformed { .. })));
        let past = vec![b'x'; MAX_CSR_BYTES + 1];
        let error = Csr::parse(&past).unwrap_err();
        assert_eq!(error, CsrError::TooLong { bytes: 16385 });
    }

    #[test]
    fn every_truncation_is_refused() {
        let der = request();
        Csr::parse(&der).unwrap();
        for end in 0..der.len() {
            assert!(Csr::parse(&der[..end]).is_err(), "{end}");
        }
        let pem = crate::pem::encode("CERTIFICATE REQUEST", &der);
        Csr::parse(pem.as_bytes()).unwrap();
        for end in 0..pem.find("-----END").unwrap() {
            assert!(Csr::parse(&pem.as_bytes()[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn one_request_alone() {
        let der = request();
        let pem = crate::pem::encode("CERTIFICATE REQUEST", &der);
        assert_eq!(
            Csr::parse(&[&der[..], &[0]].concat()),
            Err(CsrError::Trailing)
        );
        let twice = format!("{}{}", *pem, *pem);
        assert_eq!(Csr::parse(twice.as_bytes()), Err(CsrError::Trailing));
        let key = crate::KeyPair::generate().unwrap().to_pem();
        let error = Csr::parse(key.as_bytes()).unwrap_err();
        assert_eq!(
            error,
            CsrError::OtherPem {
                found: "PRIVATE KEY".to_owned()
            }
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is changed: no panic, and no key is believed that did not sign.
        #[test]
        fn mutated_requests_are_refused_quietly(
            at in any::<prop::sample::Index>(),
            octet in any::<u8>(),
            cut in prop::option::of(any::<prop::sample::Index>()),
            as_pem in any::<bool>(),
        ) {
            static REQUEST: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(request);
            let mut der = REQUEST.clone();
            if as_pem {
                der = crate::pem::encode("CERTIFICATE REQUEST", &der).as_bytes().to_owned();
            }
            let at = at.index(der.len());
            der[at] = octet;
            if let Some(cut) = cut {
                der.truncate(cut.index(der.len()));
            }
            // The envelope around what is signed can be written in other ways; the key cannot.
            if let Ok(csr) = Csr::parse(&der) {
                prop_assert_eq!(csr, Csr::parse(&REQUEST).unwrap());
            }
        }

        #[test]
        fn random_octets_never_panic(octets in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Csr::parse(&octets);
            let _ = PublicKey::from_der(&octets);
            let _ = Csr::parse(&[&[0x30], &octets[..]].concat());
        }
    }
}
