use fleet::NamedNetwork;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListNetworks",
    method: Method::GET,
    path: "/muster/v1/networks",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    networks: Vec<NamedNetwork>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let page = rooms.fleet.networks(asked.after.as_deref(), asked.limit)?;
    Answer::json(&Output {
        networks: page.items,
        next_token: asked.token(page.next),
    })
}
