//! What our own authority has signed, by serial number: the question of revocation lists and OCSP. They say of every
//! certificate what the registry says: one that is INACTIVE is on hold (RFC 5280 §5.3.1) until it is ACTIVE again, be it
//! that an operator has put it there or a renewal has. A certificate whose row is deleted before its end stands on the
//! list from then on: nobody here knows it, and nobody else is to believe it.

use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, KeyOwner, LIST_LIMIT_ITEMS, Origin,
    deeds::Fact, holders, keys, records::Present, registry::Transaction,
};
use ca::{
    CertificateId, CertificateState, CrlShard, IssuerNumber, RevocationReason, RevokedEntry, Serial,
};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use store::{Expect, Stored, Write};

/// Which certificate has a serial number, and who issued it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SerialRow {
    id: CertificateId,
    #[serde(default)]
    issuer: IssuerNumber,
}

/// A certificate that is no device's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IssuedRow {
    serial: Serial,
    not_after: SystemTime,
}

/// A row of the revocation list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RevokedRow {
    pub(crate) serial: Serial,
    #[serde(default)]
    pub(crate) issuer: IssuerNumber,
    at: SystemTime,
    pub(crate) reason: RevocationReason,
    pub(crate) not_after: SystemTime,
    /// It was not revoked by anybody: its row was deleted.
    #[serde(default)]
    deleted: bool,
}

impl Stored for SerialRow {}
impl Stored for IssuedRow {}
impl Stored for RevokedRow {}

