use http::Method;
use policy::PolicyName;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::get_effective_policies::policies_of;
use fleet::Target;
use policy::{Action, Context, Decision, Effect, Explanation, Grant, Limits, NamedPolicy, Policy};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "TestAuthorization",
    method: Method::POST,
    path: "/test-authorization",
    least: Role::Viewer,
    query: &["clientId"],
    undone: &["cognitoIdentityPoolId"],
    run: Run::WithBody(run),
};

/// Most questions in one request, and most resources in one question.
const MAX_ITEMS: usize = 10;
/// Most resources of one request, of all authInfos together; AWS names no bound.
const MAX_RESOURCES: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    principal: Option<String>,
    auth_infos: Vec<AuthInfo>,
    #[serde(default)]
    policy_names_to_add: Vec<PolicyName>,
    #[serde(default)]
    policy_names_to_skip: Vec<PolicyName>,
}

#[derive(Deserialize, Serialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AuthInfo {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action_type: Option<String>,
    resources: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    auth_results: Vec<AuthResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthResult {
    auth_info: AuthInfo,
    allowed: Policies,
    denied: Denied,
    auth_decision: &'static str,
    missing_context_values: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Denied {
    implicit_deny: Policies,
    explicit_deny: Policies,
}

#[derive(Serialize)]
struct Policies {
    policies: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    policy_name: String,
    policy_arn: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let arns = call.arns(rooms);
    if !(1..=MAX_ITEMS).contains(&body.auth_infos.len()) {
        return Err(ApiError::invalid(format!("authInfos: 1 to {MAX_ITEMS}")));
    }
    let resources = || body.auth_infos.iter().map(|info| info.resources.len());
    if resources().any(|count| count == 0) || resources().sum::<usize>() > MAX_RESOURCES {
        return Err(ApiError::invalid(format!(
            "resources: at least one in each of authInfos, and {MAX_RESOURCES} in all at most"
        )));
    }
    let principal = body.principal.as_deref();
    let target = principal.map(|arn| arns.read_target(arn)).transpose()?;
    let mut names = match &target {
        Some(target) => policies_of(rooms, target)?,
        None => Vec::new(),
    };
    names.extend(body.policy_names_to_add);
    names.retain(|name| !body.policy_names_to_skip.contains(name));
    names.sort();
    names.dedup();
    let mut policies = Vec::with_capacity(names.len());
    for name in names {
        let record = rooms.fleet.policy(&name)?;
        let version = record
            .default()
            .ok_or_else(|| ApiError::internal(&"a policy has no default version"))?;
        let policy = Policy::parse_within(&version.document, &Limits::NONE)
            .map_err(|e| ApiError::internal(&e))?;
        let policy = policy.numbered(version.number);
        policies.push(NamedPolicy {
            name,
            policy: Arc::new(policy),
        });
    }
    let client_id: Option<String> = call.query("clientId")?;
    let client_id = client_id.unwrap_or_default();
    let context = match &target {
        Some(Target::Certificate(id)) => {
            let standing = rooms.fleet.standing(id)?.now();
            standing.context(&client_id, call.now)
        }
        _ => Context::of(&client_id, None, None),
    };
    let grant = Grant::new(rooms.fleet.realm().clone(), policies.into(), context);
    let list = |names: BTreeSet<&PolicyName>| {
        let item = |name: &PolicyName| Item {
            policy_name: name.to_string(),
            policy_arn: arns.policy(name),
        };
        Policies {
            policies: names.into_iter().map(item).collect(),
        }
    };
    let listed = |explanation: &[Explanation], effect| {
        let statements = explanation.iter().flat_map(|e| &e.statements);
        let names: BTreeSet<&PolicyName> = statements
            .filter(|statement| statement.effect == effect)
            .map(|statement| &statement.policy)
            .collect();
        list(names)
    };
    // Those without a statement that speaks of the action on one of the resources.
    let silent = |explanation: &[Explanation]| {
        let without = explanation.iter().flat_map(|explanation| {
            let speaks =
                |name: &PolicyName| explanation.statements.iter().any(|s| s.policy == *name);
            let names = explanation.policies.iter();
            names.filter(move |name| !speaks(name))
        });
        list(without.collect())
    };
    let mut auth_results = Vec::with_capacity(body.auth_infos.len());
    for info in body.auth_infos {
        let mut explanations = Vec::with_capacity(info.resources.len());
        for resource in &info.resources {
            let (found, name) = arns.read(resource)?;
            let (action, kind) = match (info.action_type.as_deref(), found) {
                (Some("CONNECT"), _) | (None, "client") => (Action::Connect, "client"),
                (Some("PUBLISH"), _) => (Action::Publish, "topic"),
                (Some("RECEIVE"), _) => (Action::Receive, "topic"),
                (Some("SUBSCRIBE"), _) | (None, "topicfilter") => {
                    (Action::Subscribe, "topicfilter")
                }
                (Some(_), _) => {
                    return Err(ApiError::invalid(
                        "actionType: CONNECT, PUBLISH, RECEIVE or SUBSCRIBE",
                    ));
                }
                (None, _) => {
                    return Err(ApiError::invalid(format!(
                        "actionType: of {found}/NAME, say PUBLISH or RECEIVE"
                    )));
                }
            };
            if found != kind {
                return Err(ApiError::invalid(format!(
                    "{action} acts on {kind}/NAME, not on {found}"
                )));
            }
            explanations.push(grant.explain(action, name));
        }
        let missing = explanations.iter().flat_map(|e| &e.missing_context);
        let missing: BTreeSet<&String> = missing.collect();
        let missing_context_values = missing.into_iter().cloned().collect();
        // All of the resources must be allowed.
        let any = |decision| explanations.iter().any(|e| e.decision == decision);
        let auth_decision = if any(Decision::ExplicitDeny) {
            "EXPLICIT_DENY"
        } else if any(Decision::ImplicitDeny) {
            "IMPLICIT_DENY"
        } else {
            "ALLOWED"
        };
        auth_results.push(AuthResult {
            auth_info: info,
            allowed: listed(&explanations, Effect::Allow),
            denied: Denied {
                implicit_deny: silent(&explanations),
                explicit_deny: listed(&explanations, Effect::Deny),
            },
            auth_decision,
            missing_context_values,
        });
    }
    Answer::json(&Output { auth_results })
}
