//! Renewal: a thing's certificate is followed by another with the same name and policies. Both are good until the new
//! one has been used; then the old one is retired. A device that lost the answer renews again with the old one.

use crate::{
    CertificateRecord, CertificateStatus, DeviceKey, Enrolled, EnrolmentWay, Fleet, FleetError,
    Kind, Target, ThingName,
    attachments::{put_attachment, put_binding},
    certificates::record_of,
    issued::put_issued,
    keys,
    registry::Transaction,
};
use ca::{CertificateId, RevocationReason};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use store::Stored;

/// The other certificate of an overlap.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct OtherRow {
    id: CertificateId,
}

impl Stored for OtherRow {}

impl Fleet {
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
        let thing: ThingName = self.read(&keys::bound(current))?.ok_or_else(|| {
            FleetError::not_found(Kind::Thing, format!("of certificate {current}"))
        })?;
        let (issued, key) = self.mint_for(&thing, key, now)?;
        let record = CertificateRecord {
            way: self.certificate(current)?.way,
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
            if t.get::<ThingName>(&keys::bound(current))?.as_ref() != Some(&thing) {
                return Err(FleetError::not_found(
                    Kind::Thing,
                    format!("{thing} of certificate {current}"),
                ));
            }
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
            put_binding(t, &thing, (&record.id, &record.pem))?;
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

/// The one before becomes inactive, not revoked: nobody but its own device held it, and lists would grow with every
/// renewal.
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
    if let Some(mut record) = record
        && record.status == CertificateStatus::Active
    {
        record.status = CertificateStatus::Inactive;
        record.modified = now;
        record.version += 1;
        t.put(keys::certificate(&old.id), &record)?;
    }
    Ok(())
}
