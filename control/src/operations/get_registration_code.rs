use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "GetRegistrationCode",
    method: Method::GET,
    path: "/registrationcode",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    registration_code: String,
}

fn run(rooms: &Rooms, _: &Call) -> Result<Answer, ApiError> {
    Answer::json(&Output {
        registration_code: rooms.fleet.registration_code()?,
    })
}
