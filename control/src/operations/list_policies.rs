use std::time::SystemTime;

use fleet::{LIST_LIMIT_ITEMS, PolicyRecord};
use http::Method;
use policy::PolicyName;
use serde::Serialize;

use super::creation;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListPolicies",
    method: Method::GET,
    path: "/policies",
    least: Role::Viewer,
    query: &["pageSize", "marker", "isAscendingOrder"],
    undone: &[],
    run: Run::Plain(run),
};

/// A list of policies, as AWS writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Policies {
    policies: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    policy_name: String,
    policy_arn: String,
}

impl Policies {
    pub(super) fn of(
        names: impl IntoIterator<Item = PolicyName>,
        next_marker: Option<String>,
        arns: Arns<'_>,
    ) -> Self {
        let policies = names.into_iter().map(|name| Item {
            policy_arn: arns.policy(&name),
            policy_name: name.to_string(),
        });
        Self {
            policies: policies.collect(),
            next_marker,
        }
    }
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    // Where an order is asked for, it is that of creation; else that of the names, in which they are kept.
    if let Some((ascending, asked)) = creation::asked(call, "")? {
        let pages = |after: Option<&str>| rooms.fleet.policies(after, LIST_LIMIT_ITEMS);
        let page = creation::page(ascending, &asked, pages, made)?;
        let names = page.items.into_iter().map(|record| record.name);
        return Answer::json(&Policies::of(
            names,
            asked.token(page.next),
            call.arns(rooms),
        ));
    }
    let asked = call.page("")?;
    let page = rooms.fleet.policies(asked.after.as_deref(), asked.limit)?;
    let names = page.items.into_iter().map(|record| record.name);
    let marker = asked.token(page.next);
    Answer::json(&Policies::of(names, marker, call.arns(rooms)))
}

/// When a policy was made, and what tells it from others.
pub(super) fn made(record: &PolicyRecord) -> (SystemTime, String) {
    (record.created, record.name.to_string())
}
