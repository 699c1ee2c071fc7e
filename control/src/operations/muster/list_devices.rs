use http::Method;
use serde::Serialize;

use super::device::Device;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListDevices",
    method: Method::GET,
    path: "/muster/v1/devices",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let page = rooms.fleet.things(asked.after.as_deref(), asked.limit)?;
    let devices = page
        .items
        .into_iter()
        .map(|thing| Device::of(rooms, call, thing))
        .collect::<Result<_, _>>()?;
    Answer::json(&Output {
        devices,
        next_token: asked.token(page.next),
    })
}
