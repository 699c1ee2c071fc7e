//! Whether a decision that was recorded comes out otherwise under other policies.
//!
//! Of a decision the action and the name are recorded, not how large the message was, from which
//! address it came or at what time of day. Where policies ask for such a thing, every way it can
//! have been is tried: a condition on it holds or does not, the same condition in both sets of
//! policies alike. What comes out the same in all ways is told for certain; what does not is told to
//! depend on it.

#[cfg(test)]
mod tests;

use crate::action::{Action, ActionSet};
use crate::arn::Resource;
use crate::condition::Condition;
use crate::context::MessageFacts;
use crate::decision::Decision;
use crate::document::Effect;
use crate::grant::{Bound, Grant};
use crate::key::Key;
use crate::own::Own;

/// Unrecorded things that are tried in all ways together; with more of them nothing is certain.
const UNKNOWNS_MAX: usize = 10;

/// What becomes of a recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It comes out as before.
    None,
    /// It comes out otherwise, whatever was not recorded.
    Certain {
        /// Under the policies as they are; of several ways to be denied, one.
        before: Decision,
        /// Under the others.
        after: Decision,
    },
    /// It comes out otherwise or not, by the values of these keys, which were not recorded.
    Depends {
        /// Their names, sorted, each once.
        on: Vec<String>,
    },
}

impl Change {
    fn between(before: Decision, after: Decision) -> Self {
        if before.is_allow() == after.is_allow() {
            Self::None
        } else {
            Self::Certain { before, after }
        }
    }

    /// The same decision where the principal may as well have been connected under another client
    /// id, under which `other` becomes of it.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let alike = match (&self, &other) {
            (Self::None, Self::None) => true,
            (Self::Certain { after, .. }, Self::Certain { after: other, .. }) => {
                after.is_allow() == other.is_allow()
            }
            _ => self == other,
        };
        if alike {
            return self;
        }
        let mut on = vec![Key::ClientId.to_string()];
        for change in [self, other] {
            if let Self::Depends { on: more } = change {
                on.extend(more);
            }
        }
        on.sort_unstable();
        on.dedup();
        Self::Depends { on }
    }
}

/// One principal's policies beside those that it would have.
#[derive(Debug)]
pub struct Comparison {
    before: Grant,
    after: Grant,
    /// The actions of which a statement asks for what is not recorded, or for what a message is.
    open: ActionSet,
}

impl Comparison {
    /// Both made for the same connection. What is not recorded of one (its address, server name,
    /// listener, TLS version, time of day and what CONNECT asked for) is tried in all ways, whatever
    /// the contexts say of it.
    #[must_use]
    pub fn new(before: Grant, after: Grant) -> Self {
        let statements = [&before, &after]
            .into_iter()
            .flat_map(|grant| grant.statements());
        let open = statements.filter(|(_, bound)| {
            let statement = bound.statement;
            let mut keys = statement.conditions.iter().flat_map(Condition::keys);
            let mut resources = statement.resources.iter();
            keys.any(|key| key.is_of_message() || is_unrecorded(key, Action::Publish))
                || resources.any(|resource| open_keys(resource, *bound).next().is_some())
        });
        let open = open.fold(ActionSet::default(), |set, (_, bound)| {
            set.union(bound.statement.actions)
        });
        Self {
            before,
            after,
            open,
        }
    }

    /// The policies that it would have.
    #[must_use]
    pub fn after(&self) -> &Grant {
        &self.after
    }

    /// Whether a recorded decision comes out otherwise.
    #[must_use]
    pub fn of(&self, action: Action, name: &str) -> Change {
        if !self.open.contains(action) {
            let before = self.before.decide(action, name);
            return Change::between(before, self.after.decide(action, name));
        }
        let mut unknowns = Unknowns::default();
        let before = speakers(&self.before, action, name, &mut unknowns);
        let after = speakers(&self.after, action, name, &mut unknowns);
        let count = unknowns.all.len();
        if count > UNKNOWNS_MAX {
            let on = unknowns.names(|_| true);
            return Change::Depends { on };
        }
        // What comes of it in each way that the unknown can be, a bit for each.
        let ways: Vec<Change> = (0..1_usize << count)
            .map(|way| Change::between(decided(&before, way), decided(&after, way)))
            .collect();
        let same = |one: &Change, other: &Change| match (one, other) {
            (Change::Certain { after, .. }, Change::Certain { after: other, .. }) => {
                after.is_allow() == other.is_allow()
            }
            (one, other) => one == other,
        };
        match ways.split_first() {
            Some((first, rest)) if rest.iter().all(|way| same(first, way)) => first.clone(),
            _ => {
                let matters = |place: usize| {
                    let mut all = ways.iter().enumerate();
                    all.any(|(way, change)| {
                        let flipped = ways.get(way ^ 1 << place);
                        flipped.is_some_and(|flipped| !same(change, flipped))
                    })
                };
                let on = unknowns.names(matters);
                Change::Depends { on }
            }
        }
    }
}

/// What holds or does not, nobody knows which.
#[derive(PartialEq)]
enum Unknown<'g> {
    /// A condition of a statement of this effect.
    Holds(Effect, &'g Condition),
    /// Whether one of these resources, in whose variables something stands, reaches the name.
    Reaches {
        grants: bool,
        resources: Vec<&'g str>,
    },
}

#[derive(Default)]
struct Unknowns<'g> {
    all: Vec<Unknown<'g>>,
    /// What each is about.
    keys: Vec<Vec<&'g Key>>,
}

