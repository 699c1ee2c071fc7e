use fleet::provisioning::{ClaimLimits, NewClaim, TRUSTED_USER_CLAIM_LIFETIME, TemplateName};
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateProvisioningClaim",
    method: Method::POST,
    path: "/provisioning-templates/{templateName}/provisioning-claim",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    certificate_id: String,
    certificate_pem: &'a str,
    key_pair: Keys<'a>,
    expiration: EpochSeconds,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Keys<'a> {
    public_key: String,
    private_key: &'a str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let template: TemplateName = call.path("templateName")?;
    let new = NewClaim {
        template: &template,
        limits: ClaimLimits {
            uses: None,
            rate_per_minute: None,
            sources: Vec::new(),
        },
        lifetime: TRUSTED_USER_CLAIM_LIFETIME,
        csr: None,
    };
    let (claim, issued, pair) = rooms.fleet.create_claim(&new, call.now)?;
    let pair = pair.ok_or_else(|| ApiError::internal(&"a claim without a key"))?;
    Answer::json(&Output {
        certificate_id: claim.id.to_string(),
        certificate_pem: &issued.pem,
        key_pair: Keys {
            public_key: pem::encode_config(
                &pem::Pem::new("PUBLIC KEY", pair.public().der()),
                pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
            ),
            private_key: &pair.to_pem(),
        },
        expiration: EpochSeconds(claim.expires),
    })
}
