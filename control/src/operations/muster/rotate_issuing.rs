use ca::{CertificateFacts, IssuerNumber, SecretKey};
use http::Method;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Makes the next issuing certificate, or takes one that was signed elsewhere.
pub(super) const OPERATION: Operation = Operation {
    name: "RotateIssuingCertificate",
    method: Method::POST,
    path: "/muster/v1/authority/issuing",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    /// Issuing first, then what stands between it and the root. Without one the root's key that is with the server
    /// signs.
    certificate_pem: Option<String>,
    /// PKCS#8; without it the certificate answers the request made before.
    private_key: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    number: IssuerNumber,
    certificate_id: String,
    certificate_pem: String,
    not_after: EpochSeconds,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let authority = &rooms.authority;
    let private_key = body.private_key.map(Zeroizing::new);
    let number = match (&body.certificate_pem, &private_key) {
        (None, None) => authority.rotate_issuing(call.now)?,
        (None, Some(_)) => {
            return Err(ApiError::invalid(
                "privateKey: a key comes with its certificatePem",
            ));
        }
        (Some(chain), key) => {
            rooms.fleet.refuse_for_authority(chain, false)?;
            let key = key
                .as_ref()
                .map(|key| SecretKey::from_pem(key.as_bytes(), None));
            authority.adopt_issuing(chain, key.transpose()?, call.now)?
        }
    };
    let facts = CertificateFacts::read(&authority.issuing_der())?;
    tracing::info!(%number, certificate = %facts.id, "the issuing certificate was rotated");
    Answer::json(&Output {
        number,
        certificate_id: facts.id.to_string(),
        certificate_pem: authority.issuing_pem(),
        not_after: EpochSeconds(facts.not_after),
    })
}
