use fleet::provisioning::{Hook, TemplateChange, TemplateName};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateTemplate",
    method: Method::PUT,
    path: "/muster/v1/templates/{templateName}",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// What AWS's update has no word for: a new body in place of the old one, a hook with the roots it is trusted by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    template_body: Option<String>,
    hook: Option<String>,
    hook_roots_pem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    default_version_id: u32,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    let body: Body = call.body()?;
    if body.hook.is_none() && body.hook_roots_pem.is_some() {
        return Err(ApiError::invalid(
            "hookRootsPem says how hook is trusted, and hook is missing",
        ));
    }
    if let Some(text) = &body.template_body {
        let fleet = &rooms.fleet;
        fleet.create_provisioning_template_version(&name, text, true, true, call.now)?;
    }
    if let Some(target) = &body.hook {
        let change = TemplateChange {
            hook: Some(Some(Hook::parse(target, body.hook_roots_pem)?)),
            ..TemplateChange::default()
        };
        rooms
            .fleet
            .update_provisioning_template(&name, &change, call.now)?;
    }
    Answer::json(&Output {
        default_version_id: rooms.fleet.provisioning_template(&name)?.default_version,
    })
}
