//! AWS's first operations on attachments, which it deprecates and its clients still have: AttachPrincipalPolicy,
//! DetachPrincipalPolicy, ListPrincipalPolicies, ListPolicyPrincipals. What they name in headers, the later ones name in
//! path and body; they do the same.

use fleet::Target;
use http::Method;
use policy::PolicyName;
use serde::Serialize;

use super::list_policies::Policies;
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
    query: &["pageSize", "marker"],
    // The list is in order of name.
    undone: &["isAscendingOrder"],
    run: Run::Plain(list),
};

pub(super) const PRINCIPALS: Operation = Operation {
    name: "ListPolicyPrincipals",
    method: Method::GET,
    path: "/policy-principals",
    least: Role::Viewer,
    query: &["pageSize", "marker"],
    undone: &["isAscendingOrder"],
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
    let asked = call.page(&target.to_string())?;
    match &target {
        Target::Certificate(id) => drop(rooms.fleet.certificate(id)?),
        Target::Group(name) => drop(rooms.fleet.group(name)?),
    }
    let (names, next) = page_of(rooms.fleet.attached_policies(&target)?, &asked);
    Answer::json(&Policies::of(names, asked.token(next), call.arns(rooms)))
}

/// Principals are certificates: groups, which came later, are told by ListTargetsForPolicy.
fn principals(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name = call.header("x-amzn-iot-policy")?;
    let name: PolicyName = name
        .parse::<PolicyName>()
        .map_err(|error| ApiError::invalid(format!("header x-amzn-iot-policy: {error}")))?;
    let asked = call.page(name.as_str())?;
    let arns = call.arns(rooms);
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
