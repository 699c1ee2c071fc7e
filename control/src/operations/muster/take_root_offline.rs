use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Removes the root's key, which whoever asks has kept as `ExportRootKey` gave it out.
pub(super) const OPERATION: Operation = Operation {
    name: "TakeRootOffline",
    method: Method::POST,
    path: "/muster/v1/authority/root-key/offline",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// Of the encrypted key, as it was kept.
    sha256: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    rooms.authority.take_root_offline(&body.sha256, call.now)?;
    Answer::nothing()
}
