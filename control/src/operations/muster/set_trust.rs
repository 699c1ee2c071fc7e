use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Takes a trust root, or the release team's targets document. The first root is believed because an
/// admin brings it; each later one because the root before signed it; a targets document because the
/// root's release keys did.
pub(super) const OPERATION: Operation = Operation {
    name: "TrustFirmwareRoot",
    method: Method::PUT,
    path: "/muster/v1/firmware/trust",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// Takes the targets document of a delegate.
pub(super) const DELEGATED: Operation = Operation {
    name: "TrustFirmwareDelegate",
    method: Method::PUT,
    path: "/muster/v1/firmware/trust/{role}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run_delegated),
};

#[derive(Serialize)]
struct Output {
    role: String,
    version: u64,
}

/// What says which of the two kinds of document it is, before anything of it is believed.
#[derive(Deserialize)]
struct Kind {
    signed: KindSigned,
}

#[derive(Deserialize)]
struct KindSigned {
    #[serde(rename = "_type")]
    kind: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let targets = serde_json::from_slice::<Kind>(&call.body)
        .is_ok_and(|document| document.signed.kind == "targets");
    if targets {
        let targets = rooms.ota.trust_targets(&call.body, call.now)?;
        return Answer::json(&Output {
            role: targets.role().to_owned(),
            version: targets.version(),
        });
    }
    if rooms.ota.newest_root()?.is_none() {
        call.caller
            .require(Role::Admin, "bringing the first trust root")?;
    }
    let root = rooms.ota.trust(&call.body, call.now)?;
    Answer::json(&Output {
        role: "root".to_owned(),
        version: root.version(),
    })
}

fn run_delegated(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let role = call.path("role")?;
    let targets = rooms.ota.trust_delegated(&role, &call.body, call.now)?;
    Answer::json(&Output {
        role: targets.role().to_owned(),
        version: targets.version(),
    })
}
