//! A device as one object: thing, certificate, policy and groups come, change and go in one batch, so that a crash
//! leaves all of it or none.

use crate::{
    Attachment, Binding, CertificateRecord, CertificateStatus, EnrolmentWay, Fleet, FleetError,
    GroupName, Kind, Target, Thing, ThingName,
    attachments::{put_attachment, put_binding, require_policy},
    certificates::record_of,
    groups::{GROUPS_PER_THING_LIMIT_ITEMS, put_memberships},
    issued::put_issued,
    keys,
    registry::Transaction,
    things,
};
use ca::{CertificateId, Csr, Issued, KeyPair, RevocationReason};
use policy::PolicyName;
use std::{collections::BTreeMap, time::SystemTime};

/// Whose key the certificate is for.
#[derive(Debug, Clone, Copy)]
pub enum DeviceKey<'a> {
    /// A new key pair, handed out once and not kept.
    Generate,
    /// The key of a CSR (PEM or DER), whose private half stays on the device.
    Csr(&'a [u8]),
}

/// What a new device is to be.
#[derive(Debug, Clone)]
pub struct Enrolment<'a> {
    /// Its name and client id.
    pub thing: ThingName,
    /// The policies of its certificate; none means it may do nothing.
    pub policies: Vec<PolicyName>,
    /// The groups it joins.
    pub groups: Vec<GroupName>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Whose key.
    pub key: DeviceKey<'a>,
}

/// A device's new certificate.
#[derive(Debug)]
pub struct Enrolled {
    /// The thing.
    pub thing: ThingName,
    /// The certificate's record.
    pub certificate: CertificateRecord,
    /// The certificate with its chain.
    pub issued: Issued,
    /// The private key, where the server made it.
    pub key: Option<KeyPair>,
}

/// What was undone when a device was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decommissioned {
    /// Certificates that were revoked.
    pub revoked: Vec<CertificateId>,
}

impl Fleet {
    /// Enrols a new device in one batch.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`] for a known name; [`FleetError::NotFound`] for a policy or group;
    /// [`FleetError::Csr`], [`FleetError::Authority`].
    pub fn enrol(
        &self,
        enrolment: &Enrolment<'_>,
        now: SystemTime,
    ) -> Result<Enrolled, FleetError> {
        self.enrol_by(EnrolmentWay::Operator, enrolment, now, |_, _| Ok(()))
    }

