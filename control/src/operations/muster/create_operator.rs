use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::{NewOperator, OperatorName, Role};
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateOperator",
    method: Method::POST,
    path: "/muster/v1/operators",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    name: OperatorName,
    role: Role,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Output<'a> {
    name: &'a OperatorName,
    role: Role,
    certificate_id: String,
    certificate_pem: &'a str,
    private_key: &'a str,
    /// The AWS shared-credentials file.
    credentials: &'a str,
}

impl<'a> Output<'a> {
    pub(super) fn of(made: &'a NewOperator) -> Self {
        Self {
            name: &made.operator.name,
            role: made.operator.role,
            certificate_id: made.operator.certificate.to_string(),
            certificate_pem: &made.certificate_pem,
            private_key: &made.private_key_pem,
            credentials: &made.credentials,
        }
    }
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let made = rooms
        .operators
        .add(&body.name, body.role, &rooms.authority, call.now, |made| {
            made.note(&rooms.fleet).map_err(ApiError::from)
        })?;
    Answer::json(&Output::of(&made))
}
