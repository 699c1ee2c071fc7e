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
    name: "ListPolicyVersions",
    method: Method::GET,
    path: "/policies/{policyName}/version",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    policy_versions: Vec<Version>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version_id: String,
    is_default_version: bool,
    create_date: EpochSeconds,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let record = rooms.fleet.policy(&name)?;
    let default = record.default_version;
    let versions = record.versions.iter().map(|version| Version {
        version_id: version.number.to_string(),
        is_default_version: version.number == default,
        create_date: EpochSeconds(version.created),
    });
    Answer::json(&Output {
        policy_versions: versions.collect(),
    })
}
