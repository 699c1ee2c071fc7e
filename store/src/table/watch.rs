//! Watching a table. The newest changes wait in one ring per table, however many watch; a watcher
//! is a position in it. One that the ring has passed is told so and reads the table again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Most changes (batches) a table remembers for its watchers.
pub const WATCH_CHANGES_MAX: usize = 4096;
/// Most keys those changes name together.
pub const WATCH_KEYS_MAX: usize = 65_536;

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
    closed: bool,
}

impl Hub {
    pub(super) fn new(revision: u64) -> Hub {
        let changes = VecDeque::new();
        let recent = Recent {
            floor: revision,
            changes,
            keys: 0,
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
        while recent.changes.len() > WATCH_CHANGES_MAX || recent.keys > WATCH_KEYS_MAX {
            let Some(oldest) = recent.changes.pop_front() else {
                break;
            };
            recent.keys -= oldest.keys.len();
            recent.floor = oldest.revision;
        }
        self.told.notify_all();
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
    /// Everything up to here has been told.
    after: u64,
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
        Watch {
            hub,
            stopped: Arc::default(),
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
                return Some(Event::Lagged {
                    revision: recent.floor,
                });
            }
            let next = recent
                .changes
                .partition_point(|change| change.revision <= self.after);
            if let Some(change) = recent.changes.get(next) {
                self.after = change.revision;
                let keys = Arc::clone(&change.keys);
                return Some(Event::Changed {
                    revision: change.revision,
                    keys,
                });
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
