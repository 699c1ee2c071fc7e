//! What a certificate that was made elsewhere is answered with when it is registered.

use fleet::{CertificateRecord, FleetError};
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::rooms::Rooms;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificate_arn: String,
    certificate_id: String,
}

pub(super) fn answer(
    rooms: &Rooms,
    call: &Call,
    registered: Result<CertificateRecord, FleetError>,
) -> Result<Answer, ApiError> {
    match registered {
        Ok(record) => Answer::json(&Output {
            certificate_arn: call.arns(rooms).certificate(&record.id),
            certificate_id: record.id.to_string(),
        }),
        Err(FleetError::AlreadyExists { kind, name, hint }) => {
            let arn = name.parse().map(|id| call.arns(rooms).certificate(&id));
            let id = name.clone();
            let error = ApiError::from(FleetError::AlreadyExists { kind, name, hint });
            Err(error.about(id, arn.unwrap_or_default()))
        }
        Err(error) => Err(error.into()),
    }
}
