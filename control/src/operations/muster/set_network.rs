use fleet::NamedNetwork;
use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Names a set of addresses, or says anew what the name stands for.
pub(super) const OPERATION: Operation = Operation {
    name: "SetNetwork",
    method: Method::PUT,
    path: "/muster/v1/networks/{networkName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    ranges: Vec<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: String = call.path("networkName")?;
    let Body { ranges } = call.body()?;
    let network = NamedNetwork { name, ranges };
    rooms.fleet.set_network(&network)?;
    Answer::json(&network)
}
