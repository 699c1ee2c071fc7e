use http::Method;
use ota::server::StreamFile;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeStream",
    method: Method::GET,
    path: "/streams/{streamId}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    stream_info: Info,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    stream_id: String,
    stream_arn: String,
    stream_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    files: Vec<StreamFile>,
    created_at: u64,
    last_updated_at: u64,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("streamId")?;
    let stream = rooms.ota.stream(&id)?;
    Answer::json(&Output {
        stream_info: Info {
            stream_arn: call.arns(rooms).stream(&stream.id),
            stream_id: stream.id,
            stream_version: stream.version,
            description: stream.description,
            files: stream.files,
            created_at: stream.created_at,
            last_updated_at: stream.last_updated_at,
        },
    })
}
