//! Certificates: register, read, list, change state, delete. A certificate of our own whose row is deleted stands on the
//! revocation list until it would have expired, whether or not it was revoked before.

use crate::{
    Binding, CertificateRecord, CertificateStatus, EnrolmentWay, Fleet, FleetError, Kind, Origin,
    Page, Revocation, Target, ThingName,
    attachments::unbind,
    authorities::forget_vouched,
    deeds::Fact,
    heir::HeirRow,
    holders,
    issued::{RevokedRow, follow_state, outlive, put_issued, put_revoked},
    keys,
    registry::Transaction,
    taken,
};
use ca::{CertificateId, Csr, Issued, KeyPair, Profile, RevocationReason, Subject};
use std::{collections::BTreeSet, time::SystemTime};

/// What a certificate is named that was minted before it belongs to a thing (AWS: `AWS IoT Certificate`).
const UNBOUND_COMMON_NAME: &str = "Muster IoT Certificate";

impl Fleet {
    /// Mints and registers a certificate for the key of a CSR; it belongs to no thing yet.
    ///
    /// # Errors
    /// [`FleetError::Csr`] when the CSR is refused, [`FleetError::Authority`] when signing fails.
    pub fn create_certificate_from_csr(
        &self,
        csr: &[u8],
        active: bool,
        now: SystemTime,
    ) -> Result<(CertificateRecord, Issued), FleetError> {
        let csr = Csr::parse(csr)?;
        let issued = self.mint(UNBOUND_COMMON_NAME, csr.public_key(), now)?;
        let record = self.register(&issued, active, now)?;
        Ok((record, issued))
    }

    /// Makes a key pair, mints and registers a certificate for it; it belongs to no thing yet. The key is not kept.
    ///
    /// # Errors
    /// [`FleetError::Authority`] when signing fails.
    pub fn create_keys_and_certificate(
        &self,
        active: bool,
        now: SystemTime,
    ) -> Result<(CertificateRecord, Issued, KeyPair), FleetError> {
        let key = KeyPair::generate()?;
        let issued = self.mint(UNBOUND_COMMON_NAME, key.public(), now)?;
        let record = self.register(&issued, active, now)?;
        Ok((record, issued, key))
    }

    /// Mints a certificate for a device whose thing is not known yet.
    pub(crate) fn mint_unbound(
        &self,
        key: &ca::PublicKey,
        now: SystemTime,
    ) -> Result<Issued, FleetError> {
        self.mint(UNBOUND_COMMON_NAME, key, now)
    }

    pub(crate) fn mint(
        &self,
        common_name: &str,
        key: &ca::PublicKey,
        now: SystemTime,
    ) -> Result<Issued, FleetError> {
        self.refuse_taken(key)?;
        let subject = Subject {
            common_name: common_name.to_owned(),
            names: Vec::new(),
        };
        Ok(self
            .inner
            .authority
            .issue(Profile::Device, &subject, key, now)?)
    }

    fn register(
        &self,
        issued: &Issued,
        active: bool,
        now: SystemTime,
    ) -> Result<CertificateRecord, FleetError> {
        let status = if active {
            CertificateStatus::Active
        } else {
            CertificateStatus::Inactive
        };
        let record = record_of(issued, status, EnrolmentWay::Operator, now);
        self.transact(|t| {
            t.get::<CertificateRecord>(&keys::certificate(&record.id))?;
            put_issued(t, &record)
        })?;
        Ok(record)
    }

