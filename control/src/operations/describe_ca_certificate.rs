use http::Method;
use serde::Serialize;

use super::registration_config::RegistrationConfig;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeCACertificate",
    method: Method::GET,
    path: "/cacertificate/{caCertificateId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificate_description: Description,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_config: Option<RegistrationConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    certificate_arn: String,
    certificate_id: String,
    status: &'static str,
    certificate_pem: String,
    owned_by: String,
    creation_date: EpochSeconds,
    auto_registration_status: &'static str,
    last_modified_date: EpochSeconds,
    customer_version: u64,
    validity: Validity,
    certificate_mode: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Validity {
    not_before: EpochSeconds,
    not_after: EpochSeconds,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("caCertificateId")?)?;
    let record = rooms.fleet.registered_authority(&id)?;
    Answer::json(&Output {
        certificate_description: Description {
            certificate_arn: call.arns(rooms).authority(&id),
            certificate_id: id.to_string(),
            status: record.status.as_str(),
            certificate_pem: record.pem,
            owned_by: rooms.account.clone(),
            creation_date: EpochSeconds(record.created),
            auto_registration_status: match record.auto_registration {
                true => "ENABLE",
                false => "DISABLE",
            },
            last_modified_date: EpochSeconds(record.modified),
            customer_version: record.version,
            validity: Validity {
                not_before: EpochSeconds(record.not_before),
                not_after: EpochSeconds(record.not_after),
            },
            certificate_mode: record.mode.as_str(),
        },
        registration_config: record.registration.map(RegistrationConfig::of),
    })
}
