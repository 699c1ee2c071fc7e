use http::Method;

use super::principal_type;
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
    let id = call
        .arns(rooms)
        .read_certificate(call.header("x-amzn-principal")?)?;
    let attachment = principal_type::asked(call)?;
    rooms.fleet.attach_principal(&thing, &id, attachment)?;
    Answer::empty_object()
}
