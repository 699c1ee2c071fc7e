use http::Method;
use ota::Sha256;
use serde_json::json;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowFirmwareUpload",
    method: Method::GET,
    path: "/muster/v1/firmware/uploads/{package}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let package: Sha256 = call.path("package")?;
    Answer::json(&json!({ "received": rooms.ota.uploaded(package)? }))
}
