use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet::{Recorded, ThingName};
use http::Method;
use policy::{Action, Allowance, Doer, Grant, NamedPolicy, Observed, PolicyName, suggest};
use serde::{Deserialize, Serialize};

use super::targets::{each_seen, since, things};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Writes the least policy that allows all that a group's devices were seen to do.
pub(super) const OPERATION: Operation = Operation {
    name: "SuggestPolicy",
    method: Method::POST,
    path: "/muster/v1/policies/suggest",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    group: Option<String>,
    device: Option<ThingName>,
    /// How far to look back; without a bound where it is left out.
    days: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    policy_document: String,
    /// Devices that were seen to do something.
    devices: usize,
    /// Decisions that allowed something.
    decisions: usize,
    /// Of them, those that the document does not allow.
    missing: Vec<Missing>,
    /// How often devices did something whose topic was not kept, because there were too many: the document may lack it.
    left_out: u64,
    /// Whether decisions are recorded now; what was before is older.
    recording: bool,
    /// What today's policies allow and the document does not, at least not by the same words.
    removes: Vec<Removed>,
}

#[derive(Serialize)]
struct Missing {
    thing: ThingName,
    action: Action,
    topic: String,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Removed {
    policy: PolicyName,
    #[serde(flatten)]
    allowance: Allowance,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let things = things(rooms, body.group.as_deref(), body.device.as_ref())?;
    let (mut all, mut left_out) = (Vec::new(), 0_u64);
    each_seen(rooms, &things, since(body.days, call.now), |mut seen| {
        left_out = left_out.saturating_add(seen.left_out);
        seen.recorded.retain(|one| one.tally.allowed);
        if !seen.recorded.is_empty() {
            let observed = seen.recorded.iter().map(|one| Observed {
                action: one.action,
                name: one.name.clone(),
                as_thing: seen
                    .client_ids_of(one)
                    .all(|id| seen.standing.speaks_as_thing(id)),
            });
            let observed: Vec<Observed> = observed.collect();
            let attributes = rooms.fleet.thing(&seen.thing)?.attributes;
            all.push((seen, attributes, observed));
        }
        Ok(())
    })?;
    if all.is_empty() && !rooms.fleet.records_decisions() {
        return Err(ApiError::invalid(
            "nothing was recorded of these devices, and recording is off: set record_decisions = true under [policy] of the server's configuration file, or leave it out",
        ));
    }
    if all.is_empty() {
        return Err(ApiError::invalid(
            "nothing was recorded of these devices: let them work for a while under a policy that is wide enough",
        ));
    }
    let used = all.iter().map(|(seen, attributes, observed)| Doer {
        thing: seen.thing.as_str(),
        attributes,
        observed,
    });
    let policy_document = suggest(&rooms.account, used);
    let policy = rooms.fleet.policy_limits().parse(&policy_document).map_err(|error| {
        ApiError::invalid(format!("too much was recorded for one policy: {error}; suggest for fewer devices, or fewer days"))
    })?;
    let suggested: BTreeSet<String> = policy
        .allowances()
        .into_iter()
        .map(|a| a.resource)
        .collect();
    let name = "suggested".parse().map_err(|e| ApiError::internal(&e))?;
    let policies: Arc<[NamedPolicy]> = Arc::from([NamedPolicy {
        name,
        policy: Arc::new(policy),
    }]);
    let (mut missing, mut removes, mut decisions) = (Vec::new(), BTreeSet::new(), 0);
    for (seen, ..) in &all {
        let granted = |client_id: &str| {
            let context = seen.standing.context(client_id, call.now);
            Grant::new(rooms.fleet.realm().clone(), policies.clone(), context)
        };
        decisions += seen.recorded.len();
        let ids = seen.client_ids.iter().map(String::as_str).chain([""]);
        let grants: BTreeMap<&str, Grant> = ids.map(|id| (id, granted(id))).collect();
        let allows = |id: &str, one: &Recorded| {
            let decision = match grants.get(id) {
                Some(grant) => grant.decide(one.action, &one.name),
                None => granted(id).decide(one.action, &one.name),
            };
            decision.is_allow()
        };
        // Under each client id that it may have been: which, nobody knows.
        let denied = seen.recorded.iter();
        let denied = denied.filter(|one| !seen.client_ids_of(one).all(|id| allows(id, one)));
        missing.extend(denied.map(|one| Missing {
            thing: seen.thing.clone(),
            action: one.action,
            topic: one.name.clone(),
        }));
        for named in seen.standing.policies.iter() {
            let today = named.policy.allowances().into_iter();
            let gone = today.filter(|allowance| !suggested.contains(&allowance.resource));
            removes.extend(gone.map(|allowance| Removed {
                policy: named.name.clone(),
                allowance,
            }));
        }
    }
    let devices: BTreeSet<&ThingName> = all.iter().map(|(seen, ..)| &seen.thing).collect();
    Answer::json(&Output {
        policy_document,
        devices: devices.len(),
        decisions,
        missing,
        left_out,
        recording: rooms.fleet.records_decisions(),
        removes: removes.into_iter().collect(),
    })
}
