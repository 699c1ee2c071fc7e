use fleet::DeclaredInvariant;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListInvariants",
    method: Method::GET,
    path: "/muster/v1/invariants",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
struct Output {
    /// All of them: there are a hundred at most.
    invariants: Vec<DeclaredInvariant>,
}

fn run(rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    let invariants = rooms.fleet.invariants()?;
    Answer::json(&Output { invariants })
}
