use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{DEVICE_DEFAULT, GroupName, PasswordTerms, ThingName};
use http::Method;
use policy::PolicyName;
use serde::{Deserialize, Serialize};

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Makes the one-time password with which a device enrols itself by EST.
pub(super) const OPERATION: Operation = Operation {
    name: "MakeEnrolmentPassword",
    method: Method::POST,
    path: "/muster/v1/devices/{thingName}/enrolment-password",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// A day.
const DEFAULT_SECONDS: u64 = 24 * 60 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    policy_name: Option<String>,
    group_name: Option<GroupName>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    valid_seconds: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    thing_name: String,
    /// Handed out once.
    password: &'a str,
    expires_at: EpochSeconds,
    https_host: &'a str,
    https_port: u16,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    let told = body.policy_name.is_some() || body.group_name.is_some();
    if (told || !body.attributes.is_empty()) && rooms.fleet.thing(&thing).is_ok() {
        return Err(ApiError::invalid(format!(
            "thing {thing} exists, and a new certificate of its own changes neither its policies nor its groups nor \
             its attributes: leave out policyName, groupName and attributes"
        )));
    }
    let policy: PolicyName = body
        .policy_name
        .as_deref()
        .unwrap_or(DEVICE_DEFAULT)
        .parse()
        .map_err(|error| ApiError::invalid(format!("policyName: {error}")))?;
    let terms = PasswordTerms {
        thing,
        policies: vec![policy],
        groups: body.group_name.into_iter().collect(),
        attributes: body.attributes,
        life: Duration::from_secs(body.valid_seconds.unwrap_or(DEFAULT_SECONDS)),
    };
    let password = rooms.fleet.make_enrolment_password(&terms, call.now)?;
    Answer::json(&Output {
        thing_name: terms.thing.to_string(),
        password: &password,
        expires_at: EpochSeconds(call.now + terms.life),
        https_host: &rooms.endpoints.https.host,
        https_port: rooms.endpoints.https.port,
    })
}
