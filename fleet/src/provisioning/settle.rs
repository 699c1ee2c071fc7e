//! The end of every way in by a template: thing, groups, attachments and policies of a certificate, within the
//! transaction that also puts the certificate.

use super::Rejection;
use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, GroupName, PolicyLimits, PolicyRecord,
    Target, Thing, ThingName, ThingTypeName,
    attachments::{Bereft, put_attachment, put_binding, require_policy},
    events::leave_group,
    groups::put_memberships,
    keys, policies,
    registry::Transaction,
    template::{Override, PolicyPlan, Provision, ThingPlan},
    things,
};
use aws_lc_rs::digest;
use ca::{CertificateId, RevocationReason};
use data_encoding::HEXLOWER;
use policy::PolicyName;
use std::{collections::BTreeSet, time::SystemTime};

/// A plan whose names have been read.
pub(crate) struct Names {
    pub(crate) thing: ThingName,
    type_name: Option<ThingTypeName>,
    groups: Vec<GroupName>,
    pub(crate) policies: Vec<Policy>,
}

pub(crate) enum Policy {
    Named(PolicyName),
    Document(PolicyName, String),
}

pub(super) fn conflict(message: String) -> Rejection {
    Rejection::new(409, "ResourceConflict", message)
}

impl Policy {
    pub(crate) fn name(&self) -> &PolicyName {
        match self {
            Policy::Named(name) | Policy::Document(name, _) => name,
        }
    }
}

