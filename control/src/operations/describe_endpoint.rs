use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeEndpoint",
    method: Method::GET,
    path: "/endpoint",
    least: Role::Viewer,
    query: &["endpointType"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    endpoint_address: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let kind: Option<String> = call.query("endpointType")?;
    let endpoint = match kind.as_deref() {
        None | Some("iot:Data" | "iot:Data-ATS") => &rooms.endpoints.mqtt,
        Some("iot:Jobs") => &rooms.endpoints.https,
        Some(kind @ "iot:CredentialProvider") => {
            return Err(ApiError::unsupported(&format!("endpointType {kind}")));
        }
        Some(other) => {
            return Err(ApiError::invalid(format!(
                "endpointType {other:?}: iot:Data-ATS, iot:Data or iot:Jobs"
            )));
        }
    };
    Answer::json(&Output {
        endpoint_address: endpoint.to_string(),
    })
}
