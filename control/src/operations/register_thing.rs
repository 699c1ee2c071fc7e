use std::collections::BTreeMap;

use fleet::FleetError;
use fleet::provisioning::Rejection;
use fleet::template::Template;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "RegisterThing",
    method: Method::POST,
    path: "/things",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    template_body: String,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificate_pem: String,
    resource_arns: BTreeMap<String, String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let template = Template::parse(&body.template_body).map_err(FleetError::from)?;
    if template.makes_policies() {
        // What CreatePolicy asks for, and CreateProvisioningTemplate.
        let what = "RegisterThing with a PolicyDocument in its template (name a policy with PolicyName instead)";
        call.caller.require(Role::Admin, what)?;
    }
    let made = rooms
        .fleet
        .register_by_template(&template, &body.parameters, call.now)
        .map_err(refused)?;
    let arns = call.arns(rooms);
    let mut resource_arns = BTreeMap::from([
        ("thing".to_owned(), arns.thing(&made.thing)),
        (
            "certificate".to_owned(),
            arns.certificate(&made.certificate),
        ),
    ]);
    for policy in &made.policies {
        resource_arns.insert(format!("policy_{policy}"), arns.policy(policy));
    }
    Answer::json(&Output {
        certificate_pem: made.certificate_pem,
        resource_arns,
    })
}

fn refused(rejection: Rejection) -> ApiError {
    match rejection.status {
        409 => ApiError::new(
            StatusCode::CONFLICT,
            "ConflictingResourceUpdateException",
            rejection.message,
        ),
        500.. => ApiError::internal(&rejection.message),
        _ => ApiError::new(
            StatusCode::BAD_REQUEST,
            "ResourceRegistrationFailureException",
            rejection.message,
        ),
    }
}
