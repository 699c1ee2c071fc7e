use std::collections::BTreeMap;

use ca::CertificateId;
use fleet::{DEVICE_DEFAULT, FleetError, GroupName, ThingName};
use http::Method;
use policy::PolicyName;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ImportDevice",
    method: Method::POST,
    path: "/muster/v1/device-imports",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_name: ThingName,
    certificate_pem: String,
    policy_name: Option<String>,
    group_name: Option<GroupName>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    certificate_id: CertificateId,
    certificate_arn: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let policy: PolicyName = body
        .policy_name
        .as_deref()
        .unwrap_or(DEVICE_DEFAULT)
        .parse()
        .map_err(|error| ApiError::invalid(format!("policyName: {error}")))?;
    let groups: Vec<GroupName> = body.group_name.into_iter().collect();
    let imported = rooms.fleet.import_device(
        &body.thing_name,
        &body.certificate_pem,
        &[policy],
        &groups,
        &body.attributes,
        call.now,
    );
    match imported {
        Ok(record) => Answer::json(&Output {
            thing_name: body.thing_name,
            certificate_id: record.id,
            certificate_arn: call.arns(rooms).certificate(&record.id),
        }),
        Err(error @ FleetError::AlreadyExists { .. }) => {
            let name = &body.thing_name;
            Err(ApiError::from(error).about(name.as_str(), call.arns(rooms).thing(name)))
        }
        Err(error) => Err(error.into()),
    }
}
