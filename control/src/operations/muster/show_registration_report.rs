use ca::CertificateId;
use fleet::ThingName;
use fleet::provisioning::{TaskLine, TaskReport};
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowRegistrationReport",
    method: Method::GET,
    path: "/muster/v1/thing-registration-tasks/{taskId}/reports/{reportType}",
    least: Role::Viewer,
    query: &["nextToken", "maxResults"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    lines: Vec<Line>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Line {
    Device {
        line_number: u64,
        thing_name: ThingName,
        certificate_id: CertificateId,
        /// Without its chain; `None` where it was deleted meanwhile.
        certificate_pem: Option<String>,
    },
    Error {
        line_number: u64,
        status_code: u16,
        error_code: String,
        error_message: String,
    },
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("taskId")?;
    let report: TaskReport = call.path("reportType")?;
    let asked = call.page(&format!("{id}/{}", report.as_str()))?;
    let page = rooms
        .registration
        .report(&id, report, asked.after.as_deref(), asked.limit)?;
    let shown = page.items.into_iter().map(|line| match line {
        TaskLine::Device {
            line,
            thing,
            certificate,
        } => Line::Device {
            line_number: line,
            thing_name: thing,
            certificate_pem: rooms
                .fleet
                .certificate(&certificate)
                .ok()
                .map(|record| record.pem),
            certificate_id: certificate,
        },
        TaskLine::Error {
            line,
            status,
            code,
            message,
        } => Line::Error {
            line_number: line,
            status_code: status,
            error_code: code,
            error_message: message,
        },
    });
    Answer::json(&Output {
        lines: shown.collect(),
        next_token: asked.token(page.next),
    })
}
