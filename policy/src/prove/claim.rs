//! One claim about one kind of device and one action: judged with the names left open, then with those that there are.

use std::sync::Arc;

use super::CounterExample;
use super::facts::{Settled, is_settled};
use super::fate::Asking;
use super::given::given;
use super::invariant::Invariant;
use super::population::{Class, Population, Speaks, Stand};
use super::search::{Found, Query, Seek, Step};
use crate::action::Action;
use crate::arn::Resource;
use crate::condition::Condition;
use crate::context::{Context, MessageFacts, ThingFacts};
use crate::document::{Effect, Statement};
use crate::explain::StatementRef;
use crate::grant::{Grant, NamedPolicy};
use crate::pattern::{Pattern, Token};
use crate::realm::UnresolvedDeny;

/// Whether a device of that kind breaks the claim.
pub(super) enum Verdict {
    /// By no name.
    Never,
    /// By no name that there is.
    NotYet,
    Broken(Box<CounterExample>),
    Undecided(String),
}

/// What the client calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client<'c> {
    /// By its thing's name.
    Name,
    Is(&'c Arc<str>),
    /// As it likes.
    Any,
}

/// Of which things it is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Those that there are: what the registry says of them settles conditions.
    Known,
    /// Any that there could be, of which nothing is known yet.
    Any,
}

/// A claim about one kind of device and one action.
pub(super) struct Claim<'c> {
    pub(super) population: &'c Population,
    pub(super) invariant: &'c Invariant,
    pub(super) class: &'c Class,
    pub(super) action: Action,
}

impl<'c> Claim<'c> {
    pub(super) fn judge(&self) -> Verdict {
        let strange = self.population.strange && self.invariant.owned;
        let (mut maybe, mut undecided) = (strange, None);
        let client = |names| {
            if self.is_client_pinned(names) {
                Client::Name
            } else {
                Client::Any
            }
        };
        if !self.is_possible() {
            return Verdict::Never;
        }
        let otherwise = self.class.speaks == Speaks::Otherwise;
        if otherwise && !self.is_connected(None, Names::Any) {
            return Verdict::Never;
        }
        if !strange {
            let client = client(Names::Any);
            for allow in self.allows(Names::Any) {
                let Some(query) = self.query(allow, None, client, None) else {
                    continue;
                };
                match query.run() {
                    Ok(None) => {}
                    Ok(Some(_)) => maybe = true,
                    Err(_) => return Verdict::Undecided(self.too_large()),
                }
            }
        }
        if !maybe {
            return Verdict::Never;
        }
        let (names, client) = (&self.population.names, client(Names::Known));
        for own in self.candidates() {
            if otherwise && !self.is_connected(own, Names::Known) {
                continue;
            }
            for allow in self.allows(Names::Known) {
                let Some(mut query) = self.query(allow, own, client, Some(names)) else {
                    continue;
                };
                let found = match query.run() {
                    Ok(None) => continue,
                    Ok(Some(found)) => found,
                    Err(_) => return Verdict::Undecided(self.too_large()),
                };
                // Shown in the shortest way that there is for this other one.
                let other = found.other.and_then(|index| names.get(index));
                let wanted = with_other(&self.invariant.wanted, other);
                query.wanted = &wanted;
                query.names = None;
                let text = match query.run() {
                    Ok(Some(Found { text, .. })) => text,
                    _ => found.text,
                };
                let example = self
                    .confirm(own, other, &text, &self.clients(own, &text, client))
                    .or_else(|| self.as_some_client(allow, own, client));
                match example {
                    Some(example) => return Verdict::Broken(example),
                    None => {
                        let reason = format!(
                            "{} may reach {text:?} by {}, and no client id shows it",
                            own.map_or("a certificate of no thing", |own| own),
                            self.action
                        );
                        undecided.get_or_insert(reason);
                    }
                }
            }
        }
        undecided.map_or(Verdict::NotYet, Verdict::Undecided)
    }

