use http::Method;
use ota::server::{Stream, StreamBody};
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateStream",
    method: Method::POST,
    path: "/streams/{streamId}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &["tags"],
    run: Run::WithBody(run),
};

/// A stream in short: what making and changing it answer, and a line of the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamRef {
    stream_id: String,
    stream_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    stream_version: u64,
}

impl StreamRef {
    pub(super) fn of(stream: Stream, arns: Arns<'_>) -> Self {
        Self {
            stream_arn: arns.stream(&stream.id),
            stream_id: stream.id,
            description: stream.description,
            stream_version: stream.version,
        }
    }
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("streamId")?;
    let body: StreamBody = call.body()?;
    let stream = rooms.ota.create_stream(&id, body, call.now)?;
    Answer::json(&StreamRef::of(stream, call.arns(rooms)))
}
