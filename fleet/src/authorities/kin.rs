//! Certificates of one authority: an authority is a name and a key, and is certified anew while its devices' certificates
//! last. A device is vouched for as long as any registered certificate over its signer's name and key is ACTIVE and valid,
//! whichever of them it came by; who wants its devices out switches all of them off. Which certificates belong together
//! stays known when one is forgotten whose devices are still there: its renewal may be registered after that.

use super::{AuthorityRecord, AuthorityStatus};
use crate::{
    Fleet, FleetError, LIST_LIMIT_ITEMS, Page, keys, records::Present, registry::Transaction,
};
use ca::CertificateId;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::SystemTime};
use store::{StoreError, Stored, Table};

/// A name and a key: SHA-256 over both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Signer(CertificateId);

impl Stored for Signer {}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Signer {
    /// Stands for an authority of which nothing is known but its certificate's id.
    pub(crate) fn alone(id: &CertificateId) -> Self {
        Signer(*id)
    }

    fn of(record: &AuthorityRecord) -> Result<Self, FleetError> {
        let (name, key) = (&record.subject_digest, ca::key_id(&record.pem)?);
        Ok(Signer(CertificateId::of(
            format!("{name}/{key}").as_bytes(),
        )))
    }

    /// That of a certificate that is registered, or was.
    pub(crate) fn read(table: &Table, id: &CertificateId) -> Result<Option<Self>, StoreError> {
        let row = table.get_as::<Signer>(&keys::signer(id))?;
        Ok(row.map(|row| row.value))
    }
}

/// Says whose certificate this is.
pub(super) fn join(t: &mut Transaction<'_>, record: &AuthorityRecord) -> Result<(), FleetError> {
    let signer = Signer::of(record)?;
    t.put(format!("{}{}", keys::kin(&signer), record.id), &Present)?;
    t.put(keys::signer(&record.id), &signer)
}

/// Forgets whose certificate this was.
pub(super) fn leave(t: &mut Transaction<'_>, id: &CertificateId) -> Result<(), FleetError> {
    if let Some(signer) = t.get::<Signer>(&keys::signer(id))? {
        t.delete(format!("{}{id}", keys::kin(&signer)));
        t.delete(keys::signer(id));
    }
    Ok(())
}

/// The certificates over the name and key of this one, forgotten ones too, in order of id; itself where it is not known.
fn ids(table: &Table, id: &CertificateId) -> Result<Vec<CertificateId>, StoreError> {
    let Some(signer) = Signer::read(table, id)? else {
        return Ok(vec![*id]);
    };
    let (prefix, mut all) = (keys::kin(&signer), Vec::new());
    let mut after: Option<String> = None;
    loop {
        let rows = table.scan(&prefix, after.as_deref(), LIST_LIMIT_ITEMS)?;
        let named = rows
            .iter()
            .filter_map(|(key, _)| key.strip_prefix(&prefix)?.parse::<CertificateId>().ok());
        all.extend(named);
        match rows.last() {
            Some((last, _)) if rows.len() == LIST_LIMIT_ITEMS => after = Some(last.clone()),
            _ => return Ok(all),
        }
    }
}

/// Those of them that are registered.
fn registered(table: &Table, id: &CertificateId) -> Result<Vec<AuthorityRecord>, StoreError> {
    let mut found = Vec::new();
    for id in ids(table, id)? {
        let row = table.get_as::<AuthorityRecord>(&keys::authority(&id))?;
        found.extend(row.map(|row| row.value));
    }
    Ok(found)
}

/// Until when an authority vouches for whom it has signed or brought; nothing where none of its certificates is ACTIVE. That
/// one begins later than this moment is held against a handshake, not against who is there.
pub(crate) fn vouches_until(
    table: &Table,
    id: &CertificateId,
) -> Result<Option<SystemTime>, StoreError> {
    let found = registered(table, id)?;
    let active = found
        .iter()
        .filter(|one| one.status == AuthorityStatus::Active);
    Ok(active.map(|one| one.not_after).max())
}

impl Fleet {
    /// The certificate by which an authority counts at `now`: the named one where that does, else the one that does longest.
    pub(crate) fn voucher(
        &self,
        id: &CertificateId,
        now: SystemTime,
    ) -> Result<Option<AuthorityRecord>, FleetError> {
        let found = registered(&self.inner.table, id)?.into_iter();
        let good = found.filter(|one| one.is_good(now));
        Ok(good.max_by_key(|one| (one.id == *id, one.not_after)))
    }

    /// The other registered certificates over an authority's name and key that are ACTIVE: they vouch for its devices whether
    /// or not this one does.
    ///
    /// # Errors
    /// When the store fails.
    pub fn vouching_beside(&self, id: &CertificateId) -> Result<Vec<CertificateId>, FleetError> {
        let found = registered(&self.inner.table, id)?.into_iter();
        let others = found.filter(|one| one.id != *id && one.status == AuthorityStatus::Active);
        Ok(others.map(|one| one.id).collect())
    }

    /// One page of the certificates that an authority vouches for, by whichever of its own they came, in order of id.
    pub(crate) fn vouched_for(
        &self,
        authority: &CertificateId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<CertificateId>, FleetError> {
        let limit = limit.clamp(1, LIST_LIMIT_ITEMS);
        let (mut found, mut more) = (BTreeSet::new(), false);
        for id in ids(&self.inner.table, authority)? {
            let page = self.page_of_names::<CertificateId>(&keys::signed_by(&id), after, limit)?;
            more |= page.next.is_some();
            found.extend(page.items);
        }
        more |= found.len() > limit;
        let items: Vec<CertificateId> = found.into_iter().take(limit).collect();
        let next = items.last().filter(|_| more).map(ToString::to_string);
        Ok(Page { items, next })
    }
}

/// For a registry of before it was known which certificates belong together. What a crash leaves out is done the next time.
pub(crate) fn index(fleet: &Fleet) -> Result<(), FleetError> {
    let mut after = None;
    loop {
        let page = fleet.registered_authorities(after.as_deref(), LIST_LIMIT_ITEMS)?;
        for record in &page.items {
            if Signer::read(&fleet.inner.table, &record.id)?.is_none() {
                fleet.transact(|t| join(t, record))?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}
