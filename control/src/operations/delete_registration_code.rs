use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteRegistrationCode",
    method: Method::DELETE,
    path: "/registrationcode",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, _: &Call) -> Result<Answer, ApiError> {
    rooms.fleet.delete_registration_code()?;
    Answer::nothing()
}
