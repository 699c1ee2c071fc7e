use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "AttachThingPrincipal",
    method: Method::PUT,
    path: "/things/{thingName}/principals",
    least: Role::Operator,
    query: &["thingPrincipalType"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing = call.path("thingName")?;
    match call.query::<String>("thingPrincipalType")?.as_deref() {
        // A certificate belongs to one thing here, whatever is asked.
        None | Some("EXCLUSIVE_THING") => {}
        Some("NON_EXCLUSIVE_THING") => {
            return Err(ApiError::unsupported(
                "thingPrincipalType NON_EXCLUSIVE_THING",
            ));
        }
        Some(other) => {
            return Err(ApiError::invalid(format!(
                "thingPrincipalType {other:?}: EXCLUSIVE_THING, or nothing"
            )));
        }
    }
    let id = call
        .arns(rooms)
        .read_certificate(call.header("x-amzn-principal")?)?;
    rooms.fleet.attach_principal(&thing, &id)?;
    Answer::empty_object()
}
