use fleet::Origin;
use http::Method;
use serde::Serialize;

use super::list_certificates::mode;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeCertificate",
    method: Method::GET,
    path: "/certificates/{certificateId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificate_description: Description,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    certificate_arn: String,
    certificate_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_certificate_id: Option<String>,
    status: &'static str,
    certificate_pem: String,
    owned_by: String,
    creation_date: EpochSeconds,
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
    let id = certificate_id(&call.path::<String>("certificateId")?)?;
    let record = rooms.fleet.certificate(&id)?;
    Answer::json(&Output {
        certificate_description: Description {
            certificate_arn: call.arns(rooms).certificate(&id),
            certificate_id: id.to_string(),
            ca_certificate_id: match &record.origin {
                Origin::Authority(id) => Some(id.to_string()),
                Origin::Own | Origin::Alone => None,
            },
            status: record.status.as_str(),
            certificate_pem: record.pem,
            owned_by: rooms.account.clone(),
            creation_date: EpochSeconds(record.created),
            last_modified_date: EpochSeconds(record.modified),
            customer_version: record.version,
            validity: Validity {
                not_before: EpochSeconds(record.not_before),
                not_after: EpochSeconds(record.not_after),
            },
            certificate_mode: mode(&record.origin),
        },
    })
}
