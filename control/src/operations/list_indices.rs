use http::Method;
use serde::Serialize;

use super::index;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListIndices",
    method: Method::GET,
    path: "/indices",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    index_names: [&'static str; 1],
}

fn run(_: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    call.page("")?;
    Answer::json(&Output {
        index_names: [index::THINGS],
    })
}
