use http::Method;
use serde::Serialize;

use super::create_stream::StreamRef;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListStreams",
    method: Method::GET,
    path: "/streams",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &["isAscendingOrder"],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    streams: Vec<StreamRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let mut streams = rooms.ota.streams(asked.after.as_deref(), asked.limit + 1)?;
    let more = streams.len() > asked.limit;
    streams.truncate(asked.limit);
    let last = streams.last().map(|stream| stream.id.clone());
    let arns = call.arns(rooms);
    Answer::json(&Output {
        streams: streams
            .into_iter()
            .map(|stream| StreamRef::of(stream, arns))
            .collect(),
        next_token: asked.token(last.filter(|_| more)),
    })
}
