use fleet::{FleetError, ThingTypeName};
use http::Method;
use serde::Serialize;

use super::thing_type::Shown;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThingTypes",
    method: Method::GET,
    path: "/thing-types",
    least: Role::Viewer,
    query: &["maxResults", "nextToken", "thingTypeName"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_types: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let arns = call.arns(rooms);
    if let Some(name) = call.query::<ThingTypeName>("thingTypeName")? {
        let found = match rooms.fleet.thing_type(&name) {
            Ok(made) => vec![Shown::of(made, arns)],
            Err(FleetError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        return Answer::json(&Output {
            thing_types: found,
            next_token: None,
        });
    }
    let asked = call.page("")?;
    let page = rooms
        .fleet
        .thing_types(asked.after.as_deref(), asked.limit)?;
    let shown = page.items.into_iter().map(|made| Shown::of(made, arns));
    Answer::json(&Output {
        thing_types: shown.collect(),
        next_token: asked.token(page.next),
    })
}
