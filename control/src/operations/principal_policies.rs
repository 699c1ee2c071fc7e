//! AWS's first operations on attachments, which it deprecates and its clients still have: AttachPrincipalPolicy,
//! DetachPrincipalPolicy, ListPrincipalPolicies, ListPolicyPrincipals. What they name in headers, the later ones name in
//! path and body; they do the same.

use fleet::{FleetError, LIST_LIMIT_ITEMS, Page, Target};
use http::Method;
use policy::PolicyName;
use serde::Serialize;

use super::creation;
use super::list_certificates::made as came;
use super::list_policies::{Policies, made};
use super::slice::page_of;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const ATTACH: Operation = Operation {
    name: "AttachPrincipalPolicy",
    method: Method::PUT,
    path: "/principal-policies/{policyName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(attach),
};

pub(super) const DETACH: Operation = Operation {
    name: "DetachPrincipalPolicy",
    method: Method::DELETE,
    path: "/principal-policies/{policyName}",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(detach),
};

pub(super) const LIST: Operation = Operation {
    name: "ListPrincipalPolicies",
    method: Method::GET,
    path: "/principal-policies",
    least: Role::Viewer,
    query: &["pageSize", "marker", "isAscendingOrder"],
    undone: &[],
    run: Run::Plain(list),
};

pub(super) const PRINCIPALS: Operation = Operation {
    name: "ListPolicyPrincipals",
    method: Method::GET,
    path: "/policy-principals",
    least: Role::Viewer,
    query: &["pageSize", "marker", "isAscendingOrder"],
    undone: &[],
    run: Run::Plain(principals),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    principals: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

fn principal(rooms: &Rooms, call: &Call) -> Result<Target, ApiError> {
    let arn = call.header("x-amzn-iot-principal")?;
    call.arns(rooms).read_target(arn)
}

fn attach(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let target = principal(rooms, call)?;
    rooms.fleet.attach_policy(&name, &target)?;
    Answer::nothing()
}

fn detach(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: PolicyName = call.path("policyName")?;
    let target = principal(rooms, call)?;
    rooms.fleet.detach_policy(&name, &target)?;
    Answer::nothing()
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let target = principal(rooms, call)?;
    match &target {
        Target::Certificate(id) => drop(rooms.fleet.certificate(id)?),
        Target::Group(name) => drop(rooms.fleet.group(name)?),
    }
    if let Some((ascending, asked)) = creation::asked(call, &target.to_string())? {
        let names = rooms.fleet.attached_policies(&target)?;
        let records: Result<Vec<_>, FleetError> =
            names.iter().map(|name| rooms.fleet.policy(name)).collect();
        let mut all = Some(records?);
        let pages = |_: Option<&str>| {
            Ok::<_, FleetError>(Page {
                items: all.take().unwrap_or_default(),
                next: None,
            })
        };
        let page = creation::page(ascending, &asked, pages, made)?;
        let names = page.items.into_iter().map(|record| record.name);
        let marker = asked.token(page.next);
        return Answer::json(&Policies::of(names, marker, call.arns(rooms)));
    }
    let asked = call.page(&target.to_string())?;
    let (names, next) = page_of(rooms.fleet.attached_policies(&target)?, &asked);
    Answer::json(&Policies::of(names, asked.token(next), call.arns(rooms)))
}

/// Principals are certificates: groups, which came later, are told by ListTargetsForPolicy.
fn principals(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name = call.header("x-amzn-iot-policy")?;
    let name: PolicyName = name
        .parse::<PolicyName>()
        .map_err(|error| ApiError::invalid(format!("header x-amzn-iot-policy: {error}")))?;
    let arns = call.arns(rooms);
    if let Some((ascending, asked)) = creation::asked(call, name.as_str())? {
        let pages = |after: Option<&str>| {
            let page = rooms.fleet.targets_of(&name, after, LIST_LIMIT_ITEMS)?;
            let mut items = Vec::with_capacity(page.items.len());
            for target in &page.items {
                if let Target::Certificate(id) = target {
                    items.push(rooms.fleet.certificate(id)?);
                }
            }
            Ok::<_, FleetError>(Page {
                items,
                next: page.next,
            })
        };
        let page = creation::page(ascending, &asked, pages, came)?;
        return Answer::json(&Output {
            principals: page
                .items
                .iter()
                .map(|one| arns.certificate(&one.id))
                .collect(),
            next_marker: asked.token(page.next),
        });
    }
    let asked = call.page(name.as_str())?;
    let (mut found, mut after) = (Vec::new(), asked.after.clone());
    loop {
        let wanted = asked.limit - found.len();
        let page = rooms.fleet.targets_of(&name, after.as_deref(), wanted)?;
        found.extend(page.items.iter().filter_map(|target| match target {
            Target::Certificate(id) => Some(arns.certificate(id)),
            Target::Group(_) => None,
        }));
        after = page.next;
        if after.is_none() || found.len() >= asked.limit {
            break;
        }
    }
    Answer::json(&Output {
        principals: found,
        next_marker: asked.token(after),
    })
}
