//! Who holds what a device kept on the server under a certificate: its session with all that waits in it, its will, what
//! it left retained. Certificates come and go with every renewal; a device does not lose by that. What was revoked
//! leaves nothing to anybody, and what can be taken back is kept until it is.

use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, ThingName, authorities::vouches_until,
    issued::RevokedRow, keys, renewal::CHAIN_LIMIT_ITEMS,
};
use ca::{CertificateId, RevocationReason};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use store::Stored;

/// Who holds what belonged to a certificate's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    /// This certificate, which is active.
    Certificate(CertificateId),
    /// Nobody now: the device, or the authority that vouches for it, was deactivated, and may be activated again. It is
    /// kept, and nobody gets at it.
    Withheld,
    /// Nobody ever again.
    Nobody,
}

/// Where a deleted certificate's belongings went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HeirRow {
    id: CertificateId,
}

impl Stored for HeirRow {}

impl HeirRow {
    pub(crate) fn of(id: CertificateId) -> Self {
        HeirRow { id }
    }
}

impl Fleet {
    /// Who holds now what belonged to the device of a certificate: that certificate while it is active, the one it was
    /// renewed to, or another one of its thing. `thing` is whose it was as far as that is known from elsewhere, for a
    /// certificate that was detached or deleted meanwhile.
    ///
    /// # Errors
    /// When the store fails: then it is not known.
    pub fn heir(&self, id: &CertificateId, thing: Option<&ThingName>) -> Result<Heir, FleetError> {
        let mut id = *id;
        for _ in 0..CHAIN_LIMIT_ITEMS {
            let Some(record) = self.read::<CertificateRecord>(&keys::certificate(&id))? else {
                match self.read::<HeirRow>(&keys::heir(&id))? {
                    Some(row) => id = row.id,
                    None if self.was_revoked(&id)? => return Ok(Heir::Nobody),
                    None => return thing.map_or(Ok(Heir::Nobody), |thing| self.heir_of(thing)),
                }
                continue;
            };
            let revocation = record.revocation.as_ref();
            match (record.status, record.superseded_by) {
                (CertificateStatus::Active, _) => {
                    return Ok(match self.is_vouched(&record)? {
                        true => Heir::Certificate(id),
                        false => Heir::Withheld,
                    });
                }
                (CertificateStatus::Revoked, Some(_))
                    if revocation.is_some_and(|r| r.reason == RevocationReason::KeyCompromise) =>
                {
                    return Ok(Heir::Nobody);
                }
                // Revoked when it was out of use already: a matter of keeping house.
                (CertificateStatus::Inactive | CertificateStatus::Revoked, Some(next)) => id = next,
                (CertificateStatus::Revoked, None) => return Ok(Heir::Nobody),
                (CertificateStatus::Inactive | CertificateStatus::PendingActivation, _) => {
                    let bound = self.thing_of(&id)?;
                    let Some(thing) = bound.as_ref().or(thing) else {
                        return Ok(Heir::Withheld);
                    };
                    return Ok(match self.heir_of(thing)? {
                        found @ Heir::Certificate(_) => found,
                        Heir::Withheld | Heir::Nobody => Heir::Withheld,
                    });
                }
            }
        }
        Ok(Heir::Nobody)
    }

    /// The certificate of a thing that it has now, of one that it had and renewed; `None` where it has that one still, or lost
    /// it otherwise.
    ///
    /// # Errors
    /// When the store fails.
    pub fn carried_on_by(
        &self,
        id: &CertificateId,
        thing: &ThingName,
    ) -> Result<Option<CertificateId>, FleetError> {
        let record = self.read::<CertificateRecord>(&keys::certificate(id))?;
        if record.is_some_and(|record| record.superseded_by.is_none()) {
            return Ok(None);
        }
        let Heir::Certificate(next) = self.heir(id, None)? else {
            return Ok(None);
        };
        Ok((self.thing_of(&next)?.as_ref() == Some(thing)).then_some(next))
    }

    /// The certificate of a thing that is good now.
    fn heir_of(&self, thing: &ThingName) -> Result<Heir, FleetError> {
        let mut found = Heir::Nobody;
        for id in self.all_names::<CertificateId>(&keys::principals(thing))? {
            let Some(record) = self.read::<CertificateRecord>(&keys::certificate(&id))? else {
                continue;
            };
            match record.status {
                CertificateStatus::Active if self.is_vouched(&record)? => {
                    return Ok(Heir::Certificate(id));
                }
                CertificateStatus::Revoked => {}
                CertificateStatus::Active
                | CertificateStatus::Inactive
                | CertificateStatus::PendingActivation => found = Heir::Withheld,
            }
        }
        Ok(found)
    }

    /// Whether a certificate whose record is gone was revoked before.
    fn was_revoked(&self, id: &CertificateId) -> Result<bool, FleetError> {
        let listed: Option<RevokedRow> = self.read(&keys::revoked(id))?;
        Ok(listed.is_some_and(|row| row.was_said())
            || self
                .read::<RevokedRow>(&keys::revoked_elsewhere(id))?
                .is_some())
    }

    /// Whether the registered authority that an active certificate depends on, if any, vouches for it.
    fn is_vouched(&self, record: &CertificateRecord) -> Result<bool, FleetError> {
        Ok(self
            .vouched_until(record)?
            .is_none_or(|until| until.is_some()))
    }

    /// Until when the registered authority that a certificate depends on vouches for it: `Some(None)` where it does not,
    /// `None` where it depends on none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn vouched_until(
        &self,
        record: &CertificateRecord,
    ) -> Result<Option<Option<SystemTime>>, FleetError> {
        let authority = record.vouching_authority();
        let until = authority.map(|id| vouches_until(&self.inner.table, &id));
        Ok(until.transpose()?)
    }
}
