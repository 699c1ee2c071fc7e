//! A request, read.

use der::asn1::{Null, OctetString};
use der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{CertId, OcspRequest as Wire, Request, TbsRequest, Version};

use super::{NONCE, OcspRefusal};
use crate::identifier::Serial;

/// Octets of the longest request read; one about one certificate has about 100.
pub const MAX_OCSP_REQUEST_BYTES: usize = 8 * 1024;
/// Certificates that one request may ask for.
pub(super) const MAX_ASKED: usize = 64;
/// Octets of the longest nonce (RFC 9654 §2.1).
const MAX_NONCE_BYTES: usize = 128;

/// A request that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspRequest {
    pub(super) asked: Vec<CertId>,
    /// The nonce extension as it came; it stands in the answer as it is.
    pub(super) nonce: Option<Extension>,
}

impl OcspRequest {
    /// Reads a DER request. Its signature, if it has one, is not looked at: everybody may ask.
    ///
    /// # Errors
    /// [`OcspRefusal::Malformed`] for what is no request, asks for nothing or for more than 64
    /// certificates, or has a critical extension that is not known here (RFC 6960 §4.1.2).
    pub fn parse(der: &[u8]) -> Result<Self, OcspRefusal> {
        if der.len() > MAX_OCSP_REQUEST_BYTES {
            return Err(OcspRefusal::Malformed);
        }
        let request = Wire::from_der(der).map_err(|_| OcspRefusal::Malformed)?;
        let TbsRequest {
            request_list,
            request_extensions,
            ..
        } = request.tbs_request;
        if request_list.is_empty() || request_list.len() > MAX_ASKED {
            return Err(OcspRefusal::Malformed);
        }
        let mut asked = Vec::with_capacity(request_list.len());
        for one in request_list {
            let extensions = one.single_request_extensions.unwrap_or_default();
            if extensions.iter().any(|extension| extension.critical) {
                return Err(OcspRefusal::Malformed);
            }
            asked.push(one.req_cert);
        }
        let mut nonce = None;
        for extension in request_extensions.unwrap_or_default() {
            if extension.extn_id == NONCE {
                let value = OctetString::from_der(extension.extn_value.as_bytes());
                let fits = value
                    .is_ok_and(|value| (1..=MAX_NONCE_BYTES).contains(&value.as_bytes().len()));
                if !fits || nonce.replace(extension).is_some() {
                    return Err(OcspRefusal::Malformed);
                }
            } else if extension.critical {
                return Err(OcspRefusal::Malformed);
            }
        }
        Ok(Self { asked, nonce })
    }

    /// The request as DER.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let request = Wire {
            tbs_request: TbsRequest {
                version: Version::V1,
                requestor_name: None,
                request_list: self
                    .asked
                    .iter()
                    .map(|req_cert| Request {
                        req_cert: req_cert.clone(),
                        single_request_extensions: None,
                    })
                    .collect(),
                request_extensions: self.nonce.clone().map(|nonce| vec![nonce]),
            },
            optional_signature: None,
        };
        // What was read, or made of a serial number and two hashes, can be written.
        request.to_der().unwrap_or_default()
    }
}

/// The serial number that is asked for; `None` for one that no certificate has.
pub(super) fn serial_of(number: &SerialNumber) -> Option<Serial> {
    match number.as_bytes() {
        // Two's complement: negative.
        [first, ..] if *first >= 0x80 => None,
        octets => Serial::from_be_bytes(octets),
    }
}

/// The name of a certificate in a request.
pub(super) fn cert_id(
    hash: super::responder::IssuerHash,
    serial: &Serial,
) -> Result<CertId, der::Error> {
    Ok(CertId {
        hash_algorithm: AlgorithmIdentifierOwned {
            oid: hash.algorithm,
            parameters: Some(Null.into()),
        },
        issuer_name_hash: OctetString::new(hash.name)?,
        issuer_key_hash: OctetString::new(hash.key)?,
        serial_number: SerialNumber::new(serial.as_bytes())?,
    })
}
