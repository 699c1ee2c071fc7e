use http::Method;
use ota::server::StreamBody;

use super::create_stream::StreamRef;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateStream",
    method: Method::PUT,
    path: "/streams/{streamId}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("streamId")?;
    let body: StreamBody = call.body()?;
    let stream = rooms.ota.update_stream(&id, body, call.now)?;
    Answer::json(&StreamRef::of(stream, call.arns(rooms)))
}
