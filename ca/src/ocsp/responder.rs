//! The responder: a key of its own, and a certificate that says it answers for the issuing key.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use der::asn1::{BitString, ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use x509_cert::Certificate;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, ResponderId,
    ResponseData, RevokedInfo, SingleResponse, Version,
};

use super::request::{cert_id, serial_of};
use super::{CertificateState, OcspRefusal, OcspRequest};
use crate::authority::{Authority, Issuer, IssuerNumber};
use crate::crl::RevocationReason;
use crate::error::CaError;
use crate::facts::{self, CertificateFacts};
use crate::identifier::Serial;
use crate::key_pair::KeyPair;
use crate::profile::{Profile, Subject};
use crate::times;

/// Common name of the responder's certificate.
const COMMON_NAME: &str = "OCSP responder";
/// ecdsa-with-SHA256 (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const SHA1_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");

/// The hashes that requests name an issuer by (RFC 6960 §4.1.1).
static HASHES: [(ObjectIdentifier, &digest::Algorithm); 4] = [
    (SHA1_OID, &SHA1_FOR_LEGACY_USE_ONLY),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        &SHA256,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
        &SHA384,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        &SHA512,
    ),
];

/// The issuing certificate by one hash function.
#[derive(Clone)]
pub(super) struct IssuerHash {
    pub(super) algorithm: ObjectIdentifier,
    pub(super) name: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// Signs answers in the issuing key's name for as long as its certificate lives. Its key exists in
/// memory only: after a restart there is another.
pub struct OcspResponder {
    key: EcdsaKeyPair,
    id: ResponderId,
    certificate: Certificate,
    number: IssuerNumber,
    issuer: Vec<IssuerHash>,
    not_before: SystemTime,
    renew_at: SystemTime,
    not_after: SystemTime,
}

impl fmt::Debug for OcspResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcspResponder")
            .field("serial", &self.certificate.tbs_certificate.serial_number)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a responder for the certificates of an issuer: a new key, and a certificate for it.
    ///
    /// # Errors
    /// Those of [`Authority::issue`]; [`CaError::Invalid`] where there is no such issuer.
    pub fn ocsp_responder(
        &self,
        issuer: IssuerNumber,
        now: SystemTime,
    ) -> Result<OcspResponder, CaError> {
        let issuer = self.issuer(issuer)?;
        let pair = KeyPair::generate()?;
        let subject = Subject {
            common_name: COMMON_NAME.to_owned(),
            names: Vec::new(),
        };
        let issued = self.issue_under(
            &issuer,
            Profile::OcspResponder,
            &subject,
            pair.public(),
            Duration::MAX,
            now,
        )?;
        let unreadable = |error: der::Error| facts::unreadable(error.to_string());
        let certificate = Certificate::from_der(&issued.der).map_err(unreadable)?;
        let key_hash = digest::digest(
            &SHA1_FOR_LEGACY_USE_ONLY,
            certificate
                .tbs_certificate
                .subject_public_key_info
                .subject_public_key
                .raw_bytes(),
        );
        let key_hash = OctetString::new(key_hash.as_ref()).map_err(unreadable)?;
        let life = issued
            .not_after
            .duration_since(issued.not_before)
            .unwrap_or(Duration::ZERO);
        let (key, _) = pair
            .into_signer()
            .ok_or(CaError::Cryptography("read its own key"))?;
        Ok(OcspResponder {
            key,
            id: ResponderId::ByKey(key_hash),
            certificate,
            number: issuer.number,
            issuer: issuer_hashes(&issuer)?,
            not_before: issued.not_before,
            renew_at: issued.not_before + life / 2,
            not_after: issued.not_after,
        })
    }
}

fn issuer_hashes(issuer: &Issuer) -> Result<Vec<IssuerHash>, CaError> {
    let issuing = facts::parse(&issuer.der)?;
    let (name, key) = (
        issuing.subject().as_raw(),
        &issuing.public_key().subject_public_key.data,
    );
    Ok(HASHES
        .iter()
        .map(|(algorithm, hash)| IssuerHash {
            algorithm: *algorithm,
            name: digest::digest(hash, name).as_ref().to_owned(),
            key: digest::digest(hash, key).as_ref().to_owned(),
        })
        .collect())
}

impl OcspResponder {
    /// Whose certificates it speaks of.
    #[must_use]
    pub const fn issuer(&self) -> IssuerNumber {
        self.number
    }

    /// Whether a request asks for a certificate of its issuer.
    #[must_use]
    pub fn is_asked(&self, request: &OcspRequest) -> bool {
        request.asked.iter().any(|asked| self.is_ours(asked))
    }

    /// From when on its certificate is good.
    #[must_use]
    pub const fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// From when on another one should answer: half of its life is over.
    #[must_use]
    pub const fn renew_at(&self) -> SystemTime {
        self.renew_at
    }

