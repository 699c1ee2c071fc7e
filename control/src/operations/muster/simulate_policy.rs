use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::{Recorded, ThingName};
use http::Method;
use policy::{Action, Change, Comparison, Decision, Grant, NamedPolicy, PolicyName};
use serde::{Deserialize, Serialize};

use super::targets::{Seen, each_seen, since, things};
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
    /// Decisions that come out otherwise, whatever is not recorded of them.
    changed: usize,
    now_denied: usize,
    now_allowed: usize,
    /// Things for which something would change.
    devices: usize,
    examples: Vec<Example>,
    /// How often something was done whose topic was not kept, because there were too many: nothing is said of it.
    left_out: u64,
    /// Whether decisions are recorded now; what was before is older.
    recording: bool,
    /// Decisions that come out otherwise or not by what is not recorded of them; none of them is
    /// among those above.
    undecided: Undecided,
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

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Undecided {
    decisions: usize,
    /// Things that have one.
    devices: usize,
    /// By what is not recorded, how many depend on it.
    on: BTreeMap<String, usize>,
    examples: Vec<Open>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    thing: ThingName,
    action: Action,
    topic: String,
    /// What was decided, the last time.
    was_allowed: bool,
    count: u64,
    last: u64,
    on: Vec<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let policy = rooms.fleet.policy_limits().parse(&body.policy_document);
    let policy = policy.map_err(fleet::FleetError::MalformedPolicy)?;
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
    if !attached {
        // Whom it is attached to is found by this name: nobody would be, and nothing would change.
        rooms.fleet.policy(&name)?;
    }
    let new = NamedPolicy {
        name,
        policy: Arc::new(policy),
    };
    let realm = rooms.fleet.realm();
    let mut output = Output {
        recording: rooms.fleet.records_decisions(),
        ..Output::default()
    };
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
        let compared = |client_id: &str| {
            let context = seen.standing.context(client_id, call.now);
            let before = seen.standing.policies.clone();
            let before = Grant::new(realm.clone(), before, context.clone());
            let after = Grant::new(realm.clone(), policies.clone(), context);
            Comparison::new(before, after)
        };
        output.take(&seen, compared);
        Ok(())
    })?;
    Answer::json(&output)
}

impl Output {
    /// Counts what becomes of one principal's decisions; `compared` has its policies under a client
    /// id.
    fn take(&mut self, seen: &Seen, compared: impl Fn(&str) -> Comparison) {
        let recorded = seen.recorded.iter();
        let turned_away = recorded
            .filter(|one| one.action == Action::Connect && !seen.client_ids.contains(&one.name))
            .map(|one| &one.name);
        let connections: Vec<(&str, Comparison)> = seen
            .client_ids
            .iter()
            .chain(turned_away)
            .map(|client_id| (client_id.as_str(), compared(client_id)))
            .collect();
        let sessions = seen.client_ids.len();
        let (changed, undecided) = (self.changed, self.undecided.decisions);
        self.principals += 1;
        self.left_out = self.left_out.saturating_add(seen.left_out);
        self.decisions += seen.recorded.len();
        for one in &seen.recorded {
            // The name of a Connect is the client id.
            let mut concerned = connections.iter().enumerate().filter(|(place, (id, _))| {
                if one.action == Action::Connect {
                    *id == one.name
                } else {
                    *place < sessions
                }
            });
            let Some((_, (_, first))) = concerned.next() else {
                continue;
            };
            let others = concerned.map(|(_, (_, other))| other.of(one.action, &one.name));
            match others.fold(first.of(one.action, &one.name), Change::or) {
                Change::None => {}
                Change::Certain { before, after } => {
                    self.changed += 1;
                    match after.is_allow() {
                        true => self.now_allowed += 1,
                        false => self.now_denied += 1,
                    }
                    if self.examples.len() < MAX_EXAMPLES {
                        self.examples.push(Example {
                            thing: seen.thing.clone(),
                            action: one.action,
                            topic: one.name.clone(),
                            before,
                            after,
                            count: one.tally.count,
                            last: one.tally.last,
                            text: first.after().explain(one.action, &one.name).to_string(),
                        });
                    }
                }
                Change::Depends { on } => self.undecided.take(seen, one, on),
            }
        }
        self.devices += usize::from(self.changed > changed);
        self.undecided.devices += usize::from(self.undecided.decisions > undecided);
    }
}

impl Undecided {
    fn take(&mut self, seen: &Seen, one: &Recorded, on: Vec<String>) {
        self.decisions += 1;
        for key in &on {
            match self.on.get_mut(key) {
                Some(count) => *count += 1,
                None => {
                    self.on.insert(key.clone(), 1);
                }
            }
        }
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(Open {
                thing: seen.thing.clone(),
                action: one.action,
                topic: one.name.clone(),
                was_allowed: one.tally.allowed,
                count: one.tally.count,
                last: one.tally.last,
                on,
            });
        }
    }
}
