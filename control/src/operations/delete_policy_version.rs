use http::Method;
use policy::PolicyName;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeletePolicyVersion",
    method: Method::DELETE,
    path: "/policies/{policyName}/version/{policyVersionId}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let version = call.path("policyVersionId")?;
    rooms.fleet.delete_policy_version(&name, version)?;
    Answer::nothing()
}
