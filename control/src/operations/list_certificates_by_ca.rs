use http::Method;

use super::list_certificates::answer;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListCertificatesByCA",
    method: Method::GET,
    path: "/certificates-by-ca/{caCertificateId}",
    least: Role::Viewer,
    query: &["pageSize", "marker"],
    // The list is in order of id.
    undone: &["isAscendingOrder"],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("caCertificateId")?)?;
    let asked = call.page(&id.to_string())?;
    let page = rooms
        .fleet
        .certificates_of_authority(&id, asked.after.as_deref(), asked.limit)?;
    answer(rooms, call, &asked, page)
}
