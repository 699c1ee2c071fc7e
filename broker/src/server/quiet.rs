//! Slices: a core whose connections do nothing but say that they are there answers several of them at a time.
//!
//! Of what a PINGREQ costs most is to wake the core for it and to send it to sleep again. A core that for a while has heard
//! nothing but PINGREQs, and many of them, therefore sleeps for some milliseconds before it looks for the next, and finds
//! several. Whoever then is the first to say something else waits for at most as long, and ends that: where messages come
//! and go nothing is delayed.
//!
//! One of these per core; a thread that never called [`begin`] never delays its looks.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::clock::Clock;
use crate::session::Time;

/// A core that has had nothing else to do for so long, in milliseconds, is quiet.
const QUIET_AFTER_MS: u64 = 1_000;

/// How long a quiet core sleeps. Where so long nothing came there was nothing to gather, and it does not.
const SLICE: Duration = Duration::from_millis(10);

thread_local! {
    static CORE: Core = const { Core::new() };
}

struct Core {
    clock: Cell<Option<Clock>>,
    /// When something was done for a connection that was no answer to a PINGREQ.
    worked: Cell<Time>,
    looked: Cell<Option<Instant>>,
    /// Whether it was woken soon after it had looked last.
    woken_soon: Cell<bool>,
}

impl Core {
    const fn new() -> Self {
        Self {
            clock: Cell::new(None),
            worked: Cell::new(Time::from_millis(0)),
            looked: Cell::new(None),
            woken_soon: Cell::new(false),
        }
    }

    fn is_quiet(&self, now: Time) -> bool {
        now.millis_since(self.worked.get()) >= QUIET_AFTER_MS
    }

    /// How long to sleep before the next look.
    fn slice(&self, now: Time) -> Option<Duration> {
        (self.is_quiet(now) && self.woken_soon.get()).then_some(SLICE)
    }

    fn was_woken(&self, after: Duration) {
        self.woken_soon.set(after < SLICE);
    }
}

/// The connections of this thread are answered in slices from now on, whenever it is quiet.
pub(crate) fn begin(clock: Clock) {
    CORE.with(|core| {
        core.worked.set(clock.now());
        core.clock.set(Some(clock));
    });
}

/// Something is done for a connection of this thread that is no answer to a PINGREQ.
pub(crate) fn works(now: Time) {
    CORE.with(|core| core.worked.set(now));
}

/// To be called as this thread's runtime parks: nothing is ready to run.
pub(crate) fn park() {
    CORE.with(|core| {
        let Some(now) = core.clock.get().map(|clock| clock.now()) else {
            return;
        };
        if let Some(slice) = core.slice(now) {
            std::thread::sleep(slice);
        }
        core.looked.set(core.is_quiet(now).then(Instant::now));
    });
}

/// To be called as it goes on.
pub(crate) fn unpark() {
    CORE.with(|core| {
        if let Some(at) = core.looked.take() {
            core.was_woken(at.elapsed());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(1_000_000 + millis)
    }

    fn core() -> Core {
        let core = Core::new();
        core.worked.set(at(0));
        core
    }

    #[test]
    fn only_a_core_that_hears_nothing_else_and_is_woken_often_sleeps() {
        let core = core();
        assert_eq!(core.slice(at(QUIET_AFTER_MS)), None, "not woken yet");
        core.was_woken(SLICE / 4);
        assert_eq!(core.slice(at(QUIET_AFTER_MS - 1)), None);
        assert_eq!(core.slice(at(QUIET_AFTER_MS)), Some(SLICE));
        core.was_woken(SLICE);
        assert_eq!(core.slice(at(QUIET_AFTER_MS + 50)), None, "seldom");
        core.was_woken(Duration::ZERO);
        assert_eq!(core.slice(at(QUIET_AFTER_MS + 60)), Some(SLICE));
        core.worked.set(at(QUIET_AFTER_MS + 60));
        assert_eq!(core.slice(at(QUIET_AFTER_MS + 61)), None, "a message came");
    }

    #[test]
    fn a_thread_that_did_not_begin_never_sleeps() {
        park();
        CORE.with(|core| assert_eq!(core.looked.get(), None));
        unpark();
        CORE.with(|core| assert!(!core.woken_soon.get()));
    }
}
