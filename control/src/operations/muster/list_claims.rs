use http::Method;
use serde::Serialize;

use super::claim::Shown;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListClaims",
    method: Method::GET,
    path: "/muster/v1/claims",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    claims: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let page = rooms.fleet.claims(asked.after.as_deref(), asked.limit)?;
    let mut claims = Vec::with_capacity(page.items.len());
    for claim in page.items {
        let (claim, used) = rooms.fleet.claim(&claim.id)?;
        claims.push(Shown::of(rooms, call, claim, used)?);
    }
    Answer::json(&Output {
        claims,
        next_token: asked.token(page.next),
    })
}
