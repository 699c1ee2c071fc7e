//! Everybody in the registry with their policies, for claims about all of them.

use crate::{
    Attachment, Binding, CertificateRecord, CertificateStatus, Fleet, FleetError, Group, GroupName,
    Target, Thing, ThingName, keys, live,
};
use ca::CertificateId;
use policy::{Context, Limits, NamedPolicy, Needs, Policy, PolicyName, Population};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::SystemTime,
};
use store::Stored;

/// Rows read at once.
const PAGE_ITEMS: usize = 10_000;

/// As much of a certificate's row as tells whether it will ever connect.
#[derive(Serialize, Deserialize)]
struct StatusOnly {
    status: CertificateStatus,
}

impl Stored for StatusOnly {
    const VERSION: u16 = CertificateRecord::VERSION;
}

/// A change of who may do what that is not made yet.
#[derive(Debug, Clone)]
pub enum Change {
    /// A policy says this.
    Policy(NamedPolicy),
    /// A policy is attached.
    Attach(PolicyName, Target),
    /// A policy is detached.
    Detach(PolicyName, Target),
    /// A thing comes into a group.
    Join(ThingName, GroupName),
    /// A thing leaves a group.
    Leave(ThingName, GroupName),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Policy(policy) => write!(f, "policy {}", policy.name),
            Change::Attach(policy, target) => write!(f, "policy {policy} attached to {target}"),
            Change::Detach(policy, target) => write!(f, "policy {policy} detached from {target}"),
            Change::Join(thing, group) => write!(f, "device {thing} in group {group}"),
            Change::Leave(thing, group) => write!(f, "device {thing} out of group {group}"),
        }
    }
}

impl Change {
    /// Whether it may make a difference to a certificate of this thing, in these groups, under these policies.
    fn touches<'g>(
        &self,
        id: &CertificateId,
        thing: Option<&ThingName>,
        mut groups: impl Iterator<Item = &'g String>,
        policies: &BTreeSet<PolicyName>,
    ) -> bool {
        match self {
            Change::Policy(policy) => policies.contains(&policy.name),
            Change::Attach(_, Target::Certificate(other))
            | Change::Detach(_, Target::Certificate(other)) => other == id,
            Change::Attach(_, Target::Group(group)) | Change::Detach(_, Target::Group(group)) => {
                groups.any(|other| other == group.as_str())
            }
            Change::Join(other, _) | Change::Leave(other, _) => Some(other) == thing,
        }
    }

    fn of_groups(&self, memberships: &mut HashMap<String, Vec<String>>) {
        let (Change::Join(thing, group) | Change::Leave(thing, group)) = self else {
            return;
        };
        let groups = memberships.entry(thing.to_string()).or_default();
        groups.retain(|other| *other != group.as_str());
        if let Change::Join(..) = self {
            groups.push(group.to_string());
        }
    }

    fn of_attachments(&self, attached: &mut HashMap<String, Vec<PolicyName>>) {
        let (Change::Attach(policy, target) | Change::Detach(policy, target)) = self else {
            return;
        };
        let policies = attached.entry(target.to_string()).or_default();
        policies.retain(|other| other != policy);
        if let Change::Attach(..) = self {
            policies.push(policy.clone());
        }
    }
}

/// Whom dynamic groups are taken to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joining {
    /// Those they have now.
    Now,
    /// Whoever their queries may bring in or leave out one day: each thing without them, and with each of those that have
    /// a policy. A thing in several of them can do no more than it can in one, because what lets it do something is one
    /// statement, and more policies bring more that deny.
    EverAny,
}

/// Who is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'c> {
    /// Everybody, as it is.
    All,
    /// Those whom a change touches, before it is made.
    Before(&'c Change),
    /// The same, afterwards. Of the others nothing changes.
    After(&'c Change),
}

impl<'c> Whose<'c> {
    fn change(self) -> Option<&'c Change> {
        match self {
            Whose::All => None,
            Whose::Before(change) | Whose::After(change) => Some(change),
        }
    }

    /// The change where it is to be taken as made.
    fn made(self) -> Option<&'c Change> {
        match self {
            Whose::All | Whose::Before(_) => None,
            Whose::After(change) => Some(change),
        }
    }
}

/// Policies that are the same for all who share them.
type Shared = (Arc<[NamedPolicy]>, Needs);

