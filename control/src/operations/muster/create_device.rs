use std::collections::BTreeMap;

use fleet::{DEVICE_DEFAULT, DeviceKey, Enrolment, FleetError, GroupName, ThingName};
use http::Method;
use policy::PolicyName;
use serde::Deserialize;

use super::enrolled;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateDevice",
    method: Method::POST,
    path: "/muster/v1/devices",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_name: ThingName,
    policy_name: Option<String>,
    group_name: Option<GroupName>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    certificate_signing_request: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let policy: PolicyName = body
        .policy_name
        .as_deref()
        .unwrap_or(DEVICE_DEFAULT)
        .parse()
        .map_err(|error| ApiError::invalid(format!("policyName: {error}")))?;
    let request = body.certificate_signing_request;
    let enrolment = Enrolment {
        thing: body.thing_name,
        policies: vec![policy],
        groups: body.group_name.into_iter().collect(),
        attributes: body.attributes,
        key: match &request {
            None => DeviceKey::Generate,
            Some(text) => DeviceKey::Csr(text.as_bytes()),
        },
    };
    match rooms.fleet.enrol(&enrolment, call.now) {
        Ok(enrolled) => enrolled::answer(rooms, call, &enrolled),
        Err(error @ FleetError::AlreadyExists { .. }) => {
            let name = &enrolment.thing;
            // Asking again with the same key is no error: the first answer may have been lost.
            if let Some(csr) = &request
                && let Some(known) = rooms.fleet.enrolled_with(name, csr.as_bytes())?
            {
                return enrolled::answer(rooms, call, &known);
            }
            Err(ApiError::from(error).about(name.as_str(), call.arns(rooms).thing(name)))
        }
        Err(error) => Err(error.into()),
    }
}
