use http::Method;
use policy::PolicyName;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Replaces what a policy says. CreatePolicyVersion stops at five versions, as AWS does; this
/// lets go of the oldest.
pub(super) const OPERATION: Operation = Operation {
    name: "UpdatePolicy",
    method: Method::PUT,
    path: "/muster/v1/policies/{policyName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    policy_document: String,
    /// Whether to refuse what breaks a declared invariant.
    #[serde(default)]
    keep_proofs: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    policy_name: String,
    policy_arn: String,
    policy_version_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let body: Body = call.body()?;
    if body.keep_proofs {
        rooms.fleet.keeps_invariants(&name, &body.policy_document)?;
    }
    let version = rooms
        .fleet
        .update_policy(&name, &body.policy_document, call.now)?;
    Answer::json(&Output {
        policy_name: name.to_string(),
        policy_arn: call.arns(rooms).policy(&name),
        policy_version_id: version.number.to_string(),
    })
}
