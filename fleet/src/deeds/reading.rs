//! The record as it is read: the newest first, and held against its chain.

use super::{
    Deed, Outcome,
    keeper::{DEED, FROM, HEAD, PAGE_ITEMS, Point, key, number_of, point, rows},
    millis,
};
use crate::{Fleet, FleetError, Page};
use ca::CertificateId;
use std::time::SystemTime;

/// Entries looked at for one page.
const LOOKED_AT_ITEMS: u64 = 50_000;
/// How far entries may lie from the order of their moments: an operation's is that of its beginning.
const OUT_OF_ORDER_MILLIS: u64 = 3_600_000;

/// Which entries are asked for; those that fit all that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeedFilter {
    /// Of this operator (or device, or claim).
    pub name: Option<String>,
    /// About this thing.
    pub thing: Option<String>,
    /// About this certificate.
    pub certificate: Option<CertificateId>,
    /// Of this operation.
    pub operation: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Not before this.
    pub since: Option<SystemTime>,
    /// Before this.
    pub until: Option<SystemTime>,
}

impl DeedFilter {
    fn fits(&self, deed: &Deed) -> bool {
        let same = |asked: &Option<String>, found: Option<&str>| {
            asked.as_deref().is_none_or(|asked| found == Some(asked))
        };
        let of_thing = |deed: &Deed| {
            let named = deed.thing.as_deref().or_else(|| {
                let targets = &deed.targets;
                let name = targets.get("thingName").or_else(|| targets.get("thing"));
                name.map(String::as_str)
            });
            same(&self.thing, named)
        };
        let of_certificate = |deed: &Deed| {
            self.certificate.is_none_or(|asked| {
                let text = asked.to_string();
                deed.certificate == Some(asked)
                    || deed.targets.values().any(|target| target.ends_with(&text))
            })
        };
        same(&self.name, deed.name.as_deref())
            && same(&self.operation, Some(&deed.operation))
            && of_thing(deed)
            && of_certificate(deed)
            && self.outcome.is_none_or(|asked| asked == deed.outcome)
            && self.since.is_none_or(|since| deed.at >= millis(since))
            && self.until.is_none_or(|until| deed.at < millis(until))
    }
}

/// An entry and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Its number: later ones have greater ones, and some are never given.
    pub number: u64,
    /// The entry.
    pub deed: Deed,
}

/// What all entries before a number come to: whoever has noted it can tell later whether they are still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the first entry that it does not speak of.
    pub upto: u64,
    /// Lower-case hex SHA-256.
    pub hash: String,
}

/// What came of holding the record against its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Entries that are kept.
    pub entries: u64,
    /// The number of the first that may be kept: those before it were past the bounds.
    pub from: u64,
    /// The newest head.
    pub head: Head,
    /// Entries that came after it.
    pub unchained: u64,
    /// What is wrong; nothing where all is as it was.
    pub wrong: Vec<String>,
    /// Why nothing can be said of the head that was noted, where it speaks of entries that are not kept any more.
    pub unknown: Option<String>,
}