    /// The last second of its certificate's life.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A request about certificates of the issuing key, as everybody could send it.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for none, or for more than 64.
    pub fn request(&self, serials: &[Serial]) -> Result<OcspRequest, CaError> {
        if serials.is_empty() || serials.len() > super::request::MAX_ASKED {
            let reason = "a request asks for 1 to 64 certificates";
            return Err(CaError::invalid(
                "number of serial numbers",
                &serials.len().to_string(),
                reason,
            ));
        }
        // By SHA-1, which every client that is handed the answer understands.
        let hash = self
            .issuer
            .first()
            .ok_or(CaError::Cryptography("hash the issuer's name"))?;
        let asked = serials
            .iter()
            .map(|serial| cert_id(hash.clone(), serial))
            .collect::<Result<_, _>>()
            .map_err(|error| facts::unreadable(error.to_string()))?;
        Ok(OcspRequest { asked, nonce: None })
    }

    /// Answers a request, as DER. `state` says what became of a serial number, `None` when it
    /// cannot be told now. The answer is good until `next_update`, and no longer than the
    /// responder's certificate.
    ///
    /// # Errors
    /// [`OcspRefusal::Unauthorized`] for a request about other issuers' certificates alone;
    /// [`OcspRefusal::Internal`].
    pub fn answer(
        &self,
        request: &OcspRequest,
        now: SystemTime,
        next_update: SystemTime,
        mut state: impl FnMut(&Serial) -> Option<CertificateState>,
    ) -> Result<Vec<u8>, OcspRefusal> {
        if !self.is_asked(request) {
            return Err(OcspRefusal::Unauthorized);
        }
        let this_update = time(now)?;
        let next_update = Some(time(next_update.min(self.not_after))?);
        let mut responses = Vec::with_capacity(request.asked.len());
        for asked in &request.asked {
            let serial = serial_of(&asked.serial_number).filter(|_| self.is_ours(asked));
            let state = match serial {
                Some(serial) => state(&serial).ok_or(OcspRefusal::Internal)?,
                None => CertificateState::Unknown,
            };
            responses.push(SingleResponse {
                cert_id: asked.clone(),
                cert_status: status(&state)?,
                this_update,
                next_update,
                single_extensions: None,
            });
        }
        let data = ResponseData {
            version: Version::V1,
            responder_id: self.id.clone(),
            produced_at: this_update,
            responses,
            response_extensions: request.nonce.clone().map(|nonce| vec![nonce]),
        };
        self.sign(data).ok_or(OcspRefusal::Internal)
    }

    fn is_ours(&self, asked: &CertId) -> bool {
        self.issuer.iter().any(|hash| {
            hash.algorithm == asked.hash_algorithm.oid
                && hash.name == asked.issuer_name_hash.as_bytes()
                && hash.key == asked.issuer_key_hash.as_bytes()
        })
    }

    fn sign(&self, data: ResponseData) -> Option<Vec<u8>> {
        let signed = data.to_der().ok()?;
        let signature = self.key.sign(&SystemRandom::new(), &signed).ok()?;
        let answer = BasicOcspResponse {
            tbs_response_data: data,
            signature_algorithm: AlgorithmIdentifierOwned {
                oid: ECDSA_WITH_SHA256,
                parameters: None,
            },
            signature: BitString::from_bytes(signature.as_ref()).ok()?,
            certs: Some(vec![self.certificate.clone()]),
        };
        OcspResponse::successful(answer).ok()?.to_der().ok()
    }
}

fn status(state: &CertificateState) -> Result<CertStatus, OcspRefusal> {
    Ok(match state {
        CertificateState::Good => CertStatus::good(),
        CertificateState::Unknown => CertStatus::unknown(),
        CertificateState::Revoked(entry) => CertStatus::Revoked(RevokedInfo {
            revocation_time: time(entry.revoked_at)?,
            revocation_reason: reason(entry.reason),
        }),
    })
}

/// As in the list: no reason rather than `unspecified` (RFC 5280 §5.3.1).
const fn reason(reason: RevocationReason) -> Option<CrlReason> {
    Some(match reason {
        RevocationReason::Unspecified => return None,
        RevocationReason::KeyCompromise => CrlReason::KeyCompromise,
        RevocationReason::CaCompromise => CrlReason::CaCompromise,
        RevocationReason::AffiliationChanged => CrlReason::AffiliationChanged,
        RevocationReason::Superseded => CrlReason::Superseded,
        RevocationReason::CessationOfOperation => CrlReason::CessationOfOperation,
        RevocationReason::CertificateHold => CrlReason::CertificateHold,
        RevocationReason::PrivilegeWithdrawn => CrlReason::PrivilegeWithdrawn,
        RevocationReason::AaCompromise => CrlReason::AaCompromise,
    })
}

/// In whole seconds: GeneralizedTime in DER has no fractions here (RFC 5280 §4.1.2.5.2).
fn time(at: SystemTime) -> Result<OcspGeneralizedTime, OcspRefusal> {
    let seconds = times::seconds(at).map_err(|_| OcspRefusal::Internal)?;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    at.try_into().map_err(|_| OcspRefusal::Internal)
}

/// The facts of a responder's certificate that came with an answer.
pub(super) fn facts_of(certificate: &Certificate) -> Result<(Vec<u8>, CertificateFacts), CaError> {
    let der = certificate
        .to_der()
        .map_err(|error| facts::unreadable(error.to_string()))?;
    let facts = CertificateFacts::read(&der)?;
    Ok((der, facts))
}
