//! Lists as they were last signed. One is signed anew when a revocation that it speaks of has come, or its end draws
//! near; a revocation elsewhere leaves it as it is.

use super::{ListName, RevocationFaces};
use crate::{FleetError, keys};
use ca::IssuerNumber;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use store::Stored;

/// How long a list is good for (its nextUpdate, RFC 5280 §5.1.2.5).
pub(super) const LIST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A list with less life left than this is made anew, so that who fetches one can keep it.
const MIN_LIFE_LEFT: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Default)]
pub(super) struct Lists {
    /// A lock for each list, held while it is signed, so that each change is signed once and no list waits for another.
    current: Mutex<HashMap<ListName, Arc<Mutex<Option<Current>>>>>,
}

struct Current {
    der: Arc<[u8]>,
    epoch: u64,
    this_update: SystemTime,
    next_update: SystemTime,
}

/// The highest number that a list was ever given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Highest {
    number: u64,
}

impl Stored for Highest {}

/// When a list was last made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Issued {
    at: SystemTime,
}

impl Stored for Issued {}

impl RevocationFaces {
    /// The list that says everything decided before `now`, as DER; `None` where no certificate names such a list.
    ///
    /// # Errors
    /// When the store fails or the issuing key cannot be used.
    pub fn list(&self, name: ListName, now: SystemTime) -> Result<Option<Arc<[u8]>>, FleetError> {
        if !self.exists(name) {
            return Ok(None);
        }
        let slot = Arc::clone(self.inner.lists.current.lock().entry(name).or_default());
        let mut current = slot.lock();
        // Read before the entries: a revocation in between makes the next call sign again.
        let epoch = self.epoch(name);
        if let Some(list) = current.as_ref()
            && list.epoch == epoch
            && list.next_update > now + MIN_LIFE_LEFT
            // Signed while the clock was ahead, it is good for nobody yet.
            && list.this_update <= now
        {
            return Ok(Some(Arc::clone(&list.der)));
        }
        let number = self.next_number(now)?;
        let this_update = now - self.authority().terms().backdated;
        let next_update = now + LIST_LIFE;
        let der: Arc<[u8]> = self
            .sign(name, number, now, (this_update, next_update))?
            .into();
        // After it was signed: an entry that was to be on it is not left out of the next for nothing.
        let issued = Issued { at: now };
        let fleet = &self.inner.fleet;
        fleet.transact(|t| t.put(keys::list_issued(name), &issued))?;
        *current = Some(Current {
            der: Arc::clone(&der),
            epoch,
            this_update,
            next_update,
        });
        Ok(Some(der))
    }

    /// RFC 5280 §5.2.3: numbers rise, whatever the clock does and over restarts too. They are the clock's where it is ahead
    /// of the highest of before.
    fn next_number(&self, now: SystemTime) -> Result<u64, FleetError> {
        let clock = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            .unwrap_or_default();
        self.inner.fleet.transact(|t| {
            let before: Option<Highest> = t.get(keys::CRL_NUMBER)?;
            let next = before.map_or(0, |before| before.number.saturating_add(1));
            let number = clock.max(next);
            t.put(keys::CRL_NUMBER.to_owned(), &Highest { number })?;
            Ok(number)
        })
    }

    /// When such a list was last made.
    pub(super) fn issued_at(&self, name: ListName) -> Result<Option<SystemTime>, FleetError> {
        let row: Option<Issued> = self.inner.fleet.read(&keys::list_issued(name))?;
        Ok(row.map(|row| row.at))
    }

    fn epoch(&self, name: ListName) -> u64 {
        match name {
            ListName::Whole => self.inner.fleet.revocation_epoch(),
            ListName::Shard(shard) => self.inner.fleet.inner.live.listed_epoch(shard.octets()),
        }
    }

    fn sign(
        &self,
        name: ListName,
        number: u64,
        now: SystemTime,
        (this_update, next_update): (SystemTime, SystemTime),
    ) -> Result<Vec<u8>, FleetError> {
        let fleet = &self.inner.fleet;
        // RFC 5280 §3.3: an entry stays for one list beyond the certificate's end. A list of a clock that was ahead does not
        // count for what has not ended by this one.
        let last = self.issued_at(name)?;
        let alive = last.map_or(SystemTime::UNIX_EPOCH, |last| last.min(now));
        let authority = self.authority();
        Ok(match name {
            ListName::Whole => {
                let issuer = IssuerNumber::FIRST;
                let entries = fleet.revoked_by(issuer, alive)?;
                authority.crl(issuer, number, &entries, this_update, next_update)?
            }
            ListName::Shard(shard) => {
                let (issuer, entries) = (shard.issuer(), fleet.revoked_of(shard, alive)?);
                // The newest URL first: readers show it.
                let urls = self.inner.urls.iter().rev();
                let urls: Vec<_> = urls.map(|url| format!("{url}/{shard}")).collect();
                authority.crl_shard(issuer, &urls, number, &entries, this_update, next_update)?
            }
        })
    }
}
