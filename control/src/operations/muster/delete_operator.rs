use ca::RevocationReason;
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteOperator",
    method: Method::DELETE,
    path: "/muster/v1/operators/{name}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let operator = rooms.operators.remove(&call.path("name")?)?;
    let reason = RevocationReason::CessationOfOperation;
    rooms
        .fleet
        .revoke_issued(&operator.certificate, reason, call.now)?;
    Answer::empty_object()
}
