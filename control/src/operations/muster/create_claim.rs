use std::time::Duration;

use fleet::provisioning::{ClaimLimits, NewClaim, TemplateName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::claim::Shown;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateClaim",
    method: Method::POST,
    path: "/muster/v1/claims",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    template_name: TemplateName,
    uses: Option<u32>,
    rate_per_minute: Option<u32>,
    #[serde(default)]
    sources: Vec<String>,
    lifetime_seconds: u64,
    certificate_signing_request: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    #[serde(flatten)]
    claim: Shown,
    /// The certificate and the issuing one.
    certificate_pem: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a str>,
    root_pem: String,
    mqtt_host: &'a str,
    mqtt_port: u16,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let new = NewClaim {
        template: &body.template_name,
        limits: ClaimLimits {
            uses: body.uses,
            rate_per_minute: body.rate_per_minute,
            sources: body.sources,
        },
        lifetime: Duration::from_secs(body.lifetime_seconds),
        csr: body
            .certificate_signing_request
            .as_deref()
            .map(str::as_bytes),
    };
    let (claim, issued, pair) = rooms.fleet.create_claim(&new, call.now)?;
    let private_key = pair.as_ref().map(ca::KeyPair::to_pem);
    Answer::json(&Output {
        claim: Shown::of(rooms, call, claim, 0)?,
        certificate_pem: &issued.chain_pem,
        private_key: private_key.as_deref().map(String::as_str),
        root_pem: rooms.authority.trust_pem(),
        mqtt_host: &rooms.endpoints.mqtt.host,
        mqtt_port: rooms.endpoints.mqtt.port,
    })
}
