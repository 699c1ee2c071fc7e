use fleet::ThingName;
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Forgets the one-time password of a device that was not used yet.
pub(super) const OPERATION: Operation = Operation {
    name: "WithdrawEnrolmentPassword",
    method: Method::DELETE,
    path: "/muster/v1/devices/{thingName}/enrolment-password",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    if !rooms.fleet.withdraw_enrolment_password(&thing)? {
        return Err(ApiError::not_found(format!(
            "there is no enrolment password of {thing}: it was used, was withdrawn or never made"
        )));
    }
    Answer::empty_object()
}
