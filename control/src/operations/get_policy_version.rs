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
    name: "GetPolicyVersion",
    method: Method::GET,
    path: "/policies/{policyName}/version/{policyVersionId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    policy_arn: String,
    policy_name: String,
    policy_document: &'a str,
    policy_version_id: String,
    is_default_version: bool,
    creation_date: EpochSeconds,
    last_modified_date: EpochSeconds,
    generation_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let number: u32 = call.path("policyVersionId")?;
    let record = rooms.fleet.policy(&name)?;
    let version = record.version(number)?;
    Answer::json(&Output {
        policy_arn: call.arns(rooms).policy(&name),
        policy_name: name.to_string(),
        policy_document: &version.document,
        policy_version_id: number.to_string(),
        is_default_version: number == record.default_version,
        creation_date: EpochSeconds(version.created),
        last_modified_date: EpochSeconds(version.created),
        generation_id: record.next_version.to_string(),
    })
}
