use defender::audit::{Audited, CHECKS, Outcome};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Runs audit checks over the whole registry and answers when they are done.
pub(super) const OPERATION: Operation = Operation {
    name: "RunAudit",
    method: Method::POST,
    path: "/muster/v1/audit",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// Names of checks; all of them where there is none.
    #[serde(default)]
    checks: Vec<String>,
}

#[derive(Serialize)]
struct Ran {
    name: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
struct Output {
    checks: Vec<Ran>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let unknown = |name: &&String| !CHECKS.iter().any(|check| check.name == **name);
    if let Some(name) = body.checks.iter().find(unknown) {
        return Err(ApiError::not_found(format!(
            "there is no audit check {name:?}: see `audit list`"
        )));
    }
    let audited = Audited {
        revocation: &rooms.revocation,
        now: call.now,
    };
    let wanted = CHECKS
        .iter()
        .filter(|check| body.checks.is_empty() || body.checks.iter().any(|one| one == check.name));
    let mut checks = Vec::new();
    for check in wanted {
        checks.push(Ran {
            name: check.name,
            outcome: check.run(&audited)?,
        });
    }
    Answer::json(&Output { checks })
}
