use http::Method;
use policy::PolicyName;
use std::collections::BTreeSet;

use fleet::{Target, ThingName};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "GetEffectivePolicies",
    method: Method::POST,
    path: "/effective-policies",
    least: Role::Viewer,
    query: &["thingName"],
    undone: &["cognitoIdentityPoolId"],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    principal: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    effective_policies: Vec<Effective>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Effective {
    policy_name: String,
    policy_arn: String,
    policy_document: String,
}

/// What counts for a principal, for a thing's groups, or for both, each policy once.
fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let arns = call.arns(rooms);
    let principal = call.body::<Body>()?.principal;
    let thing: Option<ThingName> = call.query("thingName")?;
    if principal.is_none() && thing.is_none() {
        let text =
            "name a principal (the ARN of a certificate or thing group), a thingName or both";
        return Err(ApiError::invalid(text));
    }
    let mut names = BTreeSet::new();
    if let Some(principal) = principal {
        names.extend(policies_of(rooms, &arns.read_target(&principal)?)?);
    }
    if let Some(thing) = thing {
        rooms.fleet.thing(&thing)?;
        names.extend(group_policies(rooms, &thing)?);
    }
    let mut effective_policies = Vec::new();
    for name in names {
        let record = rooms.fleet.policy(&name)?;
        let Some(version) = record.default() else {
            continue;
        };
        effective_policies.push(Effective {
            policy_arn: arns.policy(&name),
            policy_name: name.to_string(),
            policy_document: version.document.clone(),
        });
    }
    Answer::json(&Output { effective_policies })
}

/// The policies of a target; of a certificate with those of its thing's groups.
pub(super) fn policies_of(rooms: &Rooms, target: &Target) -> Result<Vec<PolicyName>, ApiError> {
    Ok(match target {
        Target::Certificate(id) => {
            rooms.fleet.certificate(id)?;
            let mut names = rooms.fleet.attached_policies(target)?;
            if let Some(thing) = rooms.fleet.thing_of(id)? {
                names.extend(group_policies(rooms, &thing)?);
            }
            names
        }
        Target::Group(group) => {
            rooms.fleet.group(group)?;
            rooms.fleet.attached_policies(target)?
        }
    })
}

/// As [`policies_of`], of a group with those of the groups above it; each once, in order.
pub(super) fn all_policies_of(rooms: &Rooms, target: &Target) -> Result<Vec<PolicyName>, ApiError> {
    let mut names: BTreeSet<PolicyName> = policies_of(rooms, target)?.into_iter().collect();
    if let Target::Group(group) = target {
        for above in rooms.fleet.groups_above(group)? {
            names.extend(rooms.fleet.attached_policies(&Target::Group(above))?);
        }
    }
    Ok(names.into_iter().collect())
}

/// What is attached to a thing's groups and those above them.
fn group_policies(rooms: &Rooms, thing: &ThingName) -> Result<Vec<PolicyName>, ApiError> {
    let mut names = Vec::new();
    for group in rooms.fleet.groups_of(thing)? {
        let above = rooms.fleet.groups_above(&group)?;
        for group in above.into_iter().chain([group]) {
            names.extend(rooms.fleet.attached_policies(&Target::Group(group))?);
        }
    }
    Ok(names)
}
