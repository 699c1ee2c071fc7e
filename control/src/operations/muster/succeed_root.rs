use ca::{CertificateFacts, RootNumber, SecretKey, Successor};
use http::Method;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Makes the root that follows the present one, or takes one that was made elsewhere.
pub(super) const OPERATION: Operation = Operation {
    name: "SucceedRoot",
    method: Method::POST,
    path: "/muster/v1/authority/root",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// Makes the successor that waits for the present root's signature; its key stays with the server.
pub(super) const REQUEST: Operation = Operation {
    name: "RequestRoot",
    method: Method::POST,
    path: "/muster/v1/authority/root/request",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(request),
};

/// Trusts a root no more.
pub(super) const RETIRE: Operation = Operation {
    name: "RetireRoot",
    method: Method::POST,
    path: "/muster/v1/authority/root/retire",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(retire),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    /// The successor signed by the present root, PEM. Without it the present root's key that is with the server signs.
    cross_pem: Option<String>,
    /// A successor that was made elsewhere, PEM.
    successor_pem: Option<String>,
    /// The present root signed by that one's key.
    back_pem: Option<String>,
    /// The issuing certificate below it, then what stands between them.
    issuing_pem: Option<String>,
    /// PKCS#8; without it the issuing certificate answers the request made before.
    issuing_key: Option<String>,
    /// The successor's own revocation list, PEM.
    list_pem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    number: RootNumber,
    certificate_id: String,
    certificate_pem: String,
    not_after: EpochSeconds,
    /// Of the issuing certificate that signs from now on.
    issuing_not_after: EpochSeconds,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let authority = &rooms.authority;
    let key = body.issuing_key.map(Zeroizing::new);
    let cross = body.cross_pem.as_deref();
    let number = match (body.successor_pem, body.issuing_pem) {
        (None, None) if key.is_none() && body.back_pem.is_none() && body.list_pem.is_none() => {
            authority.succeed_root(cross, call.now)?
        }
        (Some(certificate), Some(issuing)) => {
            rooms.fleet.refuse_for_authority(&certificate, false)?;
            rooms.fleet.refuse_for_authority(&issuing, false)?;
            let key = key.map(|key| SecretKey::from_pem(key.as_bytes(), None));
            let successor = Successor {
                certificate,
                of_former: body.back_pem,
                issuing,
                issuing_key: key.transpose()?,
                list: body.list_pem,
            };
            authority.adopt_root(successor, cross, call.now)?
        }
        _ => {
            return Err(ApiError::invalid(
                "successorPem and issuingPem come together; issuingKey, backPem and listPem only with them",
            ));
        }
    };
    let root = CertificateFacts::read(&authority.root_der())?;
    let issuing = CertificateFacts::read(&authority.issuing_der())?;
    tracing::info!(%number, certificate = %root.id, "the root has a successor");
    Answer::json(&Output {
        number,
        certificate_id: root.id.to_string(),
        certificate_pem: authority.root_pem(),
        not_after: EpochSeconds(root.not_after),
        issuing_not_after: EpochSeconds(issuing.not_after),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Requested {
    root_pem: String,
    successor_pem: String,
}

fn request(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    Answer::json(&Requested {
        root_pem: rooms.authority.root_pem(),
        successor_pem: rooms.authority.root_request(call.now)?,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Retire {
    number: RootNumber,
    #[serde(default)]
    before_its_end: bool,
}

fn retire(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Retire = call.body()?;
    rooms
        .authority
        .retire_root(body.number, body.before_its_end, call.now)?;
    tracing::info!(number = %body.number, "a root was retired");
    Answer::nothing()
}
