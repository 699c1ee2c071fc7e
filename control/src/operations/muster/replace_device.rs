use fleet::DeviceKey;
use http::Method;
use serde::Deserialize;

use super::enrolled;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ReplaceDevice",
    method: Method::POST,
    path: "/muster/v1/devices/{thingName}/replace",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    certificate_signing_request: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let key = match &body.certificate_signing_request {
        None => DeviceKey::Generate,
        Some(text) => DeviceKey::Csr(text.as_bytes()),
    };
    let enrolled = rooms
        .fleet
        .replace(&call.path("thingName")?, key, call.now)?;
    enrolled::answer(rooms, call, &enrolled)
}
