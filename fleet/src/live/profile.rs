//! What principals share. Those with the same policies attached and the same groups may do the same, so it is read
//! and compiled once for all of them, however many they are.

use super::Live;
use crate::{
    Group, GroupName, PolicyRecord, Target,
    authorities::{Signer, vouches_until},
    keys,
};
use ca::CertificateId;
use policy::{Limits, NamedPolicy, Policy, PolicyName};
use std::{
    collections::{BTreeSet, HashMap},
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};
use store::{Row, StoreError, Table};

/// Compiled policies kept for sharing; past it the cache is emptied and fills again with what is in use.
const POLICY_CACHE_LIMIT_ITEMS: usize = 10_000;

/// What settles a profile.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Attached to the certificate itself.
    pub(super) attached: Box<[PolicyName]>,
    /// The groups the thing is in, without those above them.
    pub(super) groups: Box<[GroupName]>,
}

/// What comes of it.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Of every policy that is attached to the certificate or to a group.
    pub(super) names: BTreeSet<PolicyName>,
    /// The groups, and those above them.
    pub(super) groups: Arc<[GroupName]>,
    pub(super) policies: Arc<[NamedPolicy]>,
    /// Which of the policies are attached to groups alone.
    pub(super) of_groups: Arc<[PolicyName]>,
}

impl Profile {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.groups == other.groups && same_policies(&self.policies, &other.policies)
    }
}

/// Whether they are the same compiled policies; what did not change is not compiled again.
pub(super) fn same_policies(one: &Arc<[NamedPolicy]>, other: &Arc<[NamedPolicy]>) -> bool {
    let same = |(one, other): (&NamedPolicy, &NamedPolicy)| {
        one.name == other.name && Arc::ptr_eq(&one.policy, &other.policy)
    };
    Arc::ptr_eq(one, other) || one.len() == other.len() && one.iter().zip(&**other).all(same)
}

/// A group as far as policies ask for it.
struct GroupRead {
    parent: Option<GroupName>,
    attached: Vec<PolicyName>,
}

/// What an authority means for what it signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthorityStanding {
    pub(super) signer: Signer,
    /// Nothing where it does not vouch.
    pub(super) until: Option<SystemTime>,
}

/// Reads shared rows once for a whole change.
#[derive(Default)]
pub(super) struct Reader {
    groups: HashMap<GroupName, Arc<GroupRead>>,
    policies: HashMap<PolicyName, Option<Arc<Policy>>>,
    authorities: HashMap<CertificateId, AuthorityStanding>,
}

impl Reader {
    pub(super) fn profile(&mut self, live: &Live, key: &Key) -> Result<Profile, StoreError> {
        let mut groups = key.groups.to_vec();
        let mut names: BTreeSet<PolicyName> = key.attached.iter().cloned().collect();
        let mut at = 0;
        // What is attached to a group counts for the things of all groups below it.
        while let Some(name) = groups.get(at) {
            let group = self.group(&live.table, name)?;
            names.extend(group.attached.iter().cloned());
            if let Some(parent) = &group.parent
                && !groups.contains(parent)
            {
                groups.push(parent.clone());
            }
            at += 1;
        }
        let mut policies = Vec::with_capacity(names.len());
        for name in &names {
            if let Some(policy) = self.policy(live, name)? {
                let name = name.clone();
                policies.push(NamedPolicy { name, policy });
            }
        }
        let of_groups = names.iter().filter(|name| !key.attached.contains(name));
        Ok(Profile {
            of_groups: of_groups.cloned().collect(),
            names,
            groups: groups.into(),
            policies: policies.into(),
        })
    }

    fn group(&mut self, table: &Table, name: &GroupName) -> Result<Arc<GroupRead>, StoreError> {
        if let Some(known) = self.groups.get(name) {
            return Ok(Arc::clone(known));
        }
        let row = table.get_as::<Group>(&keys::group(name))?;
        let read = Arc::new(GroupRead {
            parent: row.and_then(|row| row.value.parent),
            attached: names(table, &keys::attached(&Target::Group(name.clone())))?,
        });
        self.groups.insert(name.clone(), Arc::clone(&read));
        Ok(read)
    }

    fn policy(
        &mut self,
        live: &Live,
        name: &PolicyName,
    ) -> Result<Option<Arc<Policy>>, StoreError> {
        if let Some(known) = self.policies.get(name) {
            return Ok(known.clone());
        }
        let policy = live.policy(name)?;
        self.policies.insert(name.clone(), policy.clone());
        Ok(policy)
    }

    pub(super) fn authority(
        &mut self,
        table: &Table,
        id: &CertificateId,
    ) -> Result<AuthorityStanding, StoreError> {
        if let Some(known) = self.authorities.get(id) {
            return Ok(*known);
        }
        let standing = AuthorityStanding {
            signer: Signer::read(table, id)?.unwrap_or(Signer::alone(id)),
            until: vouches_until(table, id)?,
        };
        self.authorities.insert(*id, standing);
        Ok(standing)
    }
}

/// The last parts of the keys under a prefix.
pub(super) fn names<T: FromStr>(table: &Table, prefix: &str) -> Result<Vec<T>, StoreError> {
    // Bounded where they are written: ten groups per thing, ten policies per target.
    let rows = table.scan(prefix, None, crate::LIST_LIMIT_ITEMS)?;
    Ok(rows
        .iter()
        .filter_map(|(key, _)| key.strip_prefix(prefix)?.parse().ok())
        .collect())
}

impl Live {
    /// The default version, compiled. One that has not changed is the one that was compiled before.
    pub(crate) fn policy(&self, name: &PolicyName) -> Result<Option<Arc<Policy>>, StoreError> {
        let Some(Row {
            revision,
            value: record,
        }) = self.table.get_as::<PolicyRecord>(&keys::policy(name))?
        else {
            return Ok(None);
        };
        let known = self.policies.lock().get(name).cloned();
        if let Some((_, policy)) = known.as_ref().filter(|(cached, _)| *cached == revision) {
            return Ok(Some(Arc::clone(policy)));
        }
        let Some(version) = record.default() else {
            return Err(StoreError::Decode {
                key: keys::policy(name),
                reason: format!("default version {} is missing", record.default_version),
            });
        };
        let same = |policy: &Policy| {
            policy.text() == version.document && policy.number() == Some(version.number)
        };
        let policy = match known.filter(|(_, policy)| same(policy)) {
            Some((_, policy)) => policy,
            // One that is not understood was stored by another release, or damaged. It could hold a Deny: whoever has
            // it loses all.
            None => match Policy::parse_within(&version.document, &Limits::NONE) {
                Ok(policy) => Arc::new(policy.numbered(version.number)),
                Err(error) => {
                    return Err(StoreError::Decode {
                        key: keys::policy(name),
                        reason: error.to_string(),
                    });
                }
            },
        };
        let mut cache = self.policies.lock();
        if cache.len() >= POLICY_CACHE_LIMIT_ITEMS {
            cache.clear();
        }
        cache.insert(name.clone(), (revision, Arc::clone(&policy)));
        Ok(Some(policy))
    }
}
