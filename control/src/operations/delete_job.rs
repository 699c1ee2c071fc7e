use http::{Method, StatusCode};
use ota::JobId;

use super::namespace;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteJob",
    method: Method::DELETE,
    path: "/jobs/{jobId}",
    least: Role::Operator,
    query: &["force", "namespaceId"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobId")?;
    namespace::check(rooms, call, &id)?;
    let force = call.flag("force")?;
    match rooms.ota.delete_job(&id, force, call.now) {
        Err(error @ ota::Error::JobState { .. }) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "InvalidStateTransitionException",
            error.to_string(),
        )),
        other => {
            other?;
            Answer::nothing()
        }
    }
}
