//! Many certificates at once: by id, group, authority or query, page by page, each page one batch. A page that was done
//! already changes nothing, so whoever is cut short says the same again.

use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, GroupName, LIST_LIMIT_ITEMS, Page,
    ThingName, keys, query::Query,
};
use ca::{CertificateId, RevocationReason};
use std::time::SystemTime;

/// Most certificates named one by one.
pub const NAMED_LIMIT_ITEMS: usize = 250;
/// Most things whose certificates are changed in one batch.
const BATCH_ITEMS: usize = 100;

/// Whose certificates.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These.
    Certificates(Vec<CertificateId>),
    /// Of the things in a group and in all groups below it.
    Group(GroupName),
    /// That a registered authority signed.
    Authority(CertificateId),
    /// Of the things that a query fits.
    Query(Query),
}

/// What is to become of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Revoked, for ever.
    Revoke(RevocationReason),
    /// ACTIVE ones become INACTIVE.
    Deactivate,
    /// INACTIVE ones become ACTIVE again, and no others; not those that a renewal has retired.
    Activate,
}

/// What one batch has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Certificates that are another now, or would be.
    pub changed: Vec<CertificateId>,
    /// Certificates that the measure does not apply to.
    pub untouched: usize,
    /// Where the next batch begins; `None` after the last.
    pub next: Option<String>,
}

impl Measure {
    /// The state a certificate comes to, if it comes to another. One that was renewed stays retired: its key may be on a
    /// board that was given away.
    fn applies(self, record: &CertificateRecord) -> Option<CertificateStatus> {
        match (self, record.status) {
            (Measure::Revoke(_), CertificateStatus::Revoked) => None,
            (Measure::Revoke(_), _) => Some(CertificateStatus::Revoked),
            (Measure::Deactivate, CertificateStatus::Active) => Some(CertificateStatus::Inactive),
            (Measure::Activate, CertificateStatus::Inactive) if record.superseded_by.is_none() => {
                Some(CertificateStatus::Active)
            }
            _ => None,
        }
    }

    fn reason(self) -> RevocationReason {
        match self {
            Measure::Revoke(reason) => reason,
            Measure::Deactivate | Measure::Activate => RevocationReason::Unspecified,
        }
    }
}

impl Fleet {
    /// Does one batch; live sessions that lose by it have been told when this returns. With `dry_run` nothing changes.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for a certificate, the group or the authority; [`FleetError::Limit`].
    pub fn change_certificates(
        &self,
        selection: &Selection,
        measure: Measure,
        dry_run: bool,
        after: Option<&str>,
        now: SystemTime,
    ) -> Result<Changed, FleetError> {
        let page = self.selected(selection, after)?;
        let done = self.transact(|t| {
            let mut done = Changed::default();
            for id in &page.items {
                let record: Option<CertificateRecord> = t.get(&keys::certificate(id))?;
                match record.and_then(|record| measure.applies(&record)) {
                    None => done.untouched += 1,
                    Some(status) => {
                        if !dry_run {
                            self.change_status(t, id, status, measure.reason(), now)?;
                        }
                        done.changed.push(*id);
                    }
                }
            }
            Ok(done)
        })?;
        Ok(Changed {
            next: page.next,
            ..done
        })
    }

    fn selected(
        &self,
        selection: &Selection,
        after: Option<&str>,
    ) -> Result<Page<CertificateId>, FleetError> {
        let things = match selection {
            Selection::Certificates(ids) => {
                if ids.len() > NAMED_LIMIT_ITEMS {
                    return Err(FleetError::Limit {
                        what: "certificates named one by one".into(),
                        limit: NAMED_LIMIT_ITEMS,
                    });
                }
                for id in ids {
                    self.certificate(id)?;
                }
                return Ok(Page {
                    items: ids.clone(),
                    next: None,
                });
            }
            Selection::Authority(authority) => {
                self.registered_authority(authority)?;
                return self.vouched_for(authority, after, LIST_LIMIT_ITEMS);
            }
            Selection::Group(group) => self.members_below(group, after, BATCH_ITEMS)?,
            Selection::Query(query) => {
                let found = self.search(query, after, BATCH_ITEMS)?;
                let names = found.items.into_iter().map(|found| found.thing.name);
                Page {
                    items: names.collect::<Vec<ThingName>>(),
                    next: found.next,
                }
            }
        };
        let mut items = Vec::with_capacity(things.items.len());
        for thing in &things.items {
            items.extend(self.all_names::<CertificateId>(&keys::principals(thing))?);
        }
        Ok(Page {
            items,
            next: things.next,
        })
    }
}
