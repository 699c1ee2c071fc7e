use fleet::ThingName;
use http::Method;

use super::revoke_device::Revoked;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteDevice",
    method: Method::DELETE,
    path: "/muster/v1/devices/{thingName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing_name: ThingName = call.path("thingName")?;
    let gone = rooms.fleet.decommission(&thing_name, call.now)?;
    rooms.ota.forget_thing(thing_name.as_str(), call.now)?;
    rooms.shadows.forget_thing(thing_name.as_str())?;
    Answer::json(&Revoked {
        thing_name,
        revoked: gone.revoked,
    })
}
