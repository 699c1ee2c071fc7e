use http::{Method, StatusCode};
use policy::PolicyName;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteInvariant",
    method: Method::DELETE,
    path: "/muster/v1/invariants/{invariantName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("invariantName")?;
    if !rooms.fleet.delete_invariant(&name)? {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            format!("invariant {name} does not exist"),
        ));
    }
    Answer::empty_object()
}
