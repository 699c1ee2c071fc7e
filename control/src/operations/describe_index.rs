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
    name: "DescribeIndex",
    method: Method::GET,
    path: "/indices/{indexName}",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    index_name: &'static str,
    index_status: &'static str,
    schema: &'static str,
}

/// The registry itself is searched, so there is no moment at which the index lags behind it.
fn run(_: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: String = call.path("indexName")?;
    index::check(Some(&name), None)?;
    Answer::json(&Output {
        index_name: index::THINGS,
        index_status: "ACTIVE",
        schema: "REGISTRY_AND_CONNECTIVITY_STATUS",
    })
}
