use http::Method;

use super::device::Device;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowDevice",
    method: Method::GET,
    path: "/muster/v1/devices/{thingName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing = rooms.fleet.thing(&call.path("thingName")?)?;
    Answer::json(&Device::of(rooms, call, thing)?)
}
