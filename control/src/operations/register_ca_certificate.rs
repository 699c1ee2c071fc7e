use fleet::FleetError;
use fleet::Tagged;
use fleet::authorities::{AuthorityMode, NewAuthority};
use http::Method;
use ota::server::{Tag, read_tags};
use serde::{Deserialize, Serialize};

use super::registration_config::RegistrationConfig;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "RegisterCACertificate",
    method: Method::POST,
    path: "/cacertificate",
    least: Role::Admin,
    query: &["setAsActive", "allowAutoRegistration"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    ca_certificate: String,
    verification_certificate: Option<String>,
    registration_config: Option<RegistrationConfig>,
    certificate_mode: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificate_arn: String,
    certificate_id: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let mode = match body.certificate_mode.as_deref() {
        None | Some("DEFAULT") => AuthorityMode::Default,
        Some("SNI_ONLY") => AuthorityMode::SniOnly,
        Some(_) => {
            return Err(ApiError::invalid("certificateMode is DEFAULT or SNI_ONLY"));
        }
    };
    let new = NewAuthority {
        certificate: &body.ca_certificate,
        verification: body.verification_certificate.as_deref(),
        mode,
        active: call.flag("setAsActive")?,
        auto_registration: call.flag("allowAutoRegistration")?,
        registration: body.registration_config.and_then(RegistrationConfig::read),
    };
    let tags = read_tags(&body.tags)?;
    if let Ok(authority) = ca::ForeignAuthority::parse(&body.ca_certificate) {
        rooms
            .fleet
            .tag_new(&Tagged::Authority(authority.id), &tags)?;
    }
    match rooms.fleet.register_authority(&new, call.now) {
        Ok(record) => Answer::json(&Output {
            certificate_arn: call.arns(rooms).authority(&record.id),
            certificate_id: record.id.to_string(),
        }),
        Err(FleetError::AlreadyExists { kind, name, hint }) => {
            let arn = name.parse().map(|id| call.arns(rooms).authority(&id));
            let id = name.clone();
            let error = ApiError::from(FleetError::AlreadyExists { kind, name, hint });
            Err(error.about(id, arn.unwrap_or_default()))
        }
        Err(error) => Err(error.into()),
    }
}
