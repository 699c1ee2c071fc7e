//! The other end: an answer read and verified, as a client does.

use std::time::SystemTime;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use der::{Decode, Encode};
use x509_ocsp::{BasicOcspResponse, CertStatus, OcspResponse, OcspResponseStatus};

use super::CertificateState;
use super::request::serial_of;
use super::responder::facts_of;
use crate::authority::Authority;
use crate::crl::{RevocationReason, RevokedEntry};
use crate::error::CaError;
use crate::facts;
use crate::identifier::Serial;
use crate::profile::Profile;

impl Authority {
    /// Reads an answer of this authority's responder, after it has verified signature, delegation
    /// and validity at `now`: what it says of each serial number, in the order asked.
    ///
    /// # Errors
    /// [`CaError::Unreadable`], naming what a client would refuse.
    pub fn read_ocsp(
        &self,
        der: &[u8],
        now: SystemTime,
    ) -> Result<Vec<(Serial, CertificateState)>, CaError> {
        let no = |reason: &str| facts::unreadable(format!("as an OCSP answer, {reason}"));
        let answer = OcspResponse::from_der(der).map_err(|error| no(&error.to_string()))?;
        let Some(bytes) = answer
            .response_bytes
            .filter(|_| answer.response_status == OcspResponseStatus::Successful)
        else {
            return Err(no("it says that there is none"));
        };
        let basic = BasicOcspResponse::from_der(bytes.response.as_bytes())
            .map_err(|error| no(&error.to_string()))?;
        let Some([responder]) = basic.certs.as_deref() else {
            return Err(no("it comes without its responder's certificate"));
        };
        let (responder_der, responder_facts) = facts_of(responder)?;
        if !self.signed(&responder_der)
            || responder_facts.profile() != Some(Profile::OcspResponder)
            || !responder_facts.is_valid_at(now)
        {
            return Err(no("its responder may not answer for the issuing key"));
        }
        let signed = basic
            .tbs_response_data
            .to_der()
            .map_err(|error| no(&error.to_string()))?;
        let key = responder
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key
            .raw_bytes();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&signed, basic.signature.raw_bytes())
            .map_err(|_| no("its signature does not verify"))?;
        basic
            .tbs_response_data
            .responses
            .iter()
            .map(|single| {
                let begin = single.this_update.0.to_system_time();
                let end = single.next_update.map(|at| at.0.to_system_time());
                if begin > now || end.is_none_or(|end| end < now) {
                    return Err(no("it is not of now"));
                }
                let serial = serial_of(&single.cert_id.serial_number)
                    .ok_or_else(|| no("it speaks of a serial number that nothing has"))?;
                let state = match single.cert_status {
                    CertStatus::Good(_) => CertificateState::Good,
                    CertStatus::Unknown(_) => CertificateState::Unknown,
                    CertStatus::Revoked(info) => CertificateState::Revoked(RevokedEntry {
                        serial: serial.clone(),
                        revoked_at: info.revocation_time.0.to_system_time(),
                        reason: match info.revocation_reason {
                            None => RevocationReason::Unspecified,
                            Some(code) => RevocationReason::from_code(code as u8)
                                .ok_or_else(|| no("its reason is not known"))?,
                        },
                    }),
                };
                Ok((serial, state))
            })
            .collect()
    }
}
