use fleet::{Change, FleetError};
use http::Method;
use policy::PolicyName;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DetachPolicy",
    method: Method::POST,
    path: "/target-policies/{policyName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    target: String,
    /// Ours: whether to refuse what breaks a declared invariant.
    #[serde(default)]
    keep_proofs: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let body: Body = call.body()?;
    let target = call.arns(rooms).read_target(&body.target)?;
    if body.keep_proofs {
        let change = Change::Detach(name.clone(), target.clone());
        rooms.fleet.keeps_invariants_after(&change)?;
    }
    match rooms.fleet.detach_policy(&name, &target) {
        Ok(()) => Answer::nothing(),
        // AWS's DetachPolicy knows no ResourceNotFoundException.
        Err(error @ FleetError::NotFound { .. }) => Err(ApiError::invalid(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