impl RevokedRow {
    pub(crate) fn new(
        serial: &Serial,
        not_after: SystemTime,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Self {
        RevokedRow {
            serial: serial.clone(),
            // Set when it is put on its list.
            issuer: IssuerNumber::FIRST,
            at: now,
            reason,
            not_after,
            deleted: false,
        }
    }

    /// Of a certificate that is INACTIVE, since it is.
    fn held(record: &CertificateRecord, issuer: IssuerNumber) -> Self {
        let hold = RevocationReason::CertificateHold;
        RevokedRow {
            issuer,
            ..RevokedRow::new(&record.serial, record.not_after, hold, record.modified)
        }
    }

    /// Whether somebody revoked it, while it was known here.
    pub(crate) fn was_said(&self) -> bool {
        !self.deleted
    }

    fn entry(self) -> RevokedEntry {
        RevokedEntry {
            serial: self.serial,
            revoked_at: self.at,
            reason: self.reason,
        }
    }
}

/// Puts a certificate that our own authority has just signed, and the way to it by its serial number.
pub(crate) fn put_issued(
    t: &mut Transaction<'_>,
    record: &CertificateRecord,
) -> Result<(), FleetError> {
    let row = SerialRow {
        id: record.id,
        issuer: t.issuer_of(&record.pem)?,
    };
    t.put(keys::serial(&record.serial), &row)?;
    if record.status == CertificateStatus::Inactive {
        put_listed(t, &record.id, &RevokedRow::held(record, row.issuer))?;
    }
    holders::certify(t, &record.id, &record.pem)?;
    t.note(Fact::came(record));
    t.put_new(keys::certificate(&record.id), record)
}

/// Has the lists say what has become of a certificate's state, unless it was revoked, which says more than the record does.
pub(crate) fn follow_state(
    t: &mut Transaction<'_>,
    record: &CertificateRecord,
) -> Result<(), FleetError> {
    if record.origin != Origin::Own {
        return Ok(());
    }
    match record.status {
        CertificateStatus::Inactive => put_revoked(
            t,
            &record.id,
            &RevokedRow::held(record, IssuerNumber::FIRST),
        ),
        CertificateStatus::Active if t.exists(&keys::revoked(&record.id))? => {
            t.delete(keys::revoked(&record.id));
            t.delete(listed(&record.serial));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Puts a certificate on the revocation list that speaks of it.
pub(crate) fn put_revoked(
    t: &mut Transaction<'_>,
    id: &CertificateId,
    row: &RevokedRow,
) -> Result<(), FleetError> {
    let serial: Option<SerialRow> = t.get(&keys::serial(&row.serial))?;
    let row = RevokedRow {
        issuer: serial.map_or(IssuerNumber::FIRST, |row| row.issuer),
        ..row.clone()
    };
    put_listed(t, id, &row)
}

fn put_listed(
    t: &mut Transaction<'_>,
    id: &CertificateId,
    row: &RevokedRow,
) -> Result<(), FleetError> {
    t.put(keys::revoked(id), row)?;
    t.put(listed(&row.serial), row)
}

/// Before the row of a certificate of our own goes: one that would be good for longer is listed, or was on hold, is listed
/// for good, an ended one's serial number is forgotten, and of a revoked one nothing changes.
pub(crate) fn outlive(
    t: &mut Transaction<'_>,
    record: &CertificateRecord,
    now: SystemTime,
) -> Result<(), FleetError> {
    let is_listed = t.exists(&keys::revoked(&record.id))?;
    if is_listed && record.status == CertificateStatus::Revoked {
        return Ok(());
    }
    if record.not_after < now && !is_listed {
        t.delete(keys::serial(&record.serial));
        return Ok(());
    }
    let reason = RevocationReason::CessationOfOperation;
    let row = RevokedRow {
        deleted: true,
        ..RevokedRow::new(&record.serial, record.not_after, reason, now)
    };
    put_revoked(t, &record.id, &row)
}

/// Takes an entry off its lists whose certificate has ended; `false` where it is another by now, or was taken off before. The
/// serial number is forgotten with it unless the certificate is still known. That a key was compromised stays known.
pub(crate) fn forget(
    t: &mut Transaction<'_>,
    id: &CertificateId,
    row: &RevokedRow,
) -> Result<bool, FleetError> {
    let Some(now) = t.get::<RevokedRow>(&keys::revoked(id))? else {
        return Ok(false);
    };
    let stays = now.reason == RevocationReason::KeyCompromise;
    if now.not_after != row.not_after || stays && !t.exists(&listed(&now.serial))? {
        return Ok(false);
    }
    t.delete(listed(&now.serial));
    if !stays {
        t.delete(keys::revoked(id));
    }
    if !t.exists(&keys::certificate(id))? {
        t.delete(keys::serial(&now.serial));
        t.delete(keys::issued(id));
    }
    Ok(true)
}

fn listed(serial: &Serial) -> String {
    format!("{}{serial}", keys::listed(serial.last_octet()))
}

impl Fleet {
    /// Remembers a certificate that our own authority signed and that is no device's (a server's, an operator's), so
    /// that OCSP knows it. Doing so again changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_issued(
        &self,
        id: &CertificateId,
        issuer: IssuerNumber,
        serial: &Serial,
        not_after: SystemTime,
    ) -> Result<(), FleetError> {
        let row = IssuedRow {
            serial: serial.clone(),
            not_after,
        };
        self.transact(|t| {
            if t.get::<IssuedRow>(&keys::issued(id))?.as_ref() == Some(&row) {
                return Ok(());
            }
            t.note(Fact::came_apart(*id, serial.to_string()));
            t.put(keys::serial(serial), &SerialRow { id: *id, issuer })?;
            t.put(keys::issued(id), &row)
        })
    }

    /// Revokes a certificate that is no device's; `false` for one that was never noted here.
    ///
    /// # Errors
    /// When the store fails.
    pub fn revoke_issued(
        &self,
        id: &CertificateId,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Result<bool, FleetError> {
        self.transact(|t| {
            let Some(row) = t.get::<IssuedRow>(&keys::issued(id))? else {
                return Ok(false);
            };
            if !t.exists(&keys::revoked(id))? {
                let serial = row.serial.to_string();
                t.note(Fact::revoked_apart(*id, serial, reason, now));
                let row = RevokedRow::new(&row.serial, row.not_after, reason, now);
                put_revoked(t, id, &row)?;
            }
            Ok(true)
        })
    }

    /// What became of a serial number of our own authority.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state_of(&self, serial: &Serial) -> Result<CertificateState, FleetError> {
        self.state_by(None, serial)
    }

    /// The same, of one issuer's certificates: what another has issued is unknown.
    pub(crate) fn state_by(
        &self,
        asked: Option<IssuerNumber>,
        serial: &Serial,
    ) -> Result<CertificateState, FleetError> {
        let Some(SerialRow { id, issuer }) = self.read(&keys::serial(serial))? else {
            return Ok(CertificateState::Unknown);
        };
        if asked.is_some_and(|asked| asked != issuer) {
            return Ok(CertificateState::Unknown);
        }
        if let Some(row) = self.read::<RevokedRow>(&keys::revoked(&id))? {
            return Ok(CertificateState::Revoked(row.entry()));
        }
        // What has ended stands on no list any more, and is what it was.
        let record: Option<CertificateRecord> = self.read(&keys::certificate(&id))?;
        let said = record.as_ref().and_then(CertificateRecord::listed_as);
        Ok(said.map_or(CertificateState::Good, CertificateState::Revoked))
    }

    /// Every revoked certificate that has not expired at `now`, whoever issued it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn revoked(&self, now: SystemTime) -> Result<Vec<RevokedEntry>, FleetError> {
        let mut entries = Vec::new();
        self.revoked_under(keys::REVOKED, None, now, &mut entries)?;
        Ok(entries)
    }

    /// The same of one issuer's certificates, which is what a revocation list must say.
    pub(crate) fn revoked_by(
        &self,
        issuer: IssuerNumber,
        now: SystemTime,
    ) -> Result<Vec<RevokedEntry>, FleetError> {
        let mut entries = Vec::new();
        self.revoked_under(keys::REVOKED, Some(issuer), now, &mut entries)?;
        Ok(entries)
    }

    /// The same of those that this list speaks of.
    pub(crate) fn revoked_of(
        &self,
        shard: CrlShard,
        now: SystemTime,
    ) -> Result<Vec<RevokedEntry>, FleetError> {
        let mut entries = Vec::new();
        for octet in shard.octets() {
            let issuer = Some(shard.issuer());
            self.revoked_under(&keys::listed(octet), issuer, now, &mut entries)?;
        }
        Ok(entries)
    }

    fn revoked_under(
        &self,
        prefix: &str,
        issuer: Option<IssuerNumber>,
        now: SystemTime,
        entries: &mut Vec<RevokedEntry>,
    ) -> Result<(), FleetError> {
        let mut after = None;
        loop {
            let page =
                self.page_of_values::<RevokedRow>(prefix, after.as_deref(), LIST_LIMIT_ITEMS)?;
            let alive = page.items.into_iter().filter(|row| {
                row.not_after >= now && issuer.is_none_or(|issuer| issuer == row.issuer)
            });
            entries.extend(alive.map(RevokedRow::entry));
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Rises whenever the revocation list has changed since this process started (one atomic load).
    pub fn revocation_epoch(&self) -> u64 {
        self.inner.live.revocation_epoch()
    }
}

/// Once, for a registry of before serial numbers were looked up: gives each certificate its row, and each revocation
/// its place. A crash in between begins it anew.
pub(crate) fn index(fleet: &Fleet) -> Result<(), FleetError> {
    if fleet.read::<Present>(keys::INDEXED)?.is_some() {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = fleet.certificates(after.as_deref(), LIST_LIMIT_ITEMS)?;
        let rows = page.items.iter().map(|record| {
            let row = SerialRow {
                id: record.id,
                issuer: IssuerNumber::FIRST,
            };
            Write::put(keys::serial(&record.serial), &row, Expect::Any)
        });
        write_all(fleet, rows.collect::<Result<_, _>>()?)?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = fleet.page_of_rows::<RevokedRow>(keys::REVOKED, after.as_deref())?;
        let mut rows = Vec::with_capacity(page.items.len() * 2);
        for (id, row) in page.items {
            let id = id
                .parse()
                .map_err(|error: ca::InvalidIdentifier| FleetError::Invalid(error.to_string()))?;
            let serial = SerialRow {
                id,
                issuer: row.issuer,
            };
            rows.push(Write::put(keys::serial(&row.serial), &serial, Expect::Any)?);
            rows.push(Write::put(listed(&row.serial), &row, Expect::Any)?);
        }
        write_all(fleet, rows)?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    fleet.transact(|t| t.put(keys::INDEXED.to_owned(), &Present))
}

/// Once, for a registry of before lists spoke of what is INACTIVE and all certificates over a key were known. A crash in
/// between begins it anew.
pub(crate) fn index_held(fleet: &Fleet, now: SystemTime) -> Result<(), FleetError> {
    if fleet.read::<Present>(keys::HELD_INDEXED)?.is_some() {
        return Ok(());
    }
    let mut after = None;
    loop {
        let page = fleet.certificates(after.as_deref(), LIST_LIMIT_ITEMS)?;
        let mut rows = Vec::new();
        for record in &page.items {
            let key = ca::key_id(&record.pem)?;
            let place = format!("{}{}", keys::certified(&key), record.id);
            rows.push(Write::put(place, &Present, Expect::Any)?);
            let revocation = record.revocation.as_ref();
            if revocation.is_some_and(|r| r.reason == RevocationReason::KeyCompromise) {
                rows.push(Write::put(
                    keys::taken(&key),
                    &KeyOwner::Compromised,
                    Expect::Any,
                )?);
            }
        }
        for record in page.items.iter().filter(|record| {
            record.origin == Origin::Own
                && record.status == CertificateStatus::Inactive
                && record.not_after >= now
        }) {
            let known: Option<SerialRow> = fleet.read(&keys::serial(&record.serial))?;
            let issuer = known.map_or(IssuerNumber::FIRST, |row| row.issuer);
            let row = RevokedRow::held(record, issuer);
            rows.push(Write::put(keys::revoked(&record.id), &row, Expect::Any)?);
            rows.push(Write::put(listed(&row.serial), &row, Expect::Any)?);
        }
        write_all(fleet, rows)?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    fleet.transact(|t| t.put(keys::HELD_INDEXED.to_owned(), &Present))
}

fn write_all(fleet: &Fleet, rows: Vec<Write>) -> Result<(), FleetError> {
    if !rows.is_empty() {
        fleet.inner.table.batch(&rows)?;
    }
    Ok(())
}
