//! Who asks: each request proves it by itself, and is refused by default.

mod sigv4;

use std::sync::Arc;
use std::time::SystemTime;

use ca::{CertificateId, Profile};
use data_encoding::HEXLOWER;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::api_error::ApiError;
use crate::operators::{Operator, Operators, Role};
use crate::peer::Peer;
pub(crate) use sigv4::is_signed_for;
use sigv4::{Claim, Refusal};

/// An operator who proved itself in this very request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) operator: Arc<Operator>,
    /// The region the request was signed for, which ARNs in the answer carry; `None` for a
    /// request under a certificate, which names none.
    pub(crate) region: Option<String>,
}

impl Caller {
    /// Refuses an operator whose role is below `least`.
    pub(crate) fn require(&self, least: Role, operation: &str) -> Result<(), ApiError> {
        let operator = &self.operator;
        if operator.role >= least {
            return Ok(());
        }
        Err(ApiError::forbidden(
            "AccessDeniedException",
            format!(
                "operator {} has the role {}; {operation} needs {least}",
                operator.name, operator.role
            ),
        ))
    }
}

/// A claimed identity, checked as far as it can be before the body is read.
pub(crate) enum Identified<'r> {
    /// Signed with an operator's access key; the body's hash decides.
    Signed(Claim<'r>),
    /// Over a connection that an operator's certificate opened.
    Certified(CertificateId),
}

impl<'r> Identified<'r> {
    /// Finds whom the request claims to come from. A request that carries a signature is judged
    /// by it alone, whatever certificate the connection has.
    pub(crate) fn read(
        head: &'r Parts,
        peer: &Peer,
        operators: &Operators,
        now: SystemTime,
    ) -> Result<Self, ApiError> {
        if head.headers.contains_key(AUTHORIZATION) {
            let claim = Claim::read(head, now)?;
            by_access_key(operators, &claim)?;
            return Ok(Self::Signed(claim));
        }
        let Some(certificate) = &peer.certificate else {
            return Err(ApiError::forbidden(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token: sign the request with AWS Signature Version 4, or use an operator's client certificate.",
            ));
        };
        if certificate.profile != Some(Profile::Operator) || !certificate.is_valid_at(now) {
            return Err(no_operators());
        }
        by_certificate(operators, &certificate.id)?;
        Ok(Self::Certified(certificate.id))
    }

    /// The hash the body must turn out to have, for a body that is read as a stream; `None` where
    /// the connection itself vouches for it.
    pub(crate) fn announced_body_hash(&self, head: &Parts) -> Result<Option<String>, ApiError> {
        match self {
            Self::Signed(claim) => Ok(Some(claim.announced_body_hash(head)?)),
            Self::Certified(_) => Ok(None),
        }
    }

    /// Proves the claim over the body's hash (lower-case hex SHA-256), against who is an operator, and with which role,
    /// now that the body is there.
    pub(crate) fn prove(
        self,
        head: &Parts,
        body_hash: &str,
        operators: &Operators,
    ) -> Result<Caller, ApiError> {
        match self {
            Self::Certified(id) => Ok(Caller {
                operator: by_certificate(operators, &id)?,
                region: None,
            }),
            Self::Signed(claim) => {
                let operator = by_access_key(operators, &claim)?;
                claim.verify(head, &operator.key, body_hash)?;
                Ok(Caller {
                    operator,
                    region: Some(claim.region.to_owned()),
                })
            }
        }
    }
}

fn by_access_key(operators: &Operators, claim: &Claim<'_>) -> Result<Arc<Operator>, ApiError> {
    operators.by_access_key(claim.access_key_id).ok_or_else(|| {
        ApiError::forbidden(
            "UnrecognizedClientException",
            "The security token included in the request is invalid: this server knows no such access key.",
        )
    })
}

fn by_certificate(operators: &Operators, id: &CertificateId) -> Result<Arc<Operator>, ApiError> {
    operators.by_certificate(id).ok_or_else(no_operators)
}

fn no_operators() -> ApiError {
    ApiError::forbidden(
        "AccessDeniedException",
        "The client certificate is not a valid operator's.",
    )
}

/// SHA-256 in lower-case hex, as Signature Version 4 wants it.
pub(crate) fn body_hash(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    HEXLOWER.encode(digest.as_ref())
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Skewed { .. } => "RequestExpired",
            Refusal::SecurityToken => "UnrecognizedClientException",
            Refusal::Malformed(_) | Refusal::Absent(_) => "IncompleteSignatureException",
            Refusal::Service(_)
            | Refusal::Unsigned(_)
            | Refusal::UnsignedBody
            | Refusal::Body
            | Refusal::Mismatch => "SignatureDoesNotMatch",
        };
        Self::forbidden(code, refusal.to_string())
    }
}
