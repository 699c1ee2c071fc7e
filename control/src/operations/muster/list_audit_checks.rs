use defender::audit::CHECKS;
use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListAuditChecks",
    method: Method::GET,
    path: "/muster/v1/audit/checks",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
struct Item {
    name: &'static str,
    description: &'static str,
}

#[derive(Serialize)]
struct Output {
    checks: Vec<Item>,
}

fn run(_rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    let checks = CHECKS.iter().map(|check| Item {
        name: check.name,
        description: check.description,
    });
    Answer::json(&Output {
        checks: checks.collect(),
    })
}