    /// With something else to be done in the same batch.
    pub(crate) fn enrol_by(
        &self,
        way: EnrolmentWay,
        enrolment: &Enrolment<'_>,
        now: SystemTime,
        also: impl Fn(&mut Transaction<'_>, &CertificateId) -> Result<(), FleetError>,
    ) -> Result<Enrolled, FleetError> {
        things::check_attributes(&enrolment.attributes)?;
        let name = &enrolment.thing;
        within(
            "groups of one thing",
            enrolment.groups.len(),
            GROUPS_PER_THING_LIMIT_ITEMS,
        )?;
        let limits = self.policy_limits();
        limits.check_attached("policies of one certificate", enrolment.policies.len())?;
        let taken = || FleetError::AlreadyExists {
            kind: Kind::Thing,
            name: name.to_string(),
            hint: ": to give it a new certificate use `device replace`, to start over `device delete` it first",
        };
        // Looked at before the costly signature, and again inside the transaction.
        if self.read::<Thing>(&keys::thing(name))?.is_some() {
            return Err(taken());
        }
        let (issued, key) = self.mint_for(name, enrolment.key, now)?;
        let record = record_of(&issued, CertificateStatus::Active, way, now);
        let target = Target::Certificate(record.id);
        self.transact(|t| {
            if t.exists(&keys::thing(name))? {
                return Err(taken());
            }
            let thing = Thing {
                name: name.clone(),
                attributes: enrolment.attributes.clone(),
                type_name: None,
                version: 1,
                created: now,
            };
            things::put_thing(t, None, &thing)?;
            put_issued(t, &record)?;
            put_binding(t, name, Attachment::Exclusive, (&record.id, &record.pem))?;
            for policy in &enrolment.policies {
                require_policy(t, policy)?;
                put_attachment(t, policy, &target)?;
            }
            put_memberships(t, name, &enrolment.groups.iter().cloned().collect())?;
            also(t, &record.id)
        })?;
        Ok(Enrolled {
            thing: name.clone(),
            certificate: record,
            issued,
            key,
        })
    }

    /// A device that was enrolled with the key of this CSR already, and may still use it: the answer to a request that
    /// is made again because its first answer was lost.
    ///
    /// # Errors
    /// [`FleetError::Csr`]; when the store fails.
    pub fn enrolled_with(
        &self,
        thing: &ThingName,
        csr: &[u8],
    ) -> Result<Option<Enrolled>, FleetError> {
        let request = Csr::parse(csr)?;
        for id in self.all_names::<CertificateId>(&keys::principals(thing))? {
            let Some(record) = self.read::<CertificateRecord>(&keys::certificate(&id))? else {
                continue;
            };
            let Ok(der) = pem::parse(&record.pem) else {
                continue;
            };
            let key = ca::PublicKey::of_certificate(der.contents());
            if record.status != CertificateStatus::Active
                || !key.is_ok_and(|key| key == *request.public_key())
            {
                continue;
            }
            let authority = &self.inner.authority;
            let Some(issuer) = authority.issuer_of(der.contents()) else {
                continue;
            };
            let chain = authority.chain_pem_of(issuer).unwrap_or_default();
            let issued = Issued {
                chain_pem: format!("{}{chain}", record.pem),
                issuer,
                der: der.into_contents(),
                pem: record.pem.clone(),
                id,
                serial: record.serial.clone(),
                not_before: record.not_before,
                not_after: record.not_after,
            };
            return Ok(Some(Enrolled {
                thing: thing.clone(),
                certificate: record,
                issued,
                key: None,
            }));
        }
        Ok(None)
    }

    /// Gives a thing a new certificate with the policies of its active certificates, or of its newest where none is, and
    /// revokes all it had, in one batch: a swapped board keeps groups, jobs and history.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the thing; [`FleetError::Csr`], [`FleetError::Authority`].
    pub fn replace(
        &self,
        thing: &ThingName,
        key: DeviceKey<'_>,
        now: SystemTime,
    ) -> Result<Enrolled, FleetError> {
        self.replace_by(EnrolmentWay::Operator, thing, key, now, |_, _| Ok(()))
    }

    /// With something else to be done in the same batch.
    pub(crate) fn replace_by(
        &self,
        way: EnrolmentWay,
        thing: &ThingName,
        key: DeviceKey<'_>,
        now: SystemTime,
        also: impl Fn(&mut Transaction<'_>, &CertificateId) -> Result<(), FleetError>,
    ) -> Result<Enrolled, FleetError> {
        self.thing(thing)?;
        let (issued, key) = self.mint_for(thing, key, now)?;
        let record = record_of(&issued, CertificateStatus::Active, way, now);
        let target = Target::Certificate(record.id);
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let mut held = Vec::new();
            for old in self.all_names::<CertificateId>(&keys::principals(thing))? {
                let record: Option<CertificateRecord> = t.get(&keys::certificate(&old))?;
                held.extend(record.map(|record| (record.status, record.created, old)));
                self.change_status(
                    t,
                    &old,
                    CertificateStatus::Revoked,
                    RevocationReason::Superseded,
                    now,
                )?;
            }
            let mut policies = Vec::new();
            let mut attachment = Attachment::Exclusive;
            for certificate in worth_copying(held) {
                // Policies that were written for the one way may open more in the other.
                let bound: Option<Binding> = t.get(&keys::bound(&certificate))?;
                if let Some(Attachment::NonExclusive) = bound.map(|bound| bound.attachment) {
                    attachment = Attachment::NonExclusive;
                }
                policies.extend(self.attached_policies(&Target::Certificate(certificate))?);
            }
            policies.sort();
            policies.dedup();
            let limits = self.policy_limits();
            limits.check_attached("policies of one certificate", policies.len())?;
            put_issued(t, &record)?;
            put_binding(t, thing, attachment, (&record.id, &record.pem))?;
            for policy in &policies {
                put_attachment(t, policy, &target)?;
            }
            also(t, &record.id)
        })?;
        Ok(Enrolled {
            thing: thing.clone(),
            certificate: record,
            issued,
            key,
        })
    }

