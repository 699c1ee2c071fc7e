use fleet::provisioning::TaskReport;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingRegistrationTaskReports",
    method: Method::GET,
    path: "/thing-registration-tasks/{taskId}/reports",
    least: Role::Viewer,
    query: &["reportType", "nextToken", "maxResults"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    resource_links: Vec<String>,
    report_type: &'static str,
}

/// Where AWS links to a file in a bucket, the link is to this server's own API.
fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("taskId")?;
    let report: TaskReport = call
        .query("reportType")?
        .ok_or_else(|| ApiError::invalid("reportType is missing"))?;
    call.page(&id)?;
    let some = rooms.registration.report(&id, report, None, 1)?;
    let name = report.as_str();
    let link = format!(
        "https://{}/muster/v1/thing-registration-tasks/{id}/reports/{name}",
        rooms.endpoints.https
    );
    Answer::json(&Output {
        resource_links: some.items.iter().map(|_| link.clone()).collect(),
        report_type: name,
    })
}
