use fleet::{GroupName, ThingName};
use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateThingGroupsForThing",
    method: Method::PUT,
    path: "/thing-groups/updateThingGroupsForThing",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_name: ThingName,
    #[serde(default)]
    thing_groups_to_add: Vec<GroupName>,
    #[serde(default)]
    thing_groups_to_remove: Vec<GroupName>,
    /// Dynamic groups do not count among the ten that a thing may be in, so that nothing has to give way.
    #[serde(default, rename = "overrideDynamicGroups")]
    _override_dynamic_groups: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let (add, remove) = (&body.thing_groups_to_add, &body.thing_groups_to_remove);
    if let Some(both) = add.iter().find(|group| remove.contains(group)) {
        return Err(ApiError::invalid(format!(
            "group {both} is to be added and removed"
        )));
    }
    rooms
        .fleet
        .change_groups_of(&body.thing_name, add, remove)?;
    Answer::empty_object()
}
