use http::Method;

use super::membership::Membership;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "RemoveThingFromThingGroup",
    method: Method::PUT,
    path: "/thing-groups/removeThingFromThingGroup",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let (group, thing) = call.body::<Membership>()?.names(call.arns(rooms))?;
    rooms.fleet.remove_from_group(&group, &thing)?;
    Answer::empty_object()
}
