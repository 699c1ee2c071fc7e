use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteCertificate",
    method: Method::DELETE,
    path: "/certificates/{certificateId}",
    least: Role::Operator,
    query: &["forceDelete"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id = certificate_id(&call.path::<String>("certificateId")?)?;
    rooms
        .fleet
        .delete_certificate(&id, call.flag("forceDelete")?, call.now)?;
    Answer::nothing()
}