impl<'g> Unknowns<'g> {
    fn place(&mut self, unknown: Unknown<'g>, keys: Vec<&'g Key>) -> usize {
        let known = self.all.iter().position(|known| *known == unknown);
        known.unwrap_or_else(|| {
            self.all.push(unknown);
            self.keys.push(keys);
            self.all.len() - 1
        })
    }

    fn names(&self, of: impl Fn(usize) -> bool) -> Vec<String> {
        let keys = self.keys.iter().enumerate().filter(|(place, _)| of(*place));
        let names = keys.flat_map(|(_, keys)| keys.iter().map(ToString::to_string));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A statement that speaks in those ways in which each of these comes out so.
struct Speaker {
    effect: Effect,
    wants: Vec<(usize, bool)>,
}

/// The statements of a grant that may speak of the decision.
fn speakers<'g>(
    grant: &'g Grant,
    action: Action,
    name: &str,
    unknowns: &mut Unknowns<'g>,
) -> Vec<Speaker> {
    let context = grant.context();
    let message = MessageFacts {
        // What makes it one.
        retain: (action == Action::RetainPublish).then_some(true),
        ..MessageFacts::default()
    };
    let mut speakers = Vec::new();
    for (_, bound) in grant.statements() {
        let statement = bound.statement;
        if !statement.actions.contains(action) {
            continue;
        }
        let (open, known): (Vec<_>, Vec<_>) = statement
            .conditions
            .iter()
            .partition(|condition| condition.keys().any(|key| is_unrecorded(key, action)));
        let mut known = known.into_iter();
        if !known
            .all(|condition| grant.condition_holds(statement.effect, condition, &context, &message))
        {
            continue;
        }
        let Some(mut wants) = reaches(grant, bound, action, name, unknowns) else {
            continue;
        };
        wants.extend(open.into_iter().map(|condition| {
            let unknown = Unknown::Holds(statement.effect, condition);
            let keys = condition.keys().filter(|key| is_unrecorded(key, action));
            (unknowns.place(unknown, keys.collect()), true)
        }));
        speakers.push(Speaker {
            effect: statement.effect,
            wants,
        });
    }
    speakers
}

/// What must come out how for the statement to speak of this name; `None` where it does not in any
/// way.
fn reaches<'g>(
    grant: &'g Grant,
    bound: Bound<'g>,
    action: Action,
    name: &str,
    unknowns: &mut Unknowns<'g>,
) -> Option<Vec<(usize, bool)>> {
    let statement = bound.statement;
    // What stands in an unrecorded variable is not what the context says, nor its default.
    let recorded = bound.variables.iter().zip(bound.values);
    let recorded = recorded.map(|(variable, value)| {
        let open = is_unrecorded(&variable.key, Action::Publish);
        value.clone().filter(|_| !open)
    });
    let values: Vec<_> = recorded.collect();
    let here = bound.with(&values);
    let kind = action.kind();
    let hits = |resource: &Resource| grant.reaches(here, resource, kind, name);
    let (mut certain, mut possible, mut keys) = (false, Vec::new(), Vec::new());
    for resource in &statement.resources {
        let open: Vec<&Key> = open_keys(resource, bound).collect();
        let opened = || hits(&resource.opened(&values));
        if open.is_empty() {
            let closed = grant.opens_unresolved(statement) && !resource.is_resolved(&values);
            certain |= if closed { opened() } else { hits(resource) };
        } else if opened() {
            possible.push(&*resource.text);
            keys.extend(open);
        }
    }
    match (certain, possible.is_empty()) {
        (true, _) => (!statement.but).then(Vec::new),
        (false, true) => statement.but.then(Vec::new),
        (false, false) => {
            let unknown = Unknown::Reaches {
                grants: (statement.effect == Effect::Allow) != statement.but,
                resources: possible,
            };
            Some(vec![(unknowns.place(unknown, keys), !statement.but)])
        }
    }
}

fn decided(speakers: &[Speaker], way: usize) -> Decision {
    let mut decision = Decision::ImplicitDeny;
    for speaker in speakers {
        let mut wants = speaker.wants.iter();
        if wants.all(|(place, holds)| (way >> place & 1 == 1) == *holds) {
            match speaker.effect {
                Effect::Allow => decision = Decision::Allow,
                Effect::Deny => return Decision::ExplicitDeny,
            }
        }
    }
    decision
}

/// Whether what a key held when an action was decided is not in the record. What a device is
/// (thing, certificate, posture) counts as it is now, and so does the date.
fn is_unrecorded(key: &Key, action: Action) -> bool {
    let message = matches!(
        action,
        Action::Publish | Action::RetainPublish | Action::Receive
    );
    match key {
        Key::SourceIp | Key::DomainName | Key::ConnectAttributes | Key::LastWillTopic => true,
        Key::Own(own) => match own {
            Own::SourceNetwork
            | Own::Listener
            | Own::TlsVersion
            | Own::TimeOfDay(_)
            | Own::Weekday(_) => true,
            Own::MessageSize => message,
            Own::Qos => message || action == Action::Subscribe,
            Own::Retain => message && action != Action::RetainPublish,
            _ => false,
        },
        _ => false,
    }
}

/// The unrecorded variables of a resource.
fn open_keys<'g>(resource: &'g Resource, bound: Bound<'g>) -> impl Iterator<Item = &'g Key> {
    let variables = resource.variables.iter();
    let variables = variables.filter_map(move |number| bound.variables.get(usize::from(*number)));
    let keys = variables.map(|variable| &variable.key);
    keys.filter(|key| is_unrecorded(key, Action::Publish))
}
