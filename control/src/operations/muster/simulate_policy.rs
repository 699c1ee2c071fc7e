use std::sync::Arc;

use fleet::ThingName;
use http::Method;
use policy::{Action, Decision, Grant, NamedPolicy, Policy, PolicyName};
use serde::{Deserialize, Serialize};

use super::targets::{each_seen, since, things};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Tells which of the decisions that were made would come out otherwise.
pub(super) const OPERATION: Operation = Operation {
    name: "SimulatePolicy",
    method: Method::POST,
    path: "/muster/v1/policies/simulate",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// Changed decisions that are told one by one.
const MAX_EXAMPLES: usize = 50;
/// What a document is called that has no name yet.
const NAMELESS: &str = "simulated";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    policy_document: String,
    /// The policy that the document becomes a version of: for all who have it.
    policy_name: Option<PolicyName>,
    /// Whom it is attached to, besides: also the devices of the groups below it.
    group: Option<String>,
    /// Or to which device.
    device: Option<ThingName>,
    /// Whether they then have nothing else.
    #[serde(default)]
    alone: bool,
    /// How far to look back; without a bound where it is left out.
    days: Option<u32>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Output {
    /// Certificates whose decisions were looked at.
    principals: usize,
    decisions: usize,
    changed: usize,
    now_denied: usize,
    now_allowed: usize,
    /// Things for which something would change.
    devices: usize,
    examples: Vec<Example>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Example {
    thing: ThingName,
    action: Action,
    topic: String,
    before: Decision,
    after: Decision,
    /// How often it was decided, and when the last time, in seconds since 1970.
    count: u64,
    last: u64,
    /// Why it would come out so.
    text: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let policy =
        Policy::parse(&body.policy_document).map_err(fleet::FleetError::MalformedPolicy)?;
    let name = match &body.policy_name {
        Some(name) => name.clone(),
        None => NAMELESS.parse().map_err(|e| ApiError::internal(&e))?,
    };
    let attached = body.group.is_some() || body.device.is_some();
    if !attached && body.policy_name.is_none() {
        return Err(ApiError::invalid(
            "name a group or a device that the policy is attached to, or the policy that it changes",
        ));
    }
    let new = NamedPolicy {
        name,
        policy: Arc::new(policy),
    };
    let realm = rooms.fleet.realm();
    let mut output = Output::default();
    let things = things(rooms, body.group.as_deref(), body.device.as_ref())?;
    let since = since(body.days, call.now);
    each_seen(rooms, &things, since, |seen| {
        let has = seen.standing.policies.iter().any(|p| p.name == new.name);
        if !has && !attached {
            return Ok(());
        }
        let kept = seen.standing.policies.iter();
        let kept = kept.filter(|p| !body.alone && p.name != new.name).cloned();
        let policies: Arc<[NamedPolicy]> = kept.chain([new.clone()]).collect();
        let context = seen.standing.context(seen.thing.as_str(), call.now);
        let before = Grant::new(
            realm.clone(),
            seen.standing.policies.clone(),
            context.clone(),
        );
        let after = Grant::new(realm.clone(), policies, context);
        output.principals += 1;
        let changed = output.changed;
        for one in seen.recorded {
            let (was, is) = (
                before.decide(one.action, &one.name),
                after.decide(one.action, &one.name),
            );
            output.decisions += 1;
            if was.is_allow() == is.is_allow() {
                continue;
            }
            output.changed += 1;
            match is.is_allow() {
                true => output.now_allowed += 1,
                false => output.now_denied += 1,
            }
            if output.examples.len() < MAX_EXAMPLES {
                output.examples.push(Example {
                    thing: seen.thing.clone(),
                    action: one.action,
                    text: after.explain(one.action, &one.name).to_string(),
                    topic: one.name,
                    before: was,
                    after: is,
                    count: one.tally.count,
                    last: one.tally.last,
                });
            }
        }
        output.devices += usize::from(output.changed > changed);
        Ok(())
    })?;
    Answer::json(&output)
}
