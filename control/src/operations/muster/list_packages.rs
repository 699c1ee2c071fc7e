use http::Method;
use ota::server::Firmware;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListFirmwarePackages",
    method: Method::GET,
    path: "/muster/v1/firmware/packages",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    packages: Vec<Firmware>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let mut packages = rooms
        .ota
        .firmwares(asked.after.as_deref(), asked.limit.saturating_add(1))?;
    let more = packages.len() > asked.limit;
    packages.truncate(asked.limit);
    let last = packages.last().filter(|_| more);
    let next = last.map(|firmware| format!("{}/{}", firmware.name, firmware.version));
    Answer::json(&Output {
        packages,
        next_token: asked.token(next),
    })
}
