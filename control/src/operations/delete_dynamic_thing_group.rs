use fleet::{FleetError, GroupName};
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteDynamicThingGroup",
    method: Method::DELETE,
    path: "/dynamic-thing-groups/{thingGroupName}",
    least: Role::Operator,
    query: &["expectedVersion"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: GroupName = call.path("thingGroupName")?;
    match rooms
        .fleet
        .delete_dynamic_group(&name, call.query("expectedVersion")?)
    {
        // As with AWS: what is gone may be deleted.
        Ok(()) | Err(FleetError::NotFound { .. }) => Answer::nothing(),
        Err(error) => Err(error.into()),
    }
}
