use std::collections::BTreeMap;

use fleet::ThingName;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListThings",
    method: Method::GET,
    path: "/things",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[
        "attributeName",
        "attributeValue",
        "thingTypeName",
        "usePrefixAttributeValue",
    ],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    thing_name: ThingName,
    thing_arn: String,
    attributes: BTreeMap<String, String>,
    version: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    things: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let page = rooms.fleet.things(asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let things = page.items.into_iter().map(|thing| Item {
        thing_arn: arns.thing(&thing.name),
        thing_name: thing.name,
        attributes: thing.attributes,
        version: thing.version,
    });
    Answer::json(&Output {
        things: things.collect(),
        next_token: asked.token(page.next),
    })
}
