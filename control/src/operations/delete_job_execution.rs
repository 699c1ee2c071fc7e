use fleet::ThingName;
use http::Method;
use ota::JobId;

use super::namespace;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteJobExecution",
    method: Method::DELETE,
    path: "/things/{thingName}/jobs/{jobId}/executionNumber/{executionNumber}",
    least: Role::Operator,
    query: &["force", "namespaceId"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    let id: JobId = call.path("jobId")?;
    namespace::check(rooms, call, &id)?;
    let number: u64 = call.path("executionNumber")?;
    let force = call.flag("force")?;
    rooms
        .ota
        .delete_execution(&id, thing.as_str(), number, force, call.now)?;
    Answer::nothing()
}
