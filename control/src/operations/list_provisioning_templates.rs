use fleet::provisioning::TemplateName;
use http::Method;
use serde::Serialize;

use super::provisioning_template::kind_name;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListProvisioningTemplates",
    method: Method::GET,
    path: "/provisioning-templates",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    template_arn: String,
    template_name: TemplateName,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    creation_date: EpochSeconds,
    last_modified_date: EpochSeconds,
    enabled: bool,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    templates: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let page = rooms
        .fleet
        .provisioning_templates(asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let templates = page.items.into_iter().map(|record| Item {
        template_arn: arns.provisioning_template(&record.name),
        template_name: record.name,
        description: record.description,
        creation_date: EpochSeconds(record.created),
        last_modified_date: EpochSeconds(record.modified),
        enabled: record.enabled,
        kind: kind_name(record.kind),
    });
    Answer::json(&Output {
        templates: templates.collect(),
        next_token: asked.token(page.next),
    })
}
