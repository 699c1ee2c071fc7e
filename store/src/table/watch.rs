//! Watching a table. The newest changes wait in one ring per table, however many watch; a watcher
//! is a position in it. One that the ring has passed is told so and reads the table again. What all
//! who watch have been told is not kept, and nothing of a table that nobody watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Most changes (batches) a table remembers for watchers that are behind.
pub const WATCH_CHANGES_MAX: usize = 4096;
/// Most keys those changes name together.
pub const WATCH_KEYS_MAX: usize = 65_536;

/// Room for changes that a ring keeps when it is empty.
const RING_KEPT_CHANGES: usize = 64;

/// What a watcher is told, in the order of revisions, each after it became durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One batch was committed.
    Changed {
        /// Its revision.
        revision: u64,
        /// The keys it put or deleted.
        keys: Arc<[String]>,
    },
    /// The watcher missed changes: scan the table again. Later events follow from `revision`.
    Lagged {
        /// Everything up to here may have been missed.
        revision: u64,
    },
}

/// One durable batch.
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) keys: Arc<[String]>,
}

/// Where a table's changes are told.
pub(super) struct Hub {
    state: Mutex<Recent>,
    told: Condvar,
}

struct Recent {
    /// Changes up to this revision are not (or no longer) in the ring.
    floor: u64,
    changes: VecDeque<Change>,
    keys: usize,
    /// Up to where each watcher has been told, by its number.
    positions: BTreeMap<u64, u64>,
    next_watcher: u64,
    closed: bool,
}

impl Recent {
    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.changes.pop_front() {
            self.keys -= oldest.keys.len();
            self.floor = oldest.revision;
        }
    }

    /// Forgets what nobody is still to be told.
    fn trim(&mut self) {
        let told = self.positions.values().min().copied().unwrap_or(u64::MAX);
        while self
            .changes
            .front()
            .is_some_and(|oldest| oldest.revision <= told)
        {
            self.forget_oldest();
        }
        if self.changes.is_empty() {
            self.changes.shrink_to(RING_KEPT_CHANGES);
        }
    }
}

impl Hub {
    pub(super) fn new(revision: u64) -> Hub {
        let recent = Recent {
            floor: revision,
            changes: VecDeque::new(),
            keys: 0,
            positions: BTreeMap::new(),
            next_watcher: 0,
            closed: false,
        };
        Hub {
            state: Mutex::new(recent),
            told: Condvar::new(),
        }
    }

    pub(super) fn publish(&self, change: Change) {
        let mut recent = self.state.lock();
        recent.keys += change.keys.len();
        recent.changes.push_back(change);
        recent.trim();
        while recent.changes.len() > WATCH_CHANGES_MAX || recent.keys > WATCH_KEYS_MAX {
            recent.forget_oldest();
        }
        self.told.notify_all();
    }

    /// How many changes it keeps, and keys.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        let recent = self.state.lock();
        (recent.changes.len(), recent.keys)
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.told.notify_all();
    }
}

/// Follows the changes of one table.
pub struct Watch {
    hub: Arc<Hub>,
    stopped: Arc<AtomicBool>,
    /// By which the ring knows up to where it has been told.
    number: u64,
    /// Everything up to here has been told.
    after: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut recent = self.hub.state.lock();
        recent.positions.remove(&self.number);
        recent.trim();
    }
}

/// Ends a [`Watch`] from another thread.
#[derive(Clone)]
pub struct WatchStop {
    hub: Arc<Hub>,
    stopped: Arc<AtomicBool>,
}

impl WatchStop {
    /// The watch's `next` returns `None` from now on.
    pub fn stop(&self) {
        // Under the lock, or a watcher between its look at the flag and its sleep would miss it.
        let recent = self.hub.state.lock();
        self.stopped.store(true, Ordering::Release);
        drop(recent);
        self.hub.told.notify_all();
    }
}

impl Watch {
    pub(super) fn new(hub: Arc<Hub>, from_revision: u64) -> Watch {
        let number = {
            let mut recent = hub.state.lock();
            let number = recent.next_watcher;
            recent.next_watcher += 1;
            recent.positions.insert(number, from_revision);
            number
        };
        Watch {
            hub,
            stopped: Arc::default(),
            number,
            after: from_revision,
        }
    }

    /// The next event; blocks until there is one. `None` once the watch was stopped or the store
    /// closed.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would hide that this blocks"
    )]
    pub fn next(&mut self) -> Option<Event> {
        self.take(None, true)
    }

    /// As [`Watch::next`], waiting until `deadline` at most; `None` then, too.
    pub fn next_before(&mut self, deadline: Instant) -> Option<Event> {
        self.take(Some(deadline), true)
    }

    /// The next event where there is one already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.take(None, false)
    }

    /// A handle that ends this watch.
    #[must_use]
    pub fn stop_handle(&self) -> WatchStop {
        WatchStop {
            hub: Arc::clone(&self.hub),
            stopped: Arc::clone(&self.stopped),
        }
    }

    fn take(&mut self, deadline: Option<Instant>, block: bool) -> Option<Event> {
        let mut recent = self.hub.state.lock();
        loop {
            if recent.closed || self.stopped.load(Ordering::Acquire) {
                return None;
            }
            if self.after < recent.floor {
                self.after = recent.floor;
                recent.positions.insert(self.number, self.after);
                return Some(Event::Lagged {
                    revision: recent.floor,
                });
            }
            let next = recent
                .changes
                .partition_point(|change| change.revision <= self.after);
            if let Some(change) = recent.changes.get(next) {
                let (revision, keys) = (change.revision, Arc::clone(&change.keys));
                self.after = revision;
                recent.positions.insert(self.number, revision);
                recent.trim();
                return Some(Event::Changed { revision, keys });
            }
            if !block {
                return None;
            }
            match deadline {
                None => self.hub.told.wait(&mut recent),
                Some(deadline) => {
                    if self.hub.told.wait_until(&mut recent, deadline).timed_out() {
                        return None;
                    }
                }
            }
        }
    }
}
