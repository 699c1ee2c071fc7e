use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteStream",
    method: Method::DELETE,
    path: "/streams/{streamId}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("streamId")?;
    rooms.ota.delete_stream(&id)?;
    Answer::empty_object()
}
