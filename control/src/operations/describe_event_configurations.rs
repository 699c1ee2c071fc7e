use std::collections::BTreeMap;

use fleet::events::EventType;
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "DescribeEventConfigurations",
    method: Method::GET,
    path: "/event-configurations",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    event_configurations: BTreeMap<&'static str, Configuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_date: Option<EpochSeconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified_date: Option<EpochSeconds>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    enabled: bool,
}

fn run(rooms: &Rooms, _: &Call) -> Result<Answer, ApiError> {
    let known = rooms.fleet.event_configurations()?;
    let all = EventType::ALL.into_iter().map(|kind| {
        let enabled = known.is_on(kind);
        (kind.as_str(), Configuration { enabled })
    });
    Answer::json(&Output {
        event_configurations: all.collect(),
        creation_date: known.created.map(EpochSeconds),
        last_modified_date: known.modified.map(EpochSeconds),
    })
}