impl Fleet {
    /// The names of all things, and those certificates of `whose` that are not revoked, with what
    /// their policies make of them. Of their groups those are told that `groups` names. `joining`
    /// says whom dynamic groups are taken to have.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn population(
        &self,
        groups: &BTreeSet<String>,
        whose: Whose<'_>,
        joining: Joining,
    ) -> Result<Population, FleetError> {
        let change = whose.made();
        let instead = match change {
            Some(Change::Policy(policy)) => Some(policy),
            _ => None,
        };
        let realm = Arc::clone(self.realm());
        let mut population = match joining {
            Joining::Now => Population::new(realm),
            Joining::EverAny => Population::lasting(realm),
        };
        population.from_now_on(seconds_now());
        self.each_key(keys::THING, |thing| population.add_name(&thing.into()))?;
        let mut memberships: HashMap<String, Vec<String>> = HashMap::new();
        self.each_key("memberof/", |key| {
            if let Some((thing, group)) = key.split_once('/') {
                let groups = memberships.entry(thing.to_owned()).or_default();
                groups.push(group.to_owned());
            }
        })?;
        if let Some(change) = change {
            change.of_groups(&mut memberships);
        }
        self.add_groups_above(&mut memberships)?;
        let mut attached: HashMap<String, Vec<PolicyName>> = HashMap::new();
        self.each_key("attached/", |key| {
            if let Some((target, policy)) = key.split_once('/') {
                let policies = attached.entry(target.to_owned()).or_default();
                policies.extend(policy.parse::<PolicyName>().ok());
            }
        })?;
        if let Some(change) = change {
            change.of_attachments(&mut attached);
        }
        let mut open: Vec<String> = Vec::new();
        if joining == Joining::EverAny {
            for groups in memberships.values_mut() {
                groups.retain(|group| !self.is_dynamic_named(group));
            }
            let dynamic = self.dynamic_names().into_iter();
            open.extend(dynamic.filter(|name| attached.contains_key(&format!("group:{name}"))));
        }
        let mut bound: HashMap<String, Binding> = HashMap::new();
        self.each_row::<Binding>("bound/", |key, binding| {
            bound.insert(key.to_owned(), binding);
            Ok(())
        })?;
        let mut shared: HashMap<BTreeSet<PolicyName>, Shared> = HashMap::new();
        let mut named: HashMap<Vec<String>, Arc<[Arc<str>]>> = HashMap::new();
        self.each_row::<StatusOnly>(keys::CERTIFICATE, |key, row| {
            if row.status == CertificateStatus::Revoked {
                return Ok(());
            }
            let Ok(id) = key.parse::<CertificateId>() else {
                return Ok(());
            };
            let bound = bound.get(key);
            let thing = bound.map(|bound| &bound.thing);
            let by_name = bound.is_some_and(|b| b.attachment == Attachment::NonExclusive);
            let member_of = thing.and_then(|thing| memberships.get(thing.as_str()));
            // Only a thing comes into a group.
            let joins = open.iter().filter(|_| thing.is_some()).map(Some);
            for join in std::iter::once(None).chain(joins) {
                let member_of = || member_of.into_iter().flatten().chain(join);
                let own = attached.get(&Target::Certificate(id).to_string());
                let own = own.map(Vec::as_slice).unwrap_or_default();
                let mut names: BTreeSet<PolicyName> = own.iter().cloned().collect();
                for group in member_of() {
                    let target = format!("group:{group}");
                    names.extend(attached.get(&target).cloned().unwrap_or_default());
                }
                let touches = |change: &Change| change.touches(&id, thing, member_of(), &names);
                if !whose.change().is_none_or(touches) {
                    continue;
                }
                if !shared.contains_key(&names) {
                    let read = self.shared(&names, instead)?;
                    shared.insert(names.clone(), read);
                }
                let found = shared.get(&names).filter(|(p, _)| !p.is_empty());
                let Some((policies, needs)) = found else {
                    continue;
                };
                let of_interest = member_of().filter(|group| groups.contains(*group));
                let of_interest: Vec<String> = of_interest.cloned().collect();
                let of_interest = named.entry(of_interest).or_insert_with_key(|groups| {
                    groups
                        .iter()
                        .map(|group| Arc::from(group.as_str()))
                        .collect()
                });
                let context = self.context_for(&id, thing, *needs)?;
                if by_name {
                    let of_groups = names.iter().filter(|name| !own.contains(name)).cloned();
                    population.add_by_name(policies, &of_groups.collect(), &context, of_interest);
                } else {
                    population.add(policies, &context, of_interest);
                }
            }
            Ok(())
        })?;
        Ok(population)
    }

    /// What is attached to a group counts for the things of all groups below it.
    fn add_groups_above(
        &self,
        memberships: &mut HashMap<String, Vec<String>>,
    ) -> Result<(), FleetError> {
        let mut parents: HashMap<String, String> = HashMap::new();
        self.each_row::<Group>(keys::GROUP, |key, group| {
            if let Some(parent) = group.parent {
                parents.insert(key.to_owned(), parent.to_string());
            }
            Ok(())
        })?;
        for groups in memberships.values_mut() {
            let mut at = 0;
            while let Some(group) = groups.get(at) {
                if let Some(parent) = parents.get(group)
                    && !groups.contains(parent)
                {
                    groups.push(parent.clone());
                }
                at += 1;
            }
        }
        Ok(())
    }

    fn shared(
        &self,
        names: &BTreeSet<PolicyName>,
        instead: Option<&NamedPolicy>,
    ) -> Result<Shared, FleetError> {
        let mut policies = Vec::with_capacity(names.len());
        for name in names {
            if let Some(other) = instead.filter(|other| other.name == *name) {
                policies.push(other.clone());
            } else if let Some(policy) = self.inner.live.policy(name)? {
                let name = name.clone();
                policies.push(NamedPolicy { name, policy });
            }
        }
        let needs = Needs::of(&policies);
        Ok((policies.into(), needs))
    }

    /// What policies that need no more than this can ask of a certificate.
    fn context_for(
        &self,
        id: &CertificateId,
        thing: Option<&ThingName>,
        needs: Needs,
    ) -> Result<Context, FleetError> {
        let mut context = Context::of("", thing.map(ThingName::as_str), None);
        if let Some(name) = thing.filter(|_| needs.thing)
            && let Some(thing) = self.read::<Thing>(&keys::thing(name))?
        {
            context.thing = Some(Arc::new(live::thing_facts(thing)));
        }
        if needs.certificate
            && let Some(record) = self.read::<CertificateRecord>(&keys::certificate(id))?
        {
            context.certificate = Arc::new(live::certificate_values(id, &record)?);
        }
        Ok(context)
    }

    /// Each key under a prefix, by its rest.
    fn each_key(&self, prefix: &str, mut take: impl FnMut(&str)) -> Result<(), FleetError> {
        let mut after: Option<String> = None;
        loop {
            let rows = self
                .inner
                .table
                .scan(prefix, after.as_deref(), PAGE_ITEMS)?;
            for (key, _) in &rows {
                take(key.strip_prefix(prefix).unwrap_or_default());
            }
            if rows.len() < PAGE_ITEMS {
                return Ok(());
            }
            after = rows.into_iter().next_back().map(|(key, _)| key);
        }
    }

    /// Each row under a prefix, by the rest of its key.
    fn each_row<T: Stored>(
        &self,
        prefix: &str,
        mut take: impl FnMut(&str, T) -> Result<(), FleetError>,
    ) -> Result<(), FleetError> {
        let mut after: Option<String> = None;
        loop {
            let rows = self
                .inner
                .table
                .scan_as::<T>(prefix, after.as_deref(), PAGE_ITEMS)?;
            let last = rows.last().map(|(key, _)| key.clone());
            let whole = rows.len() == PAGE_ITEMS;
            for (key, row) in rows {
                take(key.strip_prefix(prefix).unwrap_or_default(), row.value)?;
            }
            if !whole {
                return Ok(());
            }
            after = last;
        }
    }

    /// Everybody that there could be with a policy that nobody has yet: every thing with it alone,
    /// and two things more, so that there is another.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn population_of(
        &self,
        policy: &NamedPolicy,
        groups: &[String],
    ) -> Result<Population, FleetError> {
        // What those will be that are to have it nobody knows.
        let mut population = Population::lasting(Arc::clone(self.realm()));
        population.from_now_on(seconds_now());
        let policies: Arc<[NamedPolicy]> = Arc::from([policy.clone()]);
        let groups: Arc<[Arc<str>]> = groups
            .iter()
            .map(|group| Arc::from(group.as_str()))
            .collect();
        let mut add = |name: &str| {
            let name: Arc<str> = name.into();
            population.add_name(&name);
            population.add(
                &policies,
                &Context::of("", Some(&name), Some(&name)),
                &groups,
            );
        };
        add("one-device");
        add("another-device");
        self.each_key(keys::THING, add)?;
        Ok(population)
    }
}

/// A policy under a name, as it would be.
pub(crate) fn named(name: &PolicyName, document: &str) -> Result<NamedPolicy, FleetError> {
    Ok(NamedPolicy {
        name: name.clone(),
        policy: Arc::new(Policy::parse_within(document, &Limits::NONE)?),
    })
}

/// The second since 1970 that it is; of a clock before it, the first.
fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
