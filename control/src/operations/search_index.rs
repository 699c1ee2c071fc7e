use std::collections::BTreeMap;

use fleet::{Found, GroupName, ThingName, ThingTypeName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::ids::thing_id;
use super::index;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::page::PageRequest;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "SearchIndex",
    method: Method::POST,
    path: "/indices/search",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    index_name: Option<String>,
    query_string: String,
    next_token: Option<String>,
    max_results: Option<u32>,
    query_version: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    things: Vec<ThingDocument>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ThingDocument {
    thing_name: ThingName,
    thing_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_type_name: Option<ThingTypeName>,
    thing_group_names: Vec<GroupName>,
    attributes: BTreeMap<String, String>,
    connectivity: Connectivity,
}

#[derive(Serialize)]
struct Connectivity {
    connected: bool,
    /// Milliseconds, as AWS has them here.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    index::check(body.index_name.as_deref(), body.query_version.as_deref())?;
    let query = index::query(&body.query_string)?;
    let size = body.max_results.map(|size| size.to_string());
    let asked = PageRequest::read(
        format!("SearchIndex/{query}"),
        size.as_deref(),
        body.next_token.as_deref(),
    )?;
    let page = rooms
        .fleet
        .search(&query, asked.after.as_deref(), asked.limit)?;
    Answer::json(&Output {
        things: page.items.into_iter().map(document).collect(),
        next_token: asked.token(page.next),
    })
}

fn document(found: Found) -> ThingDocument {
    let since = found.connected_since.and_then(|since| {
        let since = since
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .ok()?;
        u64::try_from(since.as_millis()).ok()
    });
    ThingDocument {
        thing_id: thing_id(&found.thing),
        thing_name: found.thing.name,
        thing_type_name: found.thing.type_name,
        thing_group_names: found.groups.into_iter().collect(),
        attributes: found.thing.attributes,
        connectivity: Connectivity {
            connected: since.is_some(),
            timestamp: since,
        },
    }
}