    /// Whether who speaks so can do it at all: nobody subscribes over HTTPS, and what is retained is read nowhere else.
    fn is_possible(&self) -> bool {
        let of_client = || self.class.stands.contains(&Stand::Client);
        match (self.action, self.class.speaks) {
            (Action::GetRetainedMessage, Speaks::Unnamed) => true,
            (Action::GetRetainedMessage, Speaks::Always) => !of_client(),
            (Action::GetRetainedMessage, Speaks::ByName | Speaks::Otherwise) => false,
            (Action::Publish | Action::RetainPublish, _) => true,
            (_, speaks) => speaks != Speaks::Unnamed,
        }
    }

    fn too_large(&self) -> String {
        let names = self.class.policies.iter().map(|named| named.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        format!("policies {names} are too intricate to be followed")
    }

    /// Whose names stand for the class: all where the policies hang on them, else as few as show
    /// one that is not the other.
    fn candidates(&self) -> impl Iterator<Item = Option<&'c str>> {
        let by_name = |stand: &Stand| matches!(stand, Stand::Name | Stand::Client);
        let enough = if self.class.stands.iter().any(by_name) {
            usize::MAX
        } else if self.class.speaks == Speaks::Otherwise {
            // And one whose name is not the only client id that there may be.
            3
        } else {
            2
        };
        let members = self.class.members.iter().take(enough);
        let nameless = self.class.members.is_empty().then_some(None);
        members.map(|name| Some(&**name)).chain(nameless)
    }

    /// The statements that may allow it.
    pub(super) fn allows(
        &self,
        names: Names,
    ) -> impl Iterator<Item = (usize, &'c NamedPolicy, &'c Statement)> {
        let (class, action) = (self.class, self.action);
        let asking = self.asking(action);
        let statements = class.statements().filter(move |one| {
            one.statement.effect == Effect::Allow
                && one.statement.actions.contains(action)
                && asking.settled(one, names == Names::Known) != Settled::Unmet
        });
        statements.map(|one| (one.first, one.named, one.statement))
    }

