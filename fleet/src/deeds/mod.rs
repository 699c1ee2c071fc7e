//! The record: who did what, and what came of it.
//!
//! An entry is written in the batch of the change it tells of, so that what was acknowledged is recorded: each certificate
//! that is issued or changes its state, whoever had it done, and each operation of an operator. Entries are numbered; a
//! thread of its own chains them by digest (each over the one before), so that who has noted a head finds out later whether
//! anything before it was changed or taken away, and deletes those that are past the bounds.

mod acting;
mod keeper;
mod reading;

pub use acting::{Acting, Deed, Doer, Outcome, What};
pub use keeper::DeedBounds;
pub use reading::{DeedFilter, Head, Numbered, Verified};

pub(crate) use acting::Fact;
pub(crate) use keeper::Keeper;

use crate::{Fleet, FleetError, registry::Transaction};
use std::{sync::Arc, time::SystemTime};
use store::{Expect, Write};

impl Fleet {
    /// The registry as somebody's hand: what is changed through this is recorded as theirs.
    #[must_use]
    pub fn acting(&self, acting: Arc<Acting>) -> Fleet {
        Fleet {
            inner: Arc::clone(&self.inner),
            acting: Some(acting),
        }
    }

    /// Records what no change of the registry has recorded already: an operation on something else, or one that was
    /// refused.
    ///
    /// # Errors
    /// When the store fails: it is not recorded then.
    pub fn note_deed(&self, deed: &Deed) -> Result<(), FleetError> {
        let allotted = self.inner.deeds.allot(1);
        let write = Write::put(keeper::key(allotted.first), deed, Expect::Absent)?;
        self.inner.table.batch(&[write])?;
        deed.log();
        Ok(())
    }

    /// Sets how much of the record is kept.
    pub fn bound_deeds(&self, bounds: DeedBounds) {
        self.inner.deeds.bound(bounds);
    }

    /// What a transaction is recorded as.
    pub(crate) fn deeds_of(&self, t: &mut Transaction<'_>) -> Result<Vec<Deed>, FleetError> {
        let acting = self.acting.as_deref();
        let facts = t.take_facts();
        let mut deeds = Vec::with_capacity(facts.len());
        for fact in facts {
            let thing = t.thing_of(&fact.certificate)?;
            deeds.push(fact.deed(acting, thing));
        }
        if let Some(acting) = acting
            && deeds.is_empty()
            && acting.is_first()
        {
            let mut things = t.touched_things().into_iter();
            let thing = things.next().filter(|_| things.next().is_none());
            deeds.push(Deed {
                thing: thing.map(|thing| thing.to_string()),
                ..acting.deed(What::Changed, Outcome::Done)
            });
        }
        Ok(deeds)
    }
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
