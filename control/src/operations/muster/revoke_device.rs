use ca::{CertificateId, RevocationReason};
use fleet::ThingName;
use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "RevokeDevice",
    method: Method::POST,
    path: "/muster/v1/devices/{thingName}/revoke",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    reason: Option<String>,
}

/// Whose certificates were revoked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revoked {
    pub(super) thing_name: ThingName,
    /// Ids of the certificates.
    pub(super) revoked: Vec<CertificateId>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing_name: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    let reason = match &body.reason {
        None => RevocationReason::Unspecified,
        Some(text) => text
            .parse()
            .map_err(|error| ApiError::invalid(format!("reason: {error}")))?,
    };
    let revoked = rooms.fleet.revoke_device(&thing_name, reason, call.now)?;
    Answer::json(&Revoked {
        thing_name,
        revoked,
    })
}
