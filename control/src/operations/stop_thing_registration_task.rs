use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "StopThingRegistrationTask",
    method: Method::PUT,
    path: "/thing-registration-tasks/{taskId}/cancel",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("taskId")?;
    rooms.registration.stop(&id, call.now)?;
    Answer::nothing()
}
