//! OCSP (RFC 6960, and its lightweight profile RFC 5019): requests read, answers signed.
//!
//! Answers are signed by a responder that the issuing key has delegated this to, so that a
//! question never reaches the issuing key. Who is asked for what is the caller's: a closure says
//! what became of a serial number.

mod reading;
mod request;
mod responder;

#[cfg(test)]
mod tests;

use der::Encode;
use der::asn1::ObjectIdentifier;
use x509_ocsp::OcspResponse;

use crate::crl::RevokedEntry;

pub use request::{MAX_OCSP_REQUEST_BYTES, OcspRequest};
pub use responder::OcspResponder;

/// id-pkix-ocsp-nonce (RFC 9654).
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");

/// What became of a serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// Issued and not revoked.
    Good,
    /// Revoked.
    Revoked(RevokedEntry),
    /// Never issued here, or issued so long ago that nothing is known of it.
    Unknown,
}

/// An answer without a signature: why there is no other (RFC 6960 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcspRefusal {
    /// It cannot be read as an OCSP request, or is larger than one is.
    #[error("the OCSP request cannot be read")]
    Malformed,
    /// It asks for certificates of other issuers alone (RFC 5019 §2.2.3).
    #[error("the OCSP request asks for no certificate of this authority")]
    Unauthorized,
    /// The registry or the key could not be used.
    #[error("the OCSP request could not be answered")]
    Internal,
}

impl OcspRefusal {
    /// The answer as DER.
    #[must_use]
    pub fn to_der(self) -> Vec<u8> {
        let answer = match self {
            Self::Malformed => OcspResponse::malformed_request(),
            Self::Unauthorized => OcspResponse::unauthorized(),
            Self::Internal => OcspResponse::internal_error(),
        };
        // Five octets, always encodable; nothing at all is no answer to any client.
        answer.to_der().unwrap_or_default()
    }
}
