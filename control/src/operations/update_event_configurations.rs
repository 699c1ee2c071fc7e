use std::collections::BTreeMap;

use fleet::events::EventType;
use http::Method;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "UpdateEventConfigurations",
    method: Method::PATCH,
    path: "/event-configurations",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    event_configurations: BTreeMap<EventType, Configuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Configuration {
    #[serde(default)]
    enabled: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let change = body.event_configurations.into_iter();
    let change = change.map(|(kind, configuration)| (kind, configuration.enabled));
    rooms
        .fleet
        .update_event_configurations(&change.collect(), call.now)?;
    Answer::empty_object()
}
