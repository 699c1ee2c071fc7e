use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::{OperatorName, Role};
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListOperators",
    method: Method::GET,
    path: "/muster/v1/operators",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: OperatorName,
    role: Role,
    certificate_id: String,
    created_at: EpochSeconds,
}

#[derive(Serialize)]
struct Output {
    /// All of them: there are a thousand at most.
    operators: Vec<Item>,
}

fn run(rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    let operators = rooms.operators.list();
    let operators = operators.iter().map(|operator| Item {
        name: operator.name.clone(),
        role: operator.role,
        certificate_id: operator.certificate.to_string(),
        created_at: EpochSeconds(operator.created),
    });
    Answer::json(&Output {
        operators: operators.collect(),
    })
}
