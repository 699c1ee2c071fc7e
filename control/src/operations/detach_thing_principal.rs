use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DetachThingPrincipal",
    method: Method::DELETE,
    path: "/things/{thingName}/principals",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing = call.path("thingName")?;
    let id = call
        .arns(rooms)
        .read_certificate(call.header("x-amzn-principal")?)?;
    rooms.fleet.detach_principal(&thing, &id)?;
    Answer::empty_object()
}
