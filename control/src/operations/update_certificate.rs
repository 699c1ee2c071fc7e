use ca::RevocationReason;
use fleet::CertificateStatus;
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateCertificate",
    method: Method::PUT,
    path: "/certificates/{certificateId}",
    least: Role::Operator,
    query: &["newStatus"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("certificateId")?)?;
    let status: CertificateStatus = call
        .query("newStatus")?
        .ok_or_else(|| ApiError::invalid("newStatus is missing"))?;
    rooms
        .fleet
        .set_certificate_status(&id, status, RevocationReason::Unspecified, call.now)?;
    Answer::nothing()
}
