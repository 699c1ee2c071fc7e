use fleet::LIST_LIMIT_ITEMS;
use http::Method;

use super::creation;
use super::list_certificates::{answer, made};
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
    query: &["pageSize", "marker", "isAscendingOrder"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("caCertificateId")?)?;
    if let Some((ascending, asked)) = creation::asked(call, &id.to_string())? {
        let pages = |after: Option<&str>| {
            (rooms.fleet).certificates_of_authority(&id, after, LIST_LIMIT_ITEMS)
        };
        let page = creation::page(ascending, &asked, pages, made)?;
        return answer(rooms, call, &asked, page);
    }
    let asked = call.page(&id.to_string())?;
    let page = rooms
        .fleet
        .certificates_of_authority(&id, asked.after.as_deref(), asked.limit)?;
    answer(rooms, call, &asked, page)
}
