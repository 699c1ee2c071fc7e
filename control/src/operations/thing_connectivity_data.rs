use fleet::ThingName;
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "GetThingConnectivityData",
    method: Method::POST,
    path: "/things/{thingName}/connectivity-data",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    connected: bool,
    /// Since when it is. When one that is not was last, and why it went, is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<EpochSeconds>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: ThingName = call.path("thingName")?;
    rooms.fleet.thing(&name)?;
    let since = rooms.fleet.connected_since(&name);
    Answer::json(&Output {
        thing_name: name,
        connected: since.is_some(),
        timestamp: since.map(EpochSeconds),
    })
}
