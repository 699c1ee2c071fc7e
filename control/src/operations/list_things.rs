use std::collections::BTreeMap;

use fleet::{ThingFilter, ThingName, ThingTypeName};
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
    query: &[
        "maxResults",
        "nextToken",
        "attributeName",
        "attributeValue",
        "thingTypeName",
        "usePrefixAttributeValue",
    ],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    thing_name: ThingName,
    thing_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_type_name: Option<ThingTypeName>,
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
    let name: Option<String> = call.query("attributeName")?;
    let value: Option<String> = call.query("attributeValue")?;
    let filter = ThingFilter {
        type_name: call.query("thingTypeName")?,
        attribute: match (name, value) {
            (Some(name), value) => Some((name, value)),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(ApiError::invalid("attributeValue goes with attributeName"));
            }
        },
        value_is_prefix: call.flag("usePrefixAttributeValue")?,
    };
    // A token leads on in the list of the same question only.
    let asked = call.page(&format!("{filter:?}"))?;
    let page = rooms
        .fleet
        .things_where(&filter, asked.after.as_deref(), asked.limit)?;
    let arns = call.arns(rooms);
    let things = page.items.into_iter().map(|thing| Item {
        thing_arn: arns.thing(&thing.name),
        thing_name: thing.name,
        thing_type_name: thing.type_name,
        attributes: thing.attributes,
        version: thing.version,
    });
    Answer::json(&Output {
        things: things.collect(),
        next_token: asked.token(page.next),
    })
}
