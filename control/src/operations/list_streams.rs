use std::time::{Duration, SystemTime};

use fleet::{LIST_LIMIT_ITEMS, Page};
use http::Method;
use ota::server::Stream;
use serde::Serialize;

use super::create_stream::StreamRef;
use super::creation;
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
    query: &["maxResults", "nextToken", "isAscendingOrder"],
    undone: &[],
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
    if let Some((ascending, asked)) = creation::asked(call, "")? {
        let pages = |after: Option<&str>| streams(rooms, after);
        let made = |stream: &Stream| {
            let since = Duration::from_secs(stream.created_at);
            (SystemTime::UNIX_EPOCH + since, stream.id.clone())
        };
        let page = creation::page(ascending, &asked, pages, made)?;
        let arns = call.arns(rooms);
        let streams = page.items.into_iter();
        return Answer::json(&Output {
            streams: streams.map(|stream| StreamRef::of(stream, arns)).collect(),
            next_token: asked.token(page.next),
        });
    }
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

/// One page of streams, in order of id.
fn streams(rooms: &Rooms, after: Option<&str>) -> Result<Page<Stream>, ApiError> {
    let mut items = rooms.ota.streams(after, LIST_LIMIT_ITEMS + 1)?;
    let more = items.len() > LIST_LIMIT_ITEMS;
    items.truncate(LIST_LIMIT_ITEMS);
    let last = items.last().map(|stream| stream.id.clone());
    Ok(Page {
        items,
        next: last.filter(|_| more),
    })
}
