use std::io::Read;

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
    name: "UploadFirmwarePart",
    method: Method::PUT,
    path: "/muster/v1/firmware/uploads/{package}",
    least: Role::ReleaseEngineer,
    query: &["offset"],
    undone: &[],
    run: Run::Upload(run),
};

fn run(rooms: &Rooms, call: &Call, part: &mut dyn Read) -> Result<Answer, ApiError> {
    let package: Sha256 = call.path("package")?;
    let offset = call.query("offset")?.unwrap_or(0);
    let received = rooms.ota.upload(package, offset, part, call.now)?;
    Answer::json(&json!({ "received": received }))
}
