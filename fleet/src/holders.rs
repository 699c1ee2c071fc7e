//! Which thing a key belongs to: a key is one device's alone, and one that others may have is nobody's any more.

use crate::{
    Binding, CertificateRecord, CertificateStatus, Fleet, FleetError, LIST_LIMIT_ITEMS, ThingName,
    issued::RevokedRow, keys, records::Present, registry::Transaction, taken,
};
use ca::{CertificateId, RevocationReason};
use serde::{Deserialize, Serialize};
use store::{Expect, Stored, Write};

/// The last certificate over a key that was given to a thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct HolderRow {
    thing: ThingName,
    certificate: CertificateId,
}

impl Stored for HolderRow {}

/// Gives the key of a certificate to a thing. The same thing may have its key certified again.
///
/// # Errors
/// [`FleetError::Key`] while another thing holds it, or somebody who is no device, and for ever when a certificate over it was revoked because
/// someone else may have it.
pub(crate) fn hold(
    t: &mut Transaction<'_>,
    thing: &ThingName,
    id: &CertificateId,
    pem: &str,
) -> Result<(), FleetError> {
    let key_id = ca::key_id(pem)?;
    taken::refuse(t, &key_id)?;
    let key = keys::key(&key_id);
    // Whichever of the certificates over it somebody else has, be it an older one.
    for other in t.names::<CertificateId>(&keys::certified(&key_id))? {
        let holder: Option<Binding> = t.current(&keys::bound(&other))?;
        if other != *id && holder.is_some_and(|holder| holder.thing != *thing) {
            return Err(FleetError::Key("another thing has it"));
        }
    }
    if let Some(before) = t.get::<HolderRow>(&key)?
        && before.certificate != *id
    {
        let revoked: [Option<RevokedRow>; 2] = [
            t.get(&keys::revoked(&before.certificate))?,
            t.get(&keys::revoked_elsewhere(&before.certificate))?,
        ];
        let mut revoked = revoked.into_iter().flatten();
        if revoked.any(|row| row.reason == RevocationReason::KeyCompromise) {
            return Err(FleetError::Key(
                "a certificate over it was revoked because someone else may have it",
            ));
        }
        let holder: Option<Binding> = t.get(&keys::bound(&before.certificate))?;
        if holder.is_some_and(|holder| holder.thing != *thing) {
            return Err(FleetError::Key("another thing has it"));
        }
    }
    let row = HolderRow {
        thing: thing.clone(),
        certificate: *id,
    };
    t.put(key, &row)
}

/// Says that a certificate is over this key, whoever it is to belong to.
pub(crate) fn certify(
    t: &mut Transaction<'_>,
    id: &CertificateId,
    pem: &str,
) -> Result<(), FleetError> {
    let key = ca::key_id(pem)?;
    taken::refuse_compromised(t, &key)?;
    t.put(format!("{}{id}", keys::certified(&key)), &Present)
}

/// Before a certificate's row goes.
pub(crate) fn forget(
    t: &mut Transaction<'_>,
    id: &CertificateId,
    pem: &str,
) -> Result<(), FleetError> {
    let key = ca::key_id(pem)?;
    t.delete(format!("{}{id}", keys::certified(&key)));
    Ok(())
}

impl Fleet {
    /// Whether there is a certificate over a key that is ACTIVE or INACTIVE and no claim's: it is a device's, or may become one.
    pub(crate) fn key_is_certified(&self, key: &str) -> Result<bool, FleetError> {
        for id in self.all_names::<CertificateId>(&keys::certified(key))? {
            let record: Option<CertificateRecord> = self.read(&keys::certificate(&id))?;
            // What only waits to be registered has to ask for its key again then.
            let lives = record.is_some_and(|record| match record.status {
                CertificateStatus::Active | CertificateStatus::Inactive => true,
                CertificateStatus::PendingActivation | CertificateStatus::Revoked => false,
            });
            if lives && !self.is_claim(&id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Once, for a registry of before keys were looked up.
pub(crate) fn index(fleet: &Fleet) -> Result<(), FleetError> {
    if fleet.read::<Present>(keys::KEYS_INDEXED)?.is_some() {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = fleet.certificates(after.as_deref(), LIST_LIMIT_ITEMS)?;
        let mut rows = Vec::with_capacity(page.items.len());
        for record in page.items {
            let Some(thing) = fleet.thing_of(&record.id)? else {
                continue;
            };
            let row = HolderRow {
                thing,
                certificate: record.id,
            };
            let key = keys::key(&ca::key_id(&record.pem)?);
            rows.push(Write::put(key, &row, Expect::Any)?);
        }
        if !rows.is_empty() {
            fleet.inner.table.batch(&rows)?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    fleet.transact(|t| t.put(keys::KEYS_INDEXED.to_owned(), &Present))
}
