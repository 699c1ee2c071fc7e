use fleet::provisioning::TemplateName;
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeProvisioningTemplateVersion",
    method: Method::GET,
    path: "/provisioning-templates/{templateName}/versions/{versionId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    version_id: u32,
    creation_date: EpochSeconds,
    template_body: &'a str,
    is_default_version: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: TemplateName = call.path("templateName")?;
    let record = rooms.fleet.provisioning_template(&name)?;
    let version = record.version(call.path("versionId")?)?;
    Answer::json(&Output {
        version_id: version.number,
        creation_date: EpochSeconds(version.created),
        template_body: &version.body,
        is_default_version: version.number == record.default_version,
    })
}
