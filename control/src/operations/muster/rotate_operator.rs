use ca::RevocationReason;
use http::Method;
use serde::Serialize;

use super::create_operator::Output;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Gives an operator other keys; those it had are refused from then on.
pub(super) const OPERATION: Operation = Operation {
    name: "RotateOperator",
    method: Method::POST,
    path: "/muster/v1/operators/{name}/rotate",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
struct Rotated<'a> {
    #[serde(flatten)]
    made: Output<'a>,
    /// Whether its files in the server's data directory were written anew.
    kept: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let rotated = rooms
        .operators
        .rotate(&call.path("name")?, &rooms.authority, call.now)?;
    rotated.made.operator.note(&rooms.fleet)?;
    let reason = RevocationReason::Superseded;
    rooms
        .fleet
        .revoke_issued(&rotated.before.certificate, reason, call.now)?;
    Answer::json(&Rotated {
        made: Output::of(&rotated.made),
        kept: rotated.kept,
    })
}
