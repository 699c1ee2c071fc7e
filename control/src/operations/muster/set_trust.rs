use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Takes a trust root. The first one is believed because an admin brings it; each later one
/// because the root before signed it.
pub(super) const OPERATION: Operation = Operation {
    name: "TrustFirmwareRoot",
    method: Method::PUT,
    path: "/muster/v1/firmware/trust",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Serialize)]
struct Output {
    version: u64,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    if rooms.ota.newest_root()?.is_none() {
        call.caller
            .require(Role::Admin, "bringing the first trust root")?;
    }
    let root = rooms.ota.trust(&call.body, call.now)?;
    Answer::json(&Output {
        version: root.version(),
    })
}
