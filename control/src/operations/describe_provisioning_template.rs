use fleet::provisioning::TemplateName;
use http::Method;
use serde::Serialize;

use super::provisioning_template::{HookBody, kind_name};

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeProvisioningTemplate",
    method: Method::GET,
    path: "/provisioning-templates/{templateName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    template_arn: String,
    template_name: TemplateName,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    creation_date: EpochSeconds,
    last_modified_date: EpochSeconds,
    default_version_id: u32,
    template_body: String,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    provisioning_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_provisioning_hook: Option<HookBody>,
    #[serde(rename = "type")]
    kind: &'static str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    let record = rooms.fleet.provisioning_template(&name)?;
    Answer::json(&Output {
        template_arn: call.arns(rooms).provisioning_template(&name),
        template_body: record.default()?.body.clone(),
        template_name: name,
        description: record.description,
        creation_date: EpochSeconds(record.created),
        last_modified_date: EpochSeconds(record.modified),
        default_version_id: record.default_version,
        enabled: record.enabled,
        provisioning_role_arn: record.role_arn,
        pre_provisioning_hook: record.hook.as_ref().map(HookBody::of),
        kind: kind_name(record.kind),
    })
}
