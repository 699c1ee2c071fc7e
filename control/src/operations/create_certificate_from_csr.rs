use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateCertificateFromCsr",
    method: Method::POST,
    path: "/certificates",
    least: Role::Operator,
    query: &["setAsActive"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    certificate_signing_request: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificate_arn: String,
    certificate_id: String,
    certificate_pem: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let active = call.flag("setAsActive")?;
    let body: Body = call.body()?;
    let request = body.certificate_signing_request;
    let (record, issued) =
        rooms
            .fleet
            .create_certificate_from_csr(request.as_bytes(), active, call.now)?;
    Answer::json(&Output {
        certificate_arn: call.arns(rooms).certificate(&record.id),
        certificate_id: record.id.to_string(),
        certificate_pem: issued.pem,
    })
}
