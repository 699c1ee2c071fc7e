use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// The newest trust root, byte for byte as it was given.
pub(super) const OPERATION: Operation = Operation {
    name: "ShowFirmwareTrust",
    method: Method::GET,
    path: "/muster/v1/firmware/trust",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    match rooms.ota.newest_root()? {
        Some((json, _)) => Ok(Answer::raw_json(json.into_bytes())),
        None => Err(ApiError::not_found(ota::Error::NoTrust.to_string())),
    }
}
