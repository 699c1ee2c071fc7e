use fleet::Target;
use http::Method;
use policy::PolicyName;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListTargetsForPolicy",
    method: Method::POST,
    path: "/policy-targets/{policyName}",
    least: Role::Viewer,
    query: &["pageSize", "marker"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    targets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let asked = call.page(name.as_str())?;
    let page = rooms
        .fleet
        .targets_of(&name, asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let targets = page.items.iter().map(|target| match target {
        Target::Certificate(id) => arns.certificate(id),
        Target::Group(group) => arns.group(group),
    });
    Answer::json(&Output {
        targets: targets.collect(),
        next_marker: asked.token(page.next),
    })
}
