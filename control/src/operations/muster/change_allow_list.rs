use fleet::provisioning::TemplateName;
use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ChangeAllowList",
    method: Method::POST,
    path: "/muster/v1/templates/{templateName}/allow-list",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let template: TemplateName = call.path("templateName")?;
    let body: Body = call.body()?;
    rooms
        .fleet
        .change_allow_list(&template, &body.add, &body.remove)?;
    Answer::empty_object()
}
