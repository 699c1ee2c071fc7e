//! Principals that nobody holds any more, kept for when they come again: a device that was away for a moment is not
//! read from the disk at its return. Who changes meanwhile is forgotten, so that they cost a change nothing.

use crate::Standing;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

/// What a standing that is not kept has for its number.
const NOT_KEPT: u64 = 0;

/// Most that are kept; each takes one or two KiB.
const RECENT_ITEMS: usize = 4_096;

#[derive(Default)]
pub(crate) struct Recent {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    /// How many were ever kept.
    last: u64,
    /// The newest, oldest first, each by its number.
    kept: BTreeMap<u64, Arc<Standing>>,
}

/// The ring, held.
pub(super) struct Held<'a> {
    ring: MutexGuard<'a, Ring>,
}

impl Recent {
    /// Keeps one for a while.
    pub(crate) fn keep(&self, standing: &Arc<Standing>) {
        let mut ring = self.ring.lock();
        // Changed under the lock only.
        if standing.kept.load(Ordering::Relaxed) != NOT_KEPT {
            return;
        }
        ring.last += 1;
        let number = ring.last;
        standing.kept.store(number, Ordering::Relaxed);
        ring.kept.insert(number, Arc::clone(standing));
        if ring.kept.len() > RECENT_ITEMS
            && let Some((_, oldest)) = ring.kept.pop_first()
        {
            oldest.kept.store(NOT_KEPT, Ordering::Relaxed);
        }
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held {
            ring: self.ring.lock(),
        }
    }
}

impl Held<'_> {
    /// Whether nobody but the ring and the caller, who holds it once, has this one. It stays so while nobody can find it.
    pub(super) fn is_idle(&self, standing: &Arc<Standing>) -> bool {
        standing.kept.load(Ordering::Relaxed) != NOT_KEPT && Arc::strong_count(standing) == 2
    }

    /// Keeps this one no longer.
    pub(super) fn forget(&mut self, standing: &Standing) {
        let number = standing.kept.swap(NOT_KEPT, Ordering::Relaxed);
        self.ring.kept.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ca::CertificateId;

    fn standing(number: usize) -> Arc<Standing> {
        Arc::new(Standing::new(CertificateId::of(&number.to_be_bytes())))
    }

    #[test]
    fn the_newest_are_kept_once_each_and_not_one_more() {
        let recent = Recent::default();
        let first = standing(0);
        recent.keep(&first);
        recent.keep(&first);
        assert_eq!(Arc::strong_count(&first), 2);
        assert!(recent.hold().is_idle(&first));
        let other = Arc::clone(&first);
        assert!(!recent.hold().is_idle(&first));
        drop(other);
        for number in 1..RECENT_ITEMS {
            recent.keep(&standing(number));
        }
        assert_eq!(Arc::strong_count(&first), 2);
        recent.keep(&standing(RECENT_ITEMS));
        assert_eq!(Arc::strong_count(&first), 1);
        assert!(!recent.hold().is_idle(&first));
        recent.keep(&first);
        assert!(recent.hold().is_idle(&first));
    }

    #[test]
    fn who_is_forgotten_takes_no_room() {
        let (recent, first) = (Recent::default(), standing(0));
        recent.keep(&first);
        let other = standing(1);
        recent.keep(&other);
        recent.hold().forget(&first);
        assert_eq!(Arc::strong_count(&first), 1);
        assert_eq!(recent.ring.lock().kept.len(), 1);
        recent.hold().forget(&first);
        assert!(recent.hold().is_idle(&other));
        recent.keep(&first);
        assert!(recent.hold().is_idle(&first));
    }
}
