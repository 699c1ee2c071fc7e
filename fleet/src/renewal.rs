//! Renewal: a thing's certificate is followed by another with the same name and policies. Both are good until the new
//! one has been used; then the old one is retired. A device that lost the answer renews again with the old one.

use crate::{
    Binding, CertificateRecord, CertificateStatus, DeviceKey, Enrolled, EnrolmentWay, Fleet,
    FleetError, Kind, Target, ThingName,
    attachments::{put_attachment, put_binding},
    attestation::follow_renewal,
    authorities::put_vouched,
    certificates::record_of,
    deeds::Fact,
    issued::{follow_state, put_issued},
    keys,
    registry::Transaction,
};
use ca::{CertificateId, RevocationReason};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use store::Stored;

/// The other certificate of an overlap.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OtherRow {
    id: CertificateId,
}

impl Stored for OtherRow {}

/// Longest chain of renewals that is followed at once.
pub(crate) const CHAIN_LIMIT_ITEMS: usize = 4096;

/// Most certificates that one thing is given within a day, or within the life of one where that is shorter: each leaves a
/// serial number behind, and one that was never used a place on a revocation list.
const RENEWALS_LIMIT_ITEMS: usize = 30;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates of one thing from which on those that are out of use make room: more than it is given within a day.
const KEPT_ITEMS: usize = 2 * RENEWALS_LIMIT_ITEMS;

impl Fleet {
    /// The certificates that were obtained with a certificate's key, and are to go with it: the successor that nobody
    /// has used yet, and where `all` is asked for those that took its place one after the other.
    pub(crate) fn obtained_with(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
        all: bool,
    ) -> Result<Vec<CertificateId>, FleetError> {
        let (mut found, mut last) = (Vec::new(), *id);
        while all && found.len() < CHAIN_LIMIT_ITEMS {
            let record: Option<CertificateRecord> = t.get(&keys::certificate(&last))?;
            let Some(next) = record.and_then(|record| record.superseded_by) else {
                break;
            };
            found.push(next);
            last = next;
        }
        let unused: Option<OtherRow> = t.get(&keys::successor(&last))?;
        found.extend(unused.map(|row| row.id));
        Ok(found)
    }

    /// Gives the thing of an active certificate another one, for the device that holds the first one's key. A
    /// successor that was handed out before and never used is revoked: its device never got it, or someone else did.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] and [`FleetError::CertificateState`] for a certificate that is not active or belongs
    /// to no thing; [`FleetError::Csr`], [`FleetError::Authority`].
    pub fn renew(
        &self,
        current: &CertificateId,
        key: DeviceKey<'_>,
        now: SystemTime,
    ) -> Result<Enrolled, FleetError> {
        let thing = self.thing_of(current)?.ok_or_else(|| {
            FleetError::not_found(Kind::Thing, format!("of certificate {current}"))
        })?;
        let before = self.certificate(current)?;
        self.make_room(&thing, &before, now)?;
        let (issued, key) = self.mint_for(&thing, key, now)?;
        let record = CertificateRecord {
            way: before.way,
            sponsor: before.vouching_authority(),
            ..record_of(
                &issued,
                CertificateStatus::Active,
                EnrolmentWay::Operator,
                now,
            )
        };
        let target = Target::Certificate(record.id);
        self.transact(|t| {
            require_active(t, current)?;
            let bound: Option<Binding> = t.get(&keys::bound(current))?;
            let Some(bound) = bound.filter(|bound| bound.thing == thing) else {
                return Err(FleetError::not_found(
                    Kind::Thing,
                    format!("{thing} of certificate {current}"),
                ));
            };
            retire_predecessor(t, current, now)?;
            if let Some(unused) = t.get::<OtherRow>(&keys::successor(current))? {
                t.delete(keys::predecessor(&unused.id));
                if t.exists(&keys::certificate(&unused.id))? {
                    self.change_status(
                        t,
                        &unused.id,
                        CertificateStatus::Revoked,
                        RevocationReason::Superseded,
                        now,
                    )?;
                }
            }
            put_issued(t, &record)?;
            put_vouched(t, &record)?;
            put_binding(t, &thing, bound.attachment, (&record.id, &record.pem))?;
            follow_renewal(t, &thing, &before, &record)?;
            for policy in self.attached_policies(&Target::Certificate(*current))? {
                put_attachment(t, &policy, &target)?;
            }
            t.put(keys::successor(current), &OtherRow { id: record.id })?;
            t.put(keys::predecessor(&record.id), &OtherRow { id: *current })
        })?;
        Ok(Enrolled {
            thing,
            certificate: record,
            issued,
            key,
        })
    }

