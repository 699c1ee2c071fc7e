use fleet::CertificateStatus;
use fleet::authorities::{ForeignKind, NewForeign};
use http::Method;
use serde::Deserialize;

use super::registered_certificate::answer;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "RegisterCertificateWithoutCA",
    method: Method::POST,
    path: "/certificate/register-no-ca",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    certificate_pem: String,
    status: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let said = body.status.as_deref().map(str::parse::<CertificateStatus>);
    let said = said
        .transpose()
        .map_err(|error| ApiError::invalid(format!("status: {error}")))?;
    let status = said.unwrap_or(CertificateStatus::Inactive);
    let kind = ForeignKind::Alone;
    let new = NewForeign {
        pem: &body.certificate_pem,
        kind,
        status,
    };
    answer(
        rooms,
        call,
        rooms.fleet.register_certificate(&new, call.now),
    )
}
