use fleet::FleetError;
use http::Method;
use ota::server::{Tag, read_tags};
use policy::PolicyName;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreatePolicy",
    method: Method::POST,
    path: "/policies/{policyName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    policy_document: String,
    #[serde(default)]
    tags: Vec<Tag>,
    /// Ours: whether to refuse what breaks a declared invariant.
    #[serde(default)]
    keep_proofs: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    policy_name: String,
    policy_arn: String,
    policy_document: String,
    policy_version_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let body: Body = call.body()?;
    let arn = call.arns(rooms).policy(&name);
    if body.keep_proofs {
        rooms.fleet.keeps_invariants(&name, &body.policy_document)?;
    }
    let tags = read_tags(&body.tags)?;
    let made = rooms
        .fleet
        .create_tagged_policy(&name, &body.policy_document, &tags, call.now);
    let record = match made {
        Ok(record) => record,
        Err(error @ FleetError::AlreadyExists { .. }) => {
            return Err(ApiError::from(error).about(name.to_string(), arn));
        }
        Err(error) => return Err(error.into()),
    };
    Answer::json(&Output {
        policy_name: name.to_string(),
        policy_arn: arn,
        policy_document: body.policy_document,
        policy_version_id: record.default_version.to_string(),
    })
}
