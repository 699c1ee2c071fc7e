use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowFirmwarePackage",
    method: Method::GET,
    path: "/muster/v1/firmware/packages/{name}/{version}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let firmware = rooms
        .ota
        .firmware(&call.path("name")?, &call.path("version")?)?;
    Answer::json(&firmware)
}
