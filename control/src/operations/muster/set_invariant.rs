use fleet::DeclaredInvariant;
use http::Method;
use policy::{InvariantText, PolicyName};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Declares what is to hold of all devices; policies made with `keepProofs` must keep it.
pub(super) const OPERATION: Operation = Operation {
    name: "SetInvariant",
    method: Method::PUT,
    path: "/muster/v1/invariants/{invariantName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("invariantName")?;
    let claim: InvariantText = call.body()?;
    let declared = DeclaredInvariant { name, claim };
    rooms.fleet.set_invariant(&declared)?;
    Answer::json(&declared)
}