    /// Refuses who renews for the sake of it, and forgets the oldest of a thing's certificates that are out of use.
    fn make_room(
        &self,
        thing: &ThingName,
        current: &CertificateRecord,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        let mut held = Vec::new();
        for id in self.all_names::<CertificateId>(&keys::principals(thing))? {
            held.extend(self.read::<CertificateRecord>(&keys::certificate(&id))?);
        }
        let life = current.not_after.duration_since(current.not_before);
        let span = life.unwrap_or(DAY).min(DAY);
        let recent = |record: &&CertificateRecord| {
            now.duration_since(record.created).unwrap_or_default() < span
        };
        if held.iter().filter(recent).count() >= RENEWALS_LIMIT_ITEMS {
            return Err(FleetError::Limit {
                what: format!(
                    "certificates given to thing {thing} within {} s: let it renew later, and see why it renews so often",
                    span.as_secs()
                ),
                limit: RENEWALS_LIMIT_ITEMS,
            });
        }
        if held.len() < KEPT_ITEMS {
            return Ok(());
        }
        held.retain(|record| record.status != CertificateStatus::Active);
        held.sort_by_key(|record| record.created);
        held.truncate(KEPT_ITEMS / 2);
        for old in held {
            self.transact_alone(|t| {
                let record: Option<CertificateRecord> = t.get(&keys::certificate(&old.id))?;
                if record.is_none_or(|record| record.status == CertificateStatus::Active) {
                    return Ok(());
                }
                let policies = self.attached_policies(&Target::Certificate(old.id))?;
                self.remove_certificate(t, &old.id, Some(thing), &policies, now)
            })?;
        }
        Ok(())
    }

    /// Says that a device has used this certificate: the one before it, if there is one, is retired. Its live sessions
    /// have been told when this returns. For any other certificate it is one read.
    ///
    /// # Errors
    /// When the store fails.
    pub fn renewed(&self, used: &CertificateId, now: SystemTime) -> Result<(), FleetError> {
        if self.read::<OtherRow>(&keys::predecessor(used))?.is_none() {
            return Ok(());
        }
        self.transact(|t| retire_predecessor(t, used, now))
    }
}

fn require_active(t: &mut Transaction<'_>, id: &CertificateId) -> Result<(), FleetError> {
    let record: CertificateRecord = t
        .get(&keys::certificate(id))?
        .ok_or_else(|| FleetError::not_found(Kind::Certificate, id))?;
    if record.status == CertificateStatus::Active {
        return Ok(());
    }
    Err(FleetError::CertificateState {
        id: *id,
        status: record.status,
        reason: "only an active certificate is renewed",
    })
}

/// The one before becomes inactive, not revoked: nobody but its own device held it, and an operator may want it back.
fn retire_predecessor(
    t: &mut Transaction<'_>,
    used: &CertificateId,
    now: SystemTime,
) -> Result<(), FleetError> {
    let Some(old) = t.get::<OtherRow>(&keys::predecessor(used))? else {
        return Ok(());
    };
    t.delete(keys::predecessor(used));
    t.delete(keys::successor(&old.id));
    let record: Option<CertificateRecord> = t.get(&keys::certificate(&old.id))?;
    if let Some(mut record) = record {
        record.superseded_by = Some(*used);
        if record.status == CertificateStatus::Active {
            record.status = CertificateStatus::Inactive;
            record.modified = now;
            follow_state(t, &record)?;
            t.note(Fact::turned(&record, now));
        }
        record.version += 1;
        t.put(keys::certificate(&old.id), &record)?;
    }
    Ok(())
}
