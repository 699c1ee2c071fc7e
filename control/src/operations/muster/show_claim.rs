use http::Method;

use super::claim::Shown;
use crate::arn::certificate_id;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowClaim",
    method: Method::GET,
    path: "/muster/v1/claims/{certificateId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("certificateId")?)?;
    let (claim, used) = rooms.fleet.claim(&id)?;
    Answer::json(&Shown::of(rooms, call, claim, used)?)
}
