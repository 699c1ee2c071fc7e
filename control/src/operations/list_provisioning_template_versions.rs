use fleet::provisioning::TemplateName;
use http::Method;
use serde::Serialize;

use super::slice::page_of;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListProvisioningTemplateVersions",
    method: Method::GET,
    path: "/provisioning-templates/{templateName}/versions",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    version_id: u32,
    creation_date: EpochSeconds,
    is_default_version: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    versions: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    let asked = call.page(name.as_str())?;
    let record = rooms.fleet.provisioning_template(&name)?;
    // In order of their text, as tokens compare; there are five at most, whose numbers may grow long.
    let numbers = record
        .versions
        .iter()
        .map(|version| format!("{:010}", version.number));
    let (page, next) = page_of(numbers.collect(), &asked);
    let versions = record
        .versions
        .iter()
        .filter(|version| page.contains(&format!("{:010}", version.number)));
    Answer::json(&Output {
        versions: versions
            .map(|version| Item {
                version_id: version.number,
                creation_date: EpochSeconds(version.created),
                is_default_version: version.number == record.default_version,
            })
            .collect(),
        next_token: asked.token(next),
    })
}