    /// What asks for a text by which this Allow reaches the topics and no Deny is in the way;
    /// `None` where there is none from the first.
    pub(super) fn query(
        &self,
        (first, _, allow): (usize, &NamedPolicy, &Statement),
        own: Option<&'c str>,
        client: Client<'_>,
        names: Option<&'c [Arc<str>]>,
    ) -> Option<Query<'c>> {
        let realm = &self.population.realm;
        let filter = self.action == Action::Subscribe;
        let mut query = Query {
            wanted: &self.invariant.wanted,
            some: Vec::new(),
            none: Vec::new(),
            filter,
            coverage: filter && !realm.textual_subscriptions,
            names,
            own,
        };
        let closed = realm.unresolved_deny == UnresolvedDeny::Closed;
        let named = names.is_some();
        let patterns = |first: usize, statement: &Statement| -> Vec<Vec<Step>> {
            let grants = (statement.effect == Effect::Allow) != statement.but;
            let how = (grants, closed && !grants);
            let ours =
                |resource: &&Resource| resource.is_in(realm.region.as_deref(), &realm.account);
            let resources = statement.resources.iter().filter(ours);
            let patterns = resources.flat_map(|r| r.patterns(self.action.kind()));
            patterns
                .filter_map(|p| self.steps(first, p, own.filter(|_| named), client, how))
                .collect()
        };
        let plain = |pattern: &Vec<Step>| {
            !pattern
                .iter()
                .any(|step| matches!(step, Step::Own | Step::Free))
        };
        if allow.but {
            // What it spares by a word that is open may be something else.
            query
                .none
                .extend(patterns(first, allow).into_iter().filter(plain));
        } else {
            let union = patterns(first, allow);
            if union.is_empty() {
                return None;
            }
            query.some.push(union);
        }
        let asking = self.asking(self.action);
        for one in self.class.statements() {
            let (first, deny) = (one.first, one.statement);
            let speaks = deny.effect == Effect::Deny
                && deny.actions.contains(self.action)
                && asking.settled(&one, named) == Settled::Met;
            if !speaks {
                continue;
            }
            if deny.but {
                let union = patterns(first, deny);
                if union.is_empty() {
                    return None;
                }
                query.some.push(union);
            } else {
                query
                    .none
                    .extend(patterns(first, deny).into_iter().filter(plain));
            }
        }
        Some(query)
    }

    /// A pattern with what its variables stand for; `None` where one stands for nothing.
    pub(super) fn steps(
        &self,
        first: usize,
        pattern: &Pattern,
        own: Option<&str>,
        client: Client<'_>,
        (grants, open): (bool, bool),
    ) -> Option<Vec<Step>> {
        let live = self.population.realm.region.is_none();
        let grants = grants && live && self.action == Action::Subscribe;
        let mut steps = Vec::new();
        for token in pattern.raw() {
            let number = match token {
                Token::Char(c) => {
                    steps.push(Step::Char(c));
                    continue;
                }
                Token::One => {
                    steps.push(Step::One);
                    continue;
                }
                Token::Star => {
                    steps.push(Step::Star);
                    continue;
                }
                Token::Variable(number) => usize::from(number),
            };
            let name = |steps: &mut Vec<Step>| match own {
                Some(own) => steps.extend(own.chars().map(Step::Char)),
                None => steps.push(Step::Own),
            };
            let text = match (self.class.stands.get(first + number), client) {
                (Some(Stand::Name), _) => {
                    name(&mut steps);
                    continue;
                }
                (Some(Stand::Client), Client::Name) if !self.class.members.is_empty() => {
                    name(&mut steps);
                    continue;
                }
                (Some(Stand::Client), Client::Is(text)) => text,
                (Some(Stand::Text(text)), _) => text,
                (Some(Stand::Client | Stand::Free), _) => {
                    steps.push(Step::Free);
                    continue;
                }
                (Some(Stand::Absent) | None, _) if open => {
                    steps.push(Step::Star);
                    continue;
                }
                (Some(Stand::Absent) | None, _) => return None,
            };
            // What a Deny names and an Allow spares is taken as it is written.
            if grants && text.contains(['+', '#']) {
                return None;
            }
            steps.extend(text.chars().map(Step::Char));
        }
        steps.dedup_by(|next, last| *next == Step::Star && *last == Step::Star);
        Some(steps)
    }

    /// Asks the engine whether the device does it under one of these client ids.
    pub(super) fn confirm(
        &self,
        own: Option<&str>,
        other: Option<&Arc<str>>,
        text: &str,
        clients: &[Arc<str>],
    ) -> Option<Box<CounterExample>> {
        clients.iter().find_map(|client_id| {
            let grant = self.grant(self.action, own, client_id);
            let nothing = MessageFacts::default();
            let explanation = grant.explain_as(self.action, self.action.kind(), text, &nothing);
            if !explanation.decision.is_allow() {
                return None;
            }
            let allows = |statement: &StatementRef| statement.effect == Effect::Allow;
            let statement = explanation.statements.into_iter().find(allows)?;
            let spared = explanation.passed_over.into_iter();
            let spared: Vec<StatementRef> = spared
                .filter(|one| one.effect == Effect::Deny && !self.open_of(one).is_empty())
                .collect();
            let told = |one: &StatementRef| self.open_of(one).into_iter().map(Condition::told);
            let unless = spared.iter().flat_map(|one| {
                let conditions = told(one);
                conditions.map(|condition| (one.clone(), condition))
            });
            let denies: Vec<Vec<&Condition>> = spared.iter().map(|one| self.open_of(one)).collect();
            Some(Box::new(CounterExample {
                thing: own.map(str::to_owned),
                client_id: client_id.to_string(),
                other: other.map(ToString::to_string),
                action: self.action,
                topic: text.to_owned(),
                assumes: told(&statement).collect(),
                given: given(&self.open_of(&statement), &denies, self.population.now),
                statement,
                unless: unless.collect(),
                spared_by: spared,
            }))
        })
    }

    pub(super) fn grant(&self, action: Action, own: Option<&str>, client_id: &Arc<str>) -> Grant {
        let context = self.class.context_of(own, client_id);
        let realm = Arc::clone(&self.population.realm);
        let policies = Arc::clone(&self.class.policies);
        let asking = self.asking(action);
        let statements = self.class.statements();
        let settled = statements.map(|one| asking.settled(&one, true));
        let settled: Vec<Settled> = settled.collect();
        Grant::assuming(realm, policies, context, &settled)
    }

    /// Who asks for an action.
    pub(super) fn asking(&self, action: Action) -> Asking<'c> {
        Asking {
            action,
            speaks: self.class.speaks,
            facts: self.population.facts,
            context: &self.class.context,
            now: self.population.now,
        }
    }

    /// The conditions of a statement that the registry does not settle, where they could come out either way.
    fn open_of(&self, named: &StatementRef) -> Vec<&'c Condition> {
        let statements = self.class.statements();
        let statements = statements.filter(|one| one.named.name == named.policy);
        let mut statements = statements.skip(named.statement.saturating_sub(1));
        let Some(Told {
            statement,
            settled: Settled::Open,
            ..
        }) = statements.next()
        else {
            return Vec::new();
        };
        let conditions = statement.conditions.iter();
        let asking = self.asking(self.action);
        let open = conditions
            .filter(|one| !is_settled(self.population.facts, one, &self.class.context))
            .filter(|one| asking.is_open(statement.effect, one));
        open.collect()
    }
}

