use fleet::authorities::{AuthorityChange, AuthorityStatus};
use http::Method;
use serde::Deserialize;

use super::registration_config::RegistrationConfig;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateCACertificate",
    method: Method::PUT,
    path: "/cacertificate/{caCertificateId}",
    least: Role::Admin,
    query: &["newStatus", "newAutoRegistrationStatus"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    registration_config: Option<RegistrationConfig>,
    #[serde(default)]
    remove_auto_registration: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("caCertificateId")?)?;
    let body: Body = call.body()?;
    let auto: Option<String> = call.query("newAutoRegistrationStatus")?;
    let auto = match auto.as_deref() {
        None => None,
        Some("ENABLE") => Some(true),
        Some("DISABLE") => Some(false),
        Some(_) => {
            return Err(ApiError::invalid(
                "newAutoRegistrationStatus is ENABLE or DISABLE",
            ));
        }
    };
    let given = body.registration_config.map(RegistrationConfig::read);
    let change = match (body.remove_auto_registration, given) {
        (true, Some(_)) => {
            return Err(ApiError::invalid(
                "registrationConfig and removeAutoRegistration: say one of them",
            ));
        }
        (true, None) => AuthorityChange {
            registration: Some(None),
            auto_registration: Some(auto.unwrap_or(false)),
            ..AuthorityChange::default()
        },
        (false, registration) => AuthorityChange {
            registration,
            auto_registration: auto,
            ..AuthorityChange::default()
        },
    };
    let status: Option<AuthorityStatus> = call.query("newStatus")?;
    rooms
        .fleet
        .update_authority(&id, &AuthorityChange { status, ..change }, call.now)?;
    Answer::nothing()
}