    /// Revokes every certificate of a thing. Its sessions have been told when this returns.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the thing; [`FleetError::Invalid`] when there is nothing left to revoke.
    pub fn revoke_device(
        &self,
        thing: &ThingName,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Result<Vec<CertificateId>, FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let mut revoked = Vec::new();
            for id in self.all_names::<CertificateId>(&keys::principals(thing))? {
                let record: Option<CertificateRecord> = t.get(&keys::certificate(&id))?;
                if record.is_some_and(|r| r.status != CertificateStatus::Revoked) {
                    self.change_status(t, &id, CertificateStatus::Revoked, reason, now)?;
                    revoked.push(id);
                }
            }
            // With it, who has it would be the device again.
            let password = self.forget_password(t, thing)?;
            if revoked.is_empty() && !password {
                return Err(FleetError::Invalid(format!(
                    "thing {thing} has no certificate that could be revoked: give it one with `device replace`"
                )));
            }
            Ok(revoked)
        })
    }

    /// Revokes a device's certificates and removes thing, certificates, attachments and memberships in one batch.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the thing.
    pub fn decommission(
        &self,
        thing: &ThingName,
        now: SystemTime,
    ) -> Result<Decommissioned, FleetError> {
        let mut revoked = Vec::new();
        // Two steps, each safe by itself: a crash between them leaves a revoked device that can be deleted again.
        match self.revoke_device(thing, RevocationReason::CessationOfOperation, now) {
            Ok(ids) => revoked = ids,
            Err(FleetError::Invalid(_)) => {}
            Err(other) => return Err(other),
        }
        self.transact_alone(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            for id in self.all_names::<CertificateId>(&keys::principals(thing))? {
                let policies = self.attached_policies(&Target::Certificate(id))?;
                self.remove_certificate(t, &id, Some(thing), &policies, now)?;
            }
            self.remove_thing(t, thing)
        })?;
        Ok(Decommissioned { revoked })
    }

    pub(crate) fn mint_for(
        &self,
        thing: &ThingName,
        key: DeviceKey<'_>,
        now: SystemTime,
    ) -> Result<(Issued, Option<KeyPair>), FleetError> {
        match key {
            DeviceKey::Generate => {
                let pair = KeyPair::generate()?;
                let issued = self.mint(thing.as_str(), pair.public(), now)?;
                Ok((issued, Some(pair)))
            }
            DeviceKey::Csr(bytes) => Ok((
                self.mint(thing.as_str(), Csr::parse(bytes)?.public_key(), now)?,
                None,
            )),
        }
    }
}

/// Those of a thing's certificates whose policies are what it may do: what was detached from the active ones is not to
/// come back from retired ones.
fn worth_copying(
    mut held: Vec<(CertificateStatus, SystemTime, CertificateId)>,
) -> Vec<CertificateId> {
    held.sort_by_key(|(_, created, _)| *created);
    let active = |(status, _, id): &(CertificateStatus, SystemTime, CertificateId)| {
        (*status == CertificateStatus::Active).then_some(*id)
    };
    let found: Vec<_> = held.iter().filter_map(active).collect();
    match (found.is_empty(), held.last()) {
        (true, Some((_, _, newest))) => vec![*newest],
        _ => found,
    }
}

fn within(what: &str, count: usize, limit: usize) -> Result<(), FleetError> {
    if count > limit {
        Err(FleetError::Limit {
            what: what.to_owned(),
            limit,
        })
    } else {
        Ok(())
    }
}
