use http::{Method, StatusCode};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Forgets a network; conditions that ask for it are no longer met.
pub(super) const OPERATION: Operation = Operation {
    name: "DeleteNetwork",
    method: Method::DELETE,
    path: "/muster/v1/networks/{networkName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: String = call.path("networkName")?;
    if !rooms.fleet.delete_network(&name)? {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            format!("network {name:?} does not exist"),
        ));
    }
    Answer::empty_object()
}
