use ca::CertificateId;
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
    name: "ShowDevice",
    method: Method::GET,
    path: "/muster/v1/devices/{thingName}",
    least: Role::Viewer,
    query: &["certificate"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(flatten)]
    device: Device,
    /// Of a certificate that was asked for and that the device has renewed: the one that goes on for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    carried_on_by: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing = rooms.fleet.thing(&call.path("thingName")?)?;
    let carried_on_by = match call.query::<CertificateId>("certificate")? {
        Some(id) => rooms.fleet.carried_on_by(&id, &thing.name)?,
        None => None,
    };
    Answer::json(&Output {
        device: Device::of(rooms, call, thing)?,
        carried_on_by: carried_on_by.map(|id| id.to_string()),
    })
}
