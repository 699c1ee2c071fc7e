use fleet::provisioning::TemplateName;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListAllowList",
    method: Method::GET,
    path: "/muster/v1/templates/{templateName}/allow-list",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    values: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let template: TemplateName = call.path("templateName")?;
    let asked = call.page(template.as_str())?;
    let page = rooms
        .fleet
        .allow_list(&template, asked.after.as_deref(), asked.limit)?;
    Answer::json(&Output {
        values: page.items,
        next_token: asked.token(page.next),
    })
}
