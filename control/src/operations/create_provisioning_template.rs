use fleet::FleetError;
use fleet::Tagged;
use fleet::provisioning::{TemplateChange, TemplateName};
use http::Method;
use ota::server::{Tag, read_tags};
use serde::{Deserialize, Serialize};

use super::provisioning_template::{HookBody, read_kind};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateProvisioningTemplate",
    method: Method::POST,
    path: "/provisioning-templates",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    template_name: TemplateName,
    template_body: String,
    description: Option<String>,
    enabled: Option<bool>,
    provisioning_role_arn: Option<String>,
    pre_provisioning_hook: Option<HookBody>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    template_arn: String,
    template_name: TemplateName,
    default_version_id: u32,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let name = body.template_name;
    let hook = body.pre_provisioning_hook.map(HookBody::read).transpose()?;
    let change = TemplateChange {
        description: body.description,
        enabled: body.enabled,
        hook: Some(hook),
        role_arn: body.provisioning_role_arn,
        default_version: None,
    };
    let kind = read_kind(body.kind.as_deref())?;
    let arn = call.arns(rooms).provisioning_template(&name);
    let tags = read_tags(&body.tags)?;
    rooms
        .fleet
        .tag_new(&Tagged::Template(name.clone()), &tags)?;
    let made = rooms.fleet.create_provisioning_template(
        &name,
        kind,
        &body.template_body,
        &change,
        call.now,
    );
    match made {
        Ok(record) => Answer::json(&Output {
            template_arn: arn,
            template_name: name,
            default_version_id: record.default_version,
        }),
        Err(error @ FleetError::AlreadyExists { .. }) => {
            Err(ApiError::from(error).about(name.as_str(), arn))
        }
        Err(error) => Err(error.into()),
    }
}
