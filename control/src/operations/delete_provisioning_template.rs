use fleet::provisioning::TemplateName;
use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DeleteProvisioningTemplate",
    method: Method::DELETE,
    path: "/provisioning-templates/{templateName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    rooms.fleet.delete_provisioning_template(&name, call.now)?;
    Answer::empty_object()
}
