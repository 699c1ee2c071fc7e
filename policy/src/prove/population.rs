//! Everybody that a claim is about, told apart by what their policies make of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::facts::{self, Facts, Settled};
use super::search::is_name_char;
use crate::condition::Condition;
use crate::context::Context;
use crate::grant::NamedPolicy;
use crate::key::Key;
use crate::name::PolicyName;
use crate::own::Own;
use crate::realm::Realm;
use crate::tokens::Variable;

/// What a variable stands for in a class of devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stand {
    /// The thing's name.
    Name,
    Text(Arc<str>),
    /// What the client calls itself.
    Client,
    /// What only a live connection has.
    Free,
    /// Nothing.
    Absent,
}

/// As what a connection is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Speaks {
    /// As the thing, whatever it calls itself; or its certificate is of no thing.
    Always,
    /// As the thing, under its name.
    ByName,
    /// As nobody, under any other name.
    Otherwise,
    /// Over HTTPS, where nobody has a client id.
    Unnamed,
}

/// Devices that nothing but their names tells apart.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) policies: Arc<[NamedPolicy]>,
    /// Of each policy's variables, one policy behind the other.
    pub(super) stands: Box<[Stand]>,
    /// How the registry settles the conditions of each statement.
    pub(super) settled: Box<[Settled]>,
    /// The same of things that are yet to come.
    pub(super) ever: Box<[Settled]>,
    pub(super) speaks: Speaks,
    /// Of one of them.
    pub(super) context: Context,
    /// The name of that one.
    pub(super) name: Option<Arc<str>>,
    /// The names, in order once the population is complete; none for certificates of no thing.
    pub(super) members: Vec<Arc<str>>,
    pub(super) groups: Arc<[Arc<str>]>,
}

/// All principals, as [`Population::add`] was told of them.
#[derive(Debug)]
pub struct Population {
    pub(super) realm: Arc<Realm>,
    pub(super) facts: Facts,
    pub(super) classes: Vec<Class>,
    by_kind: HashMap<Kind, usize>,
    /// The names of all things.
    pub(super) names: Vec<Arc<str>>,
    /// Whether a name has characters that no thing's name has.
    pub(super) strange: bool,
    /// The second since 1970 from which on claims are to hold; without one they are to hold at any time.
    pub(super) now: Option<i64>,
    complete: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    /// Where the shared list of policies lies.
    policies: usize,
    stands: Box<[Stand]>,
    settled: Box<[Settled]>,
    ever: Box<[Settled]>,
    speaks: Speaks,
    groups: Arc<[Arc<str>]>,
    /// Certificates of no thing are one class without members.
    named: bool,
}

/// What must be known of principals for their policies to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Type and attributes of the thing.
    pub thing: bool,
    /// Names and number of the certificate.
    pub certificate: bool,
}

impl Needs {
    /// Those of policies.
    #[must_use]
    pub fn of(policies: &[NamedPolicy]) -> Self {
        let mut needs = Self::default();
        let variables = policies.iter().flat_map(|named| named.policy.variables());
        let statements = policies.iter().flat_map(|named| named.policy.statements());
        let conditions = statements.flat_map(|statement| &statement.conditions);
        let asked = conditions.flat_map(Condition::keys);
        for key in variables.map(|variable| &variable.key).chain(asked) {
            match key {
                Key::ThingTypeName | Key::Attribute(_) => needs.thing = true,
                Key::CertificateId
                | Key::SerialNumber
                | Key::AvailableKeys
                | Key::Certificate(..)
                | Key::Own(Own::CertificateKeyKind | Own::EnrolmentWay) => {
                    needs.certificate = true;
                }
                _ => {}
            }
        }
        needs
    }
}

impl Population {
    /// Nobody yet.
    #[must_use]
    pub fn new(realm: Arc<Realm>) -> Self {
        Self {
            realm,
            facts: Facts::Known,
            classes: Vec::new(),
            by_kind: HashMap::new(),
            names: Vec::new(),
            strange: false,
            now: None,
            complete: false,
        }
    }

    /// Adds a thing that exists, whether it has a certificate or not.
    pub fn add_name(&mut self, name: &Arc<str>) {
        self.strange |= name.is_empty() || !name.chars().all(is_name_char);
        self.names.push(Arc::clone(name));
        self.complete = false;
    }

