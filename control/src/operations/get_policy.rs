use http::Method;
use policy::PolicyName;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "GetPolicy",
    method: Method::GET,
    path: "/policies/{policyName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    policy_name: String,
    policy_arn: String,
    policy_document: &'a str,
    default_version_id: String,
    creation_date: EpochSeconds,
    last_modified_date: EpochSeconds,
    generation_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let record = rooms.fleet.policy(&name)?;
    let version = record
        .default()
        .ok_or_else(|| ApiError::internal(&"a policy has no default version"))?;
    Answer::json(&Output {
        policy_name: name.to_string(),
        policy_arn: call.arns(rooms).policy(&name),
        policy_document: &version.document,
        default_version_id: record.default_version.to_string(),
        creation_date: EpochSeconds(record.created),
        last_modified_date: EpochSeconds(version.created),
        generation_id: record.next_version.to_string(),
    })
}
