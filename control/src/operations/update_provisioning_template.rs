use fleet::provisioning::{TemplateChange, TemplateName};
use http::Method;
use serde::Deserialize;

use super::provisioning_template::HookBody;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateProvisioningTemplate",
    method: Method::PATCH,
    path: "/provisioning-templates/{templateName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    description: Option<String>,
    enabled: Option<bool>,
    default_version_id: Option<u32>,
    provisioning_role_arn: Option<String>,
    pre_provisioning_hook: Option<HookBody>,
    #[serde(default)]
    remove_pre_provisioning_hook: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    let body: Body = call.body()?;
    let hook = body.pre_provisioning_hook.map(HookBody::read).transpose()?;
    let hook = match (hook, body.remove_pre_provisioning_hook) {
        (Some(_), true) => {
            return Err(ApiError::invalid(
                "preProvisioningHook and removePreProvisioningHook exclude each other",
            ));
        }
        (None, true) => Some(None),
        (Some(hook), false) => Some(Some(hook)),
        (None, false) => None,
    };
    let change = TemplateChange {
        description: body.description,
        enabled: body.enabled,
        default_version: body.default_version_id,
        hook,
        role_arn: body.provisioning_role_arn,
    };
    rooms
        .fleet
        .update_provisioning_template(&name, &change, call.now)?;
    Answer::empty_object()
}