    /// Reads a certificate's record.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn certificate(&self, id: &CertificateId) -> Result<CertificateRecord, FleetError> {
        self.read(&keys::certificate(id))?
            .ok_or_else(|| FleetError::not_found(Kind::Certificate, id))
    }

    /// Certificates in order of id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn certificates(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<CertificateRecord>, FleetError> {
        self.page_of_values(keys::CERTIFICATE, after, limit)
    }

    /// Changes a certificate's state. Live sessions that lose by it have been told when this returns.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::CertificateState`] for a revoked one, which stays revoked, and for
    /// `PENDING_ACTIVATION`, which only enrolment sets.
    pub fn set_certificate_status(
        &self,
        id: &CertificateId,
        status: CertificateStatus,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.transact(|t| self.change_status(t, id, status, reason, now))
    }

    /// As [`Self::set_certificate_status`]. Whoever had the key may have renewed: what was obtained with it goes with it,
    /// a successor that was not used yet with whatever ends, and all that followed it where the key was compromised.
    pub(crate) fn change_status(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
        status: CertificateStatus,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.change_one(t, id, status, reason, now)?;
        let revoked = status == CertificateStatus::Revoked;
        if !revoked && status != CertificateStatus::Inactive {
            return Ok(());
        }
        let compromised = revoked && reason == RevocationReason::KeyCompromise;
        let mut with_it: BTreeSet<CertificateId> = self
            .obtained_with(t, id, compromised)?
            .into_iter()
            .collect();
        if compromised {
            with_it.extend(self.over_the_key_of(t, id)?);
        }
        for other in with_it {
            let record: Option<CertificateRecord> = t.current(&keys::certificate(&other))?;
            let ends = record.is_some_and(|record| match record.status {
                CertificateStatus::Active | CertificateStatus::PendingActivation => true,
                CertificateStatus::Inactive => revoked,
                CertificateStatus::Revoked => false,
            });
            if ends {
                self.change_one(t, &other, status, reason, now)?;
            }
        }
        Ok(())
    }

    /// Says that the key of a certificate is in other hands, and which other certificates are over it.
    fn over_the_key_of(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
    ) -> Result<BTreeSet<CertificateId>, FleetError> {
        let Some(record) = t.current::<CertificateRecord>(&keys::certificate(id))? else {
            return Ok(BTreeSet::new());
        };
        let key = ca::key_id(&record.pem)?;
        taken::compromise(t, &key)?;
        // Whoever gives it to a thing meanwhile writes this row: one of the two is tried again.
        t.exists(&keys::key(&key))?;
        let mut over = t.names(&keys::certified(&key))?;
        over.remove(id);
        Ok(over)
    }

    fn change_one(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
        status: CertificateStatus,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        let key = keys::certificate(id);
        let mut record: CertificateRecord = t
            .get(&key)?
            .ok_or_else(|| FleetError::not_found(Kind::Certificate, id))?;
        let refuse = |why| {
            Err(FleetError::CertificateState {
                id: *id,
                status: record.status,
                reason: why,
            })
        };
        let ends = match status {
            CertificateStatus::Inactive => true,
            CertificateStatus::Revoked => reason != RevocationReason::Superseded,
            CertificateStatus::Active | CertificateStatus::PendingActivation => false,
        };
        if ends {
            // With it the device would let itself in again, also one that is out already.
            self.forget_password_of(t, id)?;
        }
        match (record.status, status) {
            (CertificateStatus::Revoked, CertificateStatus::Revoked)
                if turns_out_compromised(&record, reason) => {}
            (from, to) if from == to => return Ok(()),
            (CertificateStatus::Revoked, _) => {
                return refuse("a revoked certificate stays revoked; make a new one");
            }
            (_, CertificateStatus::PendingActivation) => {
                return refuse("only enrolment makes one pending");
            }
            _ => {}
        }
        if status == CertificateStatus::Revoked && reason == RevocationReason::CertificateHold {
            return Err(FleetError::Invalid(
                "reason certificateHold: what is revoked stays revoked; to hold a certificate back for now, deactivate it (INACTIVE)"
                    .into(),
            ));
        }
        record.status = status;
        record.modified = now;
        record.version += 1;
        if status == CertificateStatus::Active {
            record.superseded_by = None;
        }
        if status == CertificateStatus::Revoked {
            // Found out later, it was revoked when it was.
            let at = record.revocation.as_ref().map_or(now, |found| found.at);
            record.revocation = Some(Revocation { at, reason });
            let row = RevokedRow::new(&record.serial, record.not_after, reason, at);
            match record.origin {
                Origin::Own => put_revoked(t, id, &row)?,
                // Its serial number is another authority's, and may be one of ours too.
                Origin::Authority(_) | Origin::Alone => t.put(keys::revoked_elsewhere(id), &row)?,
            }
        } else {
            follow_state(t, &record)?;
        }
        t.note(Fact::turned(&record, now));
        t.put(key, &record)
    }

    /// Deletes a certificate that is not active. One of our own stands on the revocation list from then on, until it would
    /// have expired: as revoked for the reason it was revoked for, or because it is out of operation.
    ///
    /// # Errors
    /// [`FleetError::CertificateState`] while active; [`FleetError::DeleteConflict`] while a thing or policy is
    /// attached and `force` is off (with it they are detached in the same step).
    pub fn delete_certificate(
        &self,
        id: &CertificateId,
        force: bool,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            let record: CertificateRecord = t
                .get(&keys::certificate(id))?
                .ok_or_else(|| FleetError::not_found(Kind::Certificate, id))?;
            if record.status == CertificateStatus::Active {
                return Err(FleetError::CertificateState {
                    id: *id,
                    status: record.status,
                    reason: "deactivate or revoke it before it is deleted",
                });
            }
            let bound: Option<Binding> = t.get(&keys::bound(id))?;
            let thing = bound.map(|bound| bound.thing);
            let policies = self.attached_policies(&Target::Certificate(*id))?;
            if !force
                && let Some(what) = thing
                    .as_ref()
                    .map(|n| format!("thing {n}"))
                    .or_else(|| policies.first().map(|p| format!("policy {p}")))
            {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Certificate,
                    name: id.to_string(),
                    reason: format!("{what} is attached; detach it first or delete with force"),
                });
            }
            self.remove_certificate(t, id, thing.as_ref(), &policies, now)
        })
    }

    /// Removes a certificate's row and attachments within a transaction that runs alone.
    pub(crate) fn remove_certificate(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
        thing: Option<&ThingName>,
        policies: &[policy::PolicyName],
        now: SystemTime,
    ) -> Result<(), FleetError> {
        if let Some(thing) = thing {
            unbind(t, thing, id)?;
        }
        let target = Target::Certificate(*id);
        for name in policies {
            t.delete(format!("{}{name}", keys::attached(&target)));
            t.delete(format!("{}{target}", keys::targets(name)));
        }
        if let Some(record) = &t.get::<CertificateRecord>(&keys::certificate(id))? {
            t.note(Fact::went(record, now));
            forget_vouched(t, record);
            holders::forget(t, id, &record.pem)?;
            if let Some(heir) = &record.superseded_by
                && record.status == CertificateStatus::Inactive
            {
                t.put(keys::heir(id), &HeirRow::of(*heir))?;
            }
            if record.origin == Origin::Own {
                outlive(t, record, now)?;
            }
        }
        t.delete(keys::claim(id));
        t.delete(keys::claim_use(id));
        for place in t.names::<String>(&keys::wasted_of(id))? {
            t.delete(format!("{}{place}", keys::wasted_of(id)));
        }
        t.delete(keys::certificate(id));
        Ok(())
    }
}

pub(crate) fn record_of(
    issued: &Issued,
    status: CertificateStatus,
    way: EnrolmentWay,
    now: SystemTime,
) -> CertificateRecord {
    CertificateRecord {
        id: issued.id,
        pem: issued.pem.clone(),
        serial: issued.serial.clone(),
        status,
        not_before: issued.not_before,
        not_after: issued.not_after,
        created: now,
        modified: now,
        revocation: None,
        version: 1,
        origin: Origin::Own,
        way: Some(way),
        superseded_by: None,
        sponsor: None,
    }
}

/// Whether a certificate that was revoked for another reason is found to have had its key in other hands: the one reason that
/// is learned later, and after which the key is nobody's.
pub(crate) fn turns_out_compromised(record: &CertificateRecord, reason: RevocationReason) -> bool {
    let compromised = RevocationReason::KeyCompromise;
    let known = record.revocation.as_ref().map(|found| found.reason);
    reason == compromised && known != Some(compromised)
}
