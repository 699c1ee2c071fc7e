use http::{Method, StatusCode};
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Explains a denial from the log, by the policies as they were then.
pub(super) const OPERATION: Operation = Operation {
    name: "ShowDenial",
    method: Method::GET,
    path: "/muster/v1/denials/{denialId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    denial_id: String,
    at: EpochSeconds,
    thing_name: Option<String>,
    certificate_id: String,
    client_id: String,
    /// The explanation for people.
    text: String,
    #[serde(flatten)]
    explanation: serde_json::Value,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let denial_id: String = call.path("denialId")?;
    let denial = rooms.fleet.denial(&denial_id)?.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            format!("denial {denial_id:?} is not kept: only the newest are, by the ids that stand in the log"),
        )
    })?;
    let summary = denial.explanation.get("summary");
    Answer::json(&Output {
        denial_id,
        at: EpochSeconds(denial.at),
        thing_name: denial.thing.map(|thing| thing.to_string()),
        certificate_id: denial.certificate.to_string(),
        client_id: denial.client_id,
        text: summary
            .and_then(|text| text.as_str())
            .unwrap_or_default()
            .to_owned(),
        explanation: denial.explanation,
    })
}
