//! Many certificates at once: by id, group, authority or query, page by page, each page one batch. A page that was done
//! already changes nothing, so whoever is cut short says the same again.

use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, GroupName, LIST_LIMIT_ITEMS, Page,
    ThingName, certificates::turns_out_compromised, keys, query::Query,
};
use ca::{CertificateId, RevocationReason};
use std::{collections::BTreeSet, time::SystemTime};

/// Most certificates named one by one.
pub const NAMED_LIMIT_ITEMS: usize = 250;
/// Most things whose certificates are changed in one batch.
const BATCH_ITEMS: usize = 100;

/// Whose certificates.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These.
    Certificates(Vec<CertificateId>),
    /// Of this thing.
    Thing(ThingName),
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
            (Measure::Revoke(reason), CertificateStatus::Revoked) => {
                turns_out_compromised(record, reason).then_some(CertificateStatus::Revoked)
            }
            (Measure::Revoke(_), _) => Some(CertificateStatus::Revoked),
            (Measure::Deactivate, CertificateStatus::Active) => Some(CertificateStatus::Inactive),
            (Measure::Activate, CertificateStatus::Inactive) if record.superseded_by.is_none() => {
                Some(CertificateStatus::Active)
            }
            _ => None,
        }
    }

    /// Whether it takes devices out.
    fn ends(self) -> bool {
        match self {
            Measure::Revoke(reason) => reason != RevocationReason::Superseded,
            Measure::Deactivate => true,
            Measure::Activate => false,
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
        let ends = !dry_run && measure.ends();
        let done = self.transact(|t| {
            let mut done = Changed::default();
            let mut ids: BTreeSet<CertificateId> =
                page.items.certificates.iter().copied().collect();
            for thing in &page.items.things {
                // Also of who has no certificate (any more): who has it would be the device again. Whoever uses it meanwhile
                // writes the row that was read, and then his certificate is among these.
                if ends {
                    self.forget_password(t, thing)?;
                }
                ids.extend(self.all_names::<CertificateId>(&keys::principals(thing))?);
            }
            for id in &ids {
                if ends {
                    self.forget_password_of(t, id)?;
                }
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

    fn selected(&self, selection: &Selection, after: Option<&str>) -> Result<Batch, FleetError> {
        let of_certificates = |page: Page<CertificateId>| Batch {
            items: Whose {
                certificates: page.items,
                things: Vec::new(),
            },
            next: page.next,
        };
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
                return Ok(of_certificates(Page {
                    items: ids.clone(),
                    next: None,
                }));
            }
            Selection::Authority(authority) => {
                self.registered_authority(authority)?;
                let page = self.vouched_for(authority, after, LIST_LIMIT_ITEMS)?;
                return Ok(of_certificates(page));
            }
            Selection::Thing(thing) => {
                self.thing(thing)?;
                Page {
                    items: vec![thing.clone()],
                    next: None,
                }
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
        Ok(Batch {
            items: Whose {
                certificates: Vec::new(),
                things: things.items,
            },
            next: things.next,
        })
    }
}

/// Of whom one batch is.
struct Batch {
    items: Whose,
    next: Option<String>,
}

struct Whose {
    certificates: Vec<CertificateId>,
    /// All of theirs, as they are when the batch is written.
    things: Vec<ThingName>,
}
