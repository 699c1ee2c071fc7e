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
    let name = call.path("name")?;
    let rotated = rooms
        .operators
        .rotate(&name, &rooms.authority, call.now, |made| {
            made.note(&rooms.fleet).map_err(ApiError::from)
        })?;
    // From here on the answer is where the keys are, and must leave. The certificate of before is refused here whatever
    // the lists say of it.
    let before = rotated.before.certificate;
    if let Err(error) = rooms.operators.revoke_left(&rooms.fleet, call.now) {
        tracing::error!(operator = %name, certificate = %before, %error,
            "the certificate that an operator had before is refused, but OCSP and the revocation list do not say so before the next start");
    }
    Answer::json(&Rotated {
        made: Output::of(&rotated.made),
        kept: rotated.kept,
    })
}
