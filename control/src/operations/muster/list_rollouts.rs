use http::Method;
use ota::server::RolloutSummary;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListRollouts",
    method: Method::GET,
    path: "/muster/v1/rollouts",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    rollouts: Vec<RolloutSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let mut rollouts = rooms
        .ota
        .rollouts(asked.after.as_deref(), asked.limit.saturating_add(1))?;
    let more = rollouts.len() > asked.limit;
    rollouts.truncate(asked.limit);
    let next = rollouts
        .last()
        .filter(|_| more)
        .map(|one| one.id.to_string());
    Answer::json(&Output {
        rollouts,
        next_token: asked.token(next),
    })
}
