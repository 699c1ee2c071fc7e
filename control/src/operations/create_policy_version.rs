use fleet::FleetError;
use http::{Method, StatusCode};
use policy::PolicyName;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreatePolicyVersion",
    method: Method::POST,
    path: "/policies/{policyName}/version",
    least: Role::Admin,
    query: &["setAsDefault"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    policy_document: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    policy_arn: String,
    policy_document: String,
    policy_version_id: String,
    is_default_version: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let set_default = call.flag("setAsDefault")?;
    let body: Body = call.body()?;
    let document = body.policy_document;
    let made = rooms
        .fleet
        .create_policy_version(&name, &document, set_default, call.now);
    let version = match made {
        Ok(version) => version,
        Err(error @ FleetError::Limit { .. }) => {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "VersionsLimitExceededException",
                error.to_string(),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    Answer::json(&Output {
        policy_arn: call.arns(rooms).policy(&name),
        policy_document: document,
        policy_version_id: version.number.to_string(),
        is_default_version: set_default,
    })
}
