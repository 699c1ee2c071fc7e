use fleet::Change;
use http::Method;

use super::membership::Membership;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "AddThingToThingGroup",
    method: Method::PUT,
    path: "/thing-groups/addThingToThingGroup",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Membership = call.body()?;
    let keep_proofs = body.keep_proofs;
    let (group, thing) = body.names(call.arns(rooms))?;
    if keep_proofs {
        let change = Change::Join(thing.clone(), group.clone());
        rooms.fleet.keeps_invariants_after(&change)?;
    }
    rooms.fleet.add_to_group(&group, &thing)?;
    Answer::empty_object()
}
