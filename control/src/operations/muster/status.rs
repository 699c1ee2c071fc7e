use broker::{FullQueue, Stats};
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowStatus",
    method: Method::GET,
    path: "/muster/v1/status",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

/// How many sessions with full queues are named.
const FULL_QUEUES: usize = 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    version: &'static str,
    account: &'a str,
    region: &'a str,
    started_at: EpochSeconds,
    mqtt: String,
    wss: String,
    https: String,
    broker: Stats,
    full_queues: Vec<FullQueue>,
}

fn run(rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    // A server that cannot keep a change (a revocation, say) is not well, whatever its sockets do.
    rooms.fleet.writable()?;
    Answer::json(&Output {
        version: env!("CARGO_PKG_VERSION"),
        account: &rooms.account,
        region: &rooms.region,
        started_at: EpochSeconds(rooms.started),
        mqtt: rooms.endpoints.mqtt.to_string(),
        wss: rooms.endpoints.wss.to_string(),
        https: rooms.endpoints.https.to_string(),
        broker: rooms.broker.stats(),
        full_queues: rooms.broker.full_queues(FULL_QUEUES),
    })
}
