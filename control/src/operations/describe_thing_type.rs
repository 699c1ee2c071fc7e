use fleet::ThingTypeName;
use http::Method;
use serde::Serialize;

use super::thing_type::Shown;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeThingType",
    method: Method::GET,
    path: "/thing-types/{thingTypeName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_type_id: String,
    #[serde(flatten)]
    shown: Shown,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingTypeName = call.path("thingTypeName")?;
    let made = rooms.fleet.thing_type(&name)?;
    Answer::json(&Output {
        thing_type_id: made.id.clone(),
        shown: Shown::of(made, call.arns(rooms)),
    })
}
