//! Principals that nobody holds any more, kept for when they come again: a device that was away for a moment is not
//! read from the disk at its return. Who changes meanwhile is forgotten, so that they cost a change nothing.

use crate::Standing;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

/// Most that are kept; each takes one or two KiB.
const RECENT_ITEMS: usize = 4_096;

/// The newest, oldest first.
#[derive(Default)]
pub(crate) struct Recent {
    ring: Mutex<VecDeque<Arc<Standing>>>,
}

/// The ring, held.
pub(super) struct Held<'a> {
    _ring: MutexGuard<'a, VecDeque<Arc<Standing>>>,
}

impl Recent {
    /// Keeps one for a while.
    pub(crate) fn keep(&self, standing: &Arc<Standing>) {
        let mut ring = self.ring.lock();
        // Changed under the lock only.
        if standing.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        ring.push_back(Arc::clone(standing));
        if ring.len() > RECENT_ITEMS
            && let Some(oldest) = ring.pop_front()
        {
            oldest.kept.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held {
            _ring: self.ring.lock(),
        }
    }
}

impl Held<'_> {
    /// Whether nobody but the ring and the caller, who holds it once, has this one. It stays so while nobody can find it.
    pub(super) fn is_idle(&self, standing: &Arc<Standing>) -> bool {
        standing.kept.load(Ordering::Relaxed) && Arc::strong_count(standing) == 2
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
}