impl Fleet {
    /// Entries, the newest first; `before` is the number that the last page gave as `next`. A page may have few entries, or
    /// none, and still not be the last.
    ///
    /// # Errors
    /// When the store fails.
    pub fn deeds(
        &self,
        filter: &DeedFilter,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Numbered>, FleetError> {
        let table = &self.inner.table;
        let first = point(table, FROM)?.unwrap_or_default().upto;
        let mut below = self.inner.deeds.settled();
        below = before.map_or(below, |before| before.min(below));
        let end = below.saturating_sub(LOOKED_AT_ITEMS).max(first);
        let mut items = Vec::new();
        while below > end {
            let from = below.saturating_sub(PAGE_ITEMS as u64).max(end);
            let after = from.checked_sub(1).map(key);
            let found = table.scan_as::<Deed>(DEED, after.as_deref(), PAGE_ITEMS)?;
            let mut newest = None;
            for (key, row) in found.into_iter().rev() {
                let Some(number) = number_of(&key).filter(|number| *number < below) else {
                    continue;
                };
                let deed = row.value;
                newest = newest.max(Some(deed.at));
                if !filter.fits(&deed) {
                    continue;
                }
                items.push(Numbered { number, deed });
                if items.len() >= limit {
                    let next = (number > first).then(|| number.to_string());
                    return Ok(Page { items, next });
                }
            }
            let since = filter
                .since
                .map(|since| millis(since).saturating_sub(OUT_OF_ORDER_MILLIS));
            if since
                .zip(newest)
                .is_some_and(|(since, newest)| newest < since)
            {
                return Ok(Page { items, next: None });
            }
            below = from;
        }
        let next = (end > first).then(|| end.to_string());
        Ok(Page { items, next })
    }

    /// Holds all entries against the chain, and the chain against a head that was noted before.
    ///
    /// # Errors
    /// When the store fails.
    pub fn verify_deeds(&self, noted: Option<&Head>) -> Result<Verified, FleetError> {
        loop {
            let from = point(&self.inner.table, FROM)?;
            let verified = self.verify_from(&from.clone().unwrap_or_default(), noted)?;
            // Entries that went meanwhile are no finding.
            if point(&self.inner.table, FROM)? == from {
                return Ok(verified);
            }
        }
    }

    fn verify_from(&self, from: &Point, noted: Option<&Head>) -> Result<Verified, FleetError> {
        let table = &self.inner.table;
        let mut wrong = Vec::new();
        let mut unknown = None;
        let settled = self.inner.deeds.settled();
        let head = point(table, HEAD)?.unwrap_or_else(|| from.clone());
        let mut seen = from.clone();
        let mut noted = noted.filter(|noted| {
            let kept = noted.upto >= from.upto;
            if !kept {
                unknown = Some(format!(
                    "the head that was noted speaks of entries before number {}, and those before number {} are not kept any more: it says nothing about what is",
                    noted.upto, from.upto
                ));
            }
            kept
        });
        let mut chained = None;
        let mut unchained = 0;
        let mut place = from.upto;
        loop {
            let found = rows(table, place, settled)?;
            for (number, value) in &found {
                if chained.is_none() && *number >= head.upto {
                    chained = Some(seen.clone());
                }
                if let Some(head) = noted.take_if(|noted| *number >= noted.upto) {
                    wrong.extend(another(&seen, head));
                }
                unchained += u64::from(*number >= head.upto);
                seen.add(*number, value);
            }
            match found.last() {
                Some((number, _)) => place = number.saturating_add(1),
                None => break,
            }
        }
        let entries = seen.entries.saturating_sub(from.entries);
        let chained = chained.unwrap_or_else(|| seen.clone());
        if chained.hash != head.hash || chained.entries != head.entries {
            wrong.push(format!(
                "the entries up to number {} are not those that were chained: there are {}, and were {}",
                head.upto,
                chained.entries.saturating_sub(from.entries),
                head.entries.saturating_sub(from.entries)
            ));
        }
        match noted {
            Some(noted) if noted.upto > seen.upto => wrong.push(format!(
                "the head that was noted speaks of entries up to number {}, and the last that is here has number {}",
                noted.upto,
                seen.upto.saturating_sub(1)
            )),
            Some(noted) => wrong.extend(another(&seen, noted)),
            None => {}
        }
        Ok(Verified {
            entries,
            from: from.upto,
            head: Head {
                upto: head.upto,
                hash: head.hash,
            },
            unchained,
            wrong,
            unknown,
        })
    }
}

/// Whether the chain came to something else than what was noted.
fn another(seen: &Point, noted: &Head) -> Option<String> {
    (seen.hash != noted.hash).then(|| {
        format!(
            "the entries before number {} are not those that the noted head speaks of",
            noted.upto
        )
    })
}
