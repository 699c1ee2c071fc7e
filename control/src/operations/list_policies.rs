use std::time::SystemTime;

use fleet::{LIST_LIMIT_ITEMS, PolicyRecord};
use http::Method;
use policy::PolicyName;
use serde::Serialize;

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
    if let Some(ascending) = call.query::<bool>("isAscendingOrder")? {
        return by_creation(rooms, call, ascending);
    }
    let asked = call.page("")?;
    let page = rooms.fleet.policies(asked.after.as_deref(), asked.limit)?;
    let names = page.items.into_iter().map(|record| record.name);
    let marker = asked.token(page.next);
    Answer::json(&Policies::of(names, marker, call.arns(rooms)))
}

/// Where an order is asked for, it is that of creation; else that of the names, in which they are kept.
fn by_creation(rooms: &Rooms, call: &Call, ascending: bool) -> Result<Answer, ApiError> {
    let asked = call.page(if ascending { "oldest" } else { "newest" })?;
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = rooms.fleet.policies(after.as_deref(), LIST_LIMIT_ITEMS)?;
        let made = |record: &PolicyRecord| {
            let since = record.created.duration_since(SystemTime::UNIX_EPOCH);
            let nanos = since.map_or(0, |since| since.as_nanos());
            format!("{nanos:032}/{}", record.name)
        };
        all.extend(page.items.into_iter().map(|r| (made(&r), r.name)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    all.sort();
    if !ascending {
        all.reverse();
    }
    let is_behind = |place: &str| match asked.after.as_deref() {
        None => true,
        Some(after) if ascending => place > after,
        Some(after) => place < after,
    };
    let mut rest = all.into_iter().filter(|(place, _)| is_behind(place));
    let page: Vec<_> = rest.by_ref().take(asked.limit).collect();
    let next = rest.next().and(page.last().map(|(place, _)| place.clone()));
    let names = page.into_iter().map(|(_, name)| name);
    Answer::json(&Policies::of(names, asked.token(next), call.arns(rooms)))
}
