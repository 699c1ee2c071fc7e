use fleet::{Quarantine, ThingName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::words;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Sets a device apart, or takes it back in: policies ask for it by `muster:Quarantined`. Whoever sets it apart no longer
/// trusts what it proved before, so that an attestation of it ends.
pub(super) const OPERATION: Operation = Operation {
    name: "QuarantineDevice",
    method: Method::PUT,
    path: "/muster/v1/devices/{thingName}/quarantine",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    quarantined: bool,
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    quarantined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<EpochSeconds>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing_name: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    if let Some(reason) = &body.reason {
        words::check("reason", reason)?;
    }
    let health = rooms.fleet.set_health(&thing_name, |health| {
        if body.quarantined {
            health.attestation = None;
        }
        health.quarantine = body.quarantined.then(|| {
            // Said twice, it is still apart since the first time.
            health.quarantine.clone().unwrap_or_else(|| Quarantine {
                since: call.now,
                reason: body.reason.clone(),
            })
        });
    })?;
    Answer::json(&Output {
        thing_name,
        quarantined: health.quarantine.is_some(),
        since: health
            .quarantine
            .map(|quarantine| EpochSeconds(quarantine.since)),
    })
}
