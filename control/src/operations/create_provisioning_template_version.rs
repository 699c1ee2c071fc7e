use fleet::FleetError;
use fleet::provisioning::TemplateName;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateProvisioningTemplateVersion",
    method: Method::POST,
    path: "/provisioning-templates/{templateName}/versions",
    least: Role::Admin,
    query: &["setAsDefault"],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    template_body: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    template_arn: String,
    template_name: TemplateName,
    version_id: u32,
    is_default_version: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    let set_default = call.flag("setAsDefault")?;
    let body: Body = call.body()?;
    let made = rooms.fleet.create_provisioning_template_version(
        &name,
        &body.template_body,
        set_default,
        false,
        call.now,
    );
    let (version_id, is_default_version) = match made {
        Err(error @ FleetError::Limit { .. }) => {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "VersionsLimitExceededException",
                error.to_string(),
            ));
        }
        made => made?,
    };
    Answer::json(&Output {
        template_arn: call.arns(rooms).provisioning_template(&name),
        template_name: name,
        version_id,
        is_default_version,
    })
}