    /// Adds a principal with its policies, which those who have the same should share, and the
    /// groups of its thing. Its context holds what [`Needs::of`] its policies says. The thing counts
    /// whatever the client calls itself.
    pub fn add(
        &mut self,
        policies: &Arc<[NamedPolicy]>,
        context: &Context,
        groups: &Arc<[Arc<str>]>,
    ) {
        let name = context.thing.as_ref().map(|thing| &thing.name);
        self.add_as(Speaks::Always, name, policies, context, groups);
        let mut variables = policies.iter().flat_map(|named| named.policy.variables());
        if variables.any(|variable| variable.key == Key::ClientId) {
            self.add_as(Speaks::Unnamed, name, policies, context, groups);
        }
    }

    /// The same of a principal whose thing, with what `of_groups` allow, counts where the client
    /// calls itself by the thing's name. Under another name, and over HTTPS, those only deny.
    pub fn add_by_name(
        &mut self,
        policies: &Arc<[NamedPolicy]>,
        of_groups: &Arc<[PolicyName]>,
        context: &Context,
        groups: &Arc<[Arc<str>]>,
    ) {
        let name = context.thing.as_ref().map(|thing| &thing.name);
        self.add_as(Speaks::ByName, name, policies, context, groups);
        let alone = Context {
            thing: None,
            only_denying: Some(Arc::clone(of_groups)),
            ..context.clone()
        };
        self.add_as(Speaks::Otherwise, name, policies, &alone, groups);
        self.add_as(Speaks::Unnamed, name, policies, &alone, groups);
    }

    fn add_as(
        &mut self,
        speaks: Speaks,
        name: Option<&Arc<str>>,
        policies: &Arc<[NamedPolicy]>,
        context: &Context,
        groups: &Arc<[Arc<str>]>,
    ) {
        let variables = policies.iter().flat_map(|named| named.policy.variables());
        let nameless = Context {
            client_id: Arc::from(""),
            ..context.clone()
        };
        let context = match speaks {
            Speaks::Unnamed => &nameless,
            _ => context,
        };
        let stand = |variable| match (stand(variable, context, name), speaks) {
            (Stand::Client, Speaks::Unnamed) => match variable.value(context) {
                Some(text) => Stand::Text(text),
                None => Stand::Absent,
            },
            (stand, _) => stand,
        };
        let stands: Box<[Stand]> = variables.map(stand).collect();
        let kind = Kind {
            policies: Arc::as_ptr(policies).cast::<()>() as usize,
            stands,
            settled: facts::settled(self.facts, &self.realm, policies, context),
            ever: facts::settled(Facts::Attachment, &self.realm, policies, context),
            speaks,
            groups: Arc::clone(groups),
            named: name.is_some(),
        };
        let place = match self.by_kind.get(&kind) {
            Some(place) => *place,
            None => {
                self.classes.push(Class {
                    policies: Arc::clone(policies),
                    stands: kind.stands.clone(),
                    settled: kind.settled.clone(),
                    ever: kind.ever.clone(),
                    speaks,
                    context: context.clone(),
                    name: name.cloned(),
                    members: Vec::new(),
                    groups: Arc::clone(groups),
                });
                self.by_kind.insert(kind, self.classes.len() - 1);
                self.classes.len() - 1
            }
        };
        if let (Some(name), Some(class)) = (name, self.classes.get_mut(place)) {
            class.members.push(Arc::clone(name));
        }
        self.complete = false;
    }

    /// Nobody yet, for claims that are to outlast changes of types, attributes and certificates:
    /// conditions on those are taken against them.
    #[must_use]
    pub fn lasting(realm: Arc<Realm>) -> Self {
        Self {
            facts: Facts::Lasting,
            ..Self::new(realm)
        }
    }

    /// Claims are to hold from this second on, since 1970: what can be met only before it is met no more.
    pub fn from_now_on(&mut self, now: i64) {
        self.now = Some(now);
    }

    /// How many kinds of devices there are.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn complete(&mut self) {
        if std::mem::replace(&mut self.complete, true) {
            return;
        }
        self.names.sort_unstable();
        self.names.dedup();
        for class in &mut self.classes {
            class.members.sort_unstable();
            class.members.dedup();
        }
    }
}

fn stand(variable: &Variable, context: &Context, name: Option<&Arc<str>>) -> Stand {
    let value = match &variable.key {
        Key::ClientId => return Stand::Client,
        Key::SourceIp | Key::DomainName | Key::LastWillTopic => return Stand::Free,
        // The posture of a device changes without a change in the registry's policies.
        Key::Own(own) if *own != Own::SourceNetwork && !own.is_moving() && !own.is_of_message() => {
            return Stand::Free;
        }
        _ => variable.value(context),
    };
    match value {
        None => Stand::Absent,
        Some(value) if Some(&value) == name => Stand::Name,
        Some(value) => Stand::Text(value),
    }
}