/// A statement with what is known of it in a class.
#[derive(Clone, Copy)]
pub(super) struct Told<'c> {
    /// The place of its policy's first variable.
    pub(super) first: usize,
    pub(super) named: &'c NamedPolicy,
    pub(super) statement: &'c Statement,
    /// What the registry makes of its conditions.
    pub(super) settled: Settled,
    pub(super) ever: Settled,
}

impl Told<'_> {
    /// What is made of its conditions where things are known, or may be any.
    pub(super) fn settled(&self, known: bool) -> Settled {
        if known { self.settled } else { self.ever }
    }
}

impl Class {
    /// Each statement.
    pub(super) fn statements(&self) -> impl Iterator<Item = Told<'_>> {
        let first = self.policies.iter().scan(0, |first, named| {
            let own = *first;
            *first += named.policy.variables().len();
            Some(own)
        });
        let statements = first.zip(self.policies.iter()).flat_map(|(first, named)| {
            let statements = named.policy.statements().iter();
            statements.map(move |statement| (first, named, statement))
        });
        let settled = self.settled.iter().zip(&self.ever);
        statements
            .zip(settled)
            .map(|((first, named, statement), (settled, ever))| Told {
                first,
                named,
                statement,
                settled: *settled,
                ever: *ever,
            })
    }

    /// What would be known of the member of this name.
    fn context_of(&self, own: Option<&str>, client_id: &Arc<str>) -> Context {
        let mut context = self.context.clone();
        context.client_id = Arc::clone(client_id);
        if let (Some(own), Some(name)) = (own, &self.name) {
            let renamed = |value: &Arc<str>| match value == name {
                true => own.into(),
                false => Arc::clone(value),
            };
            let thing = self.context.thing.as_ref().map(|thing| ThingFacts {
                name: own.into(),
                type_name: thing.type_name.as_ref().map(renamed),
                attributes: {
                    let attributes = thing.attributes.iter();
                    attributes.map(|(k, v)| (k.clone(), renamed(v))).collect()
                },
            });
            context.thing = thing.map(Arc::new);
            let mut certificate = (*self.context.certificate).clone();
            for (_, _, value) in &mut certificate.fields {
                *value = renamed(value);
            }
            context.certificate = Arc::new(certificate);
        }
        context
    }
}

/// The topics with the other's name written out.
fn with_other(wanted: &[Vec<Seek>], other: Option<&Arc<str>>) -> Vec<Vec<Seek>> {
    let written = |seek: &Seek| match (seek, other) {
        (Seek::Other, Some(other)) => other.chars().map(Seek::Char).collect(),
        (seek, _) => vec![*seek],
    };
    wanted
        .iter()
        .map(|one| one.iter().flat_map(written).collect())
        .collect()
}