impl Fleet {
    /// Runs a transaction that may also be refused in AWS's words; nothing has changed then.
    pub(crate) fn transact_or_reject<R>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<Result<R, Rejection>, FleetError>,
    ) -> Result<R, Rejection> {
        let mut refusal = None;
        let done = self.transact(|t| {
            refusal = None;
            match work(t)? {
                Ok(done) => Ok(done),
                Err(rejection) => {
                    // Carried past the transaction, which is given up by an error of its own kind.
                    let message = rejection.message.clone();
                    refusal = Some(rejection);
                    Err(FleetError::Invalid(message))
                }
            }
        });
        match (done, refusal) {
            (Ok(done), _) => Ok(done),
            (Err(_), Some(rejection)) => Err(rejection),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Makes a certificate the thing's of a plan, and the thing what the plan says. Says which certificates of the
    /// thing were revoked for it.
    pub(crate) fn settle(
        &self,
        t: &mut Transaction<'_>,
        (id, pem): (&CertificateId, &str),
        plan: &Provision,
        names: &Names,
        now: SystemTime,
    ) -> Result<Result<Vec<CertificateId>, Rejection>, FleetError> {
        let mut revoked = Vec::new();
        let groups = match t.get::<Thing>(&keys::thing(&names.thing))? {
            None => {
                let thing = Thing {
                    name: names.thing.clone(),
                    attributes: plan.thing.attributes.clone(),
                    type_name: names.type_name.clone(),
                    version: 1,
                    created: now,
                };
                things::put_thing(t, None, &thing)?;
                names.groups.iter().cloned().collect()
            }
            Some(known) => match self.rejoin(t, known, &plan.thing, names, now)? {
                Ok((groups, old)) => {
                    revoked = old;
                    groups
                }
                Err(rejection) => return Ok(Err(rejection)),
            },
        };
        put_memberships(t, &names.thing, &groups)?;
        put_binding(t, &names.thing, plan.certificate.attachment, (id, pem))?;
        let target = Target::Certificate(*id);
        for policy in &names.policies {
            let name = match policy {
                Policy::Named(name) => {
                    require_policy(t, name)?;
                    name
                }
                Policy::Document(name, document) => {
                    if t.get::<PolicyRecord>(&keys::policy(name))?.is_none() {
                        t.put(
                            keys::policy(name),
                            &policies::first_version(name, document, now),
                        )?;
                    }
                    name
                }
            };
            put_attachment(t, name, &target)?;
        }
        Ok(Ok(revoked))
    }

    /// A thing that is there already gets the new certificate where the template says so (`OverrideSettings`) or it
    /// has none but such as were revoked as superseded; the certificates it had are revoked. Otherwise whoever holds a claim could take any device's
    /// name with all that its groups may do, and what was revoked would come back by itself. What an operator has
    /// deactivated, or revoked because somebody else has its key, no template brings back.
    #[expect(
        clippy::type_complexity,
        reason = "the groups it is in then, and what was revoked for it"
    )]
    fn rejoin(
        &self,
        t: &mut Transaction<'_>,
        known: Thing,
        plan: &ThingPlan,
        names: &Names,
        now: SystemTime,
    ) -> Result<Result<(BTreeSet<GroupName>, Vec<CertificateId>), Rejection>, FleetError> {
        let name = known.name.clone();
        let bereft: Option<Bereft> = t.get(&keys::bereft(&name))?;
        let (mut live, mut had) = (Vec::new(), bereft.is_some());
        let mut newest: Option<CertificateRecord> = None;
        for id in self.all_names::<CertificateId>(&keys::principals(&name))? {
            let record: Option<CertificateRecord> = t.get(&keys::certificate(&id))?;
            had |= record.as_ref().is_some_and(|record| {
                let revocation = record.revocation.as_ref();
                revocation.is_none_or(|r| r.reason != RevocationReason::Superseded)
            });
            if record
                .as_ref()
                .is_some_and(|record| record.status != CertificateStatus::Revoked)
            {
                live.push(id);
            }
            newest = newest
                .into_iter()
                .chain(record)
                .max_by_key(|record| (record.created, !record.is_barred()));
        }
        let barred = match (&newest, bereft) {
            (Some(newest), _) => newest.is_barred(),
            (None, bereft) => bereft.is_some_and(|bereft| bereft.barred),
        };
        if barred {
            return Ok(Err(conflict(format!(
                "thing {name} was deactivated, or its key compromised, and comes back by no template: activate its \
                 certificate, give it another (`device replace`, `device enrol-password`), or delete the device"
            ))));
        }
        if had && plan.existing.is_none() {
            return Ok(Err(conflict(format!(
                "thing {name} exists and has had a certificate: give it another (`device replace`, `device \
                 enrol-password`), revoke that one as superseded, delete the device, or let the template's \
                 OverrideSettings say what a device that comes again does to its thing"
            ))));
        }
        let existing = plan.existing.unwrap_or_default();
        if [existing.attributes, existing.type_name, existing.groups].contains(&Override::Fail) {
            return Ok(Err(conflict(format!(
                "thing {name} exists, and the template says FAIL"
            ))));
        }
        for id in &live {
            let reason = RevocationReason::Superseded;
            self.change_status(t, id, CertificateStatus::Revoked, reason, now)?;
        }
        let mut thing = known.clone();
        match existing.attributes {
            Override::Replace => thing.attributes.clone_from(&plan.attributes),
            Override::Merge => thing.attributes.extend(plan.attributes.clone()),
            Override::DoNothing | Override::Fail => {}
        }
        things::check_attributes(&thing.attributes)?;
        if existing.type_name == Override::Replace {
            thing.type_name.clone_from(&names.type_name);
        }
        if thing != known {
            thing.version += 1;
        }
        // Written even when it says the same: of two that come at once for one thing, one is tried again.
        things::put_thing(t, Some(&known), &thing)?;
        let were: BTreeSet<GroupName> = self.static_groups_of(&name)?.into_iter().collect();
        let planned = names.groups.iter().cloned();
        let groups = match existing.groups {
            Override::Replace => planned.collect(),
            Override::Merge => were.iter().cloned().chain(planned).collect(),
            Override::DoNothing | Override::Fail => were.clone(),
        };
        for group in were.difference(&groups) {
            leave_group(t, group, &name)?;
        }
        Ok(Ok((groups, live)))
    }
}

/// Reads the names a plan consists of, and its policies.
pub(crate) fn read_names(plan: &Provision, limits: &PolicyLimits) -> Result<Names, FleetError> {
    things::check_attributes(&plan.thing.attributes)?;
    let groups = plan.thing.groups.iter().map(|group| group.parse());
    limits.check_attached("policies of one certificate", plan.policies.len())?;
    let mut named = Vec::with_capacity(plan.policies.len());
    for policy in &plan.policies {
        named.push(match policy {
            PolicyPlan::Named(name) => Policy::Named(policy_name(name)?),
            PolicyPlan::Document(document) => {
                limits.parse(document)?;
                let hash = digest::digest(&digest::SHA256, document.as_bytes());
                Policy::Document(
                    policy_name(&HEXLOWER.encode(hash.as_ref()))?,
                    document.clone(),
                )
            }
        });
    }
    Ok(Names {
        thing: plan.thing.name.parse()?,
        type_name: plan
            .thing
            .type_name
            .as_ref()
            .map(|name| name.parse())
            .transpose()?,
        groups: groups.collect::<Result<_, _>>()?,
        policies: named,
    })
}

fn policy_name(name: &str) -> Result<PolicyName, FleetError> {
    name.parse()
        .map_err(|error| FleetError::Invalid(format!("policy name: {error}")))
}
