use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Roles, keys, thresholds, expiries, delegations and listed images of the firmware repository.
pub(super) const OPERATION: Operation = Operation {
    name: "ShowFirmwareRepository",
    method: Method::GET,
    path: "/muster/v1/firmware/repository",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

/// One metadata file, byte for byte as TUF clients get it.
pub(super) const FILE: Operation = Operation {
    name: "ShowFirmwareMetadata",
    method: Method::GET,
    path: "/muster/v1/firmware/repository/{file}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run_file),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    Answer::json(&rooms.ota.repository(call.now)?)
}

fn run_file(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let file: String = call.path("file")?;
    match rooms.ota.metadata(&file, call.now)? {
        Some(json) => Ok(Answer::raw_json(json.into_bytes())),
        None => Err(ApiError::not_found(format!(
            "The firmware repository has no metadata file {file}."
        ))),
    }
}
