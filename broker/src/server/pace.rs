//! Moderation: on a core that has no rest, a connection that has just been read is not read again
//! for a few milliseconds.
//!
//! At saturation each read would find one message and cause one write, and almost all of a
//! message's cost is system calls. A connection that rests meanwhile finds several, and they leave
//! in one record and one write. The price is the rest itself in latency, far less than the queues
//! of a saturated core cost otherwise; a core that still finds time to park pays nothing, because
//! nothing rests there.
//!
//! Rests make the core idle now and then, for what they save. So it counts as saturated until it
//! has been idle for most of a while: by then it would have time to spare without rests as well.
//! While it counts as saturated and has nothing ready to run it sleeps until the next rest ends,
//! instead of being woken by each message that comes for a connection at rest.
//!
//! One of these per core, for the connections of its thread; a thread that never called
//! [`moderate`] never lets anything rest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::hub::Hub;
use super::quiet;
use crate::session::Time;

/// A core that waited for so long had nothing to do. At saturation it parks as well, but finds the next events at once.
const IDLE: Duration = Duration::from_micros(50);

/// A core that has not been idle for so long, in milliseconds, is saturated.
const SATURATED_AFTER_MS: u64 = 2;

/// How long, in milliseconds, a saturated core is watched before it is judged again.
const WATCH_MS: u64 = 16;

/// A saturated core that was idle for more than so many hundredths of the watch is saturated no more: with rests a
/// message costs no less than half of what it costs without.
const IDLE_PERCENT: u64 = 60;

/// How long a connection rests after it was read on a saturated core, in milliseconds.
const REST_MS: u64 = 4;

thread_local! {
    static CORE: Core = const { Core::new() };
}

/// The law and the queue of one core. All rests are equally long, so who began first ends first.
struct Core {
    moderating: Cell<bool>,
    busy_since: Cell<Option<Time>>,
    /// Since when a saturated core is watched, and how long it has been idle since.
    watched: Cell<Option<Time>>,
    idle: Cell<Duration>,
    parked_at: Cell<Option<Instant>>,
    resting: RefCell<VecDeque<(Time, Waker)>>,
    attendant: RefCell<Option<Waker>>,
    clock: Cell<Option<Clock>>,
}

impl Core {
    const fn new() -> Self {
        Self {
            moderating: Cell::new(false),
            busy_since: Cell::new(None),
            watched: Cell::new(None),
            idle: Cell::new(Duration::ZERO),
            parked_at: Cell::new(None),
            resting: RefCell::new(VecDeque::new()),
            attendant: RefCell::new(None),
            clock: Cell::new(None),
        }
    }

    fn is_saturated(&self, now: Time) -> bool {
        if let Some(watched) = self.watched.get() {
            let elapsed = now.millis_since(watched);
            if elapsed < WATCH_MS {
                return true;
            }
            let idle = self.idle.take().as_millis() * 100;
            let still = idle <= u128::from(elapsed * IDLE_PERCENT);
            self.watched.set(still.then_some(now));
            self.busy_since.set(None);
            return still;
        }
        let since = self.busy_since.get().unwrap_or(now);
        self.busy_since.set(Some(since));
        let saturated = self.moderating.get() && now.millis_since(since) >= SATURATED_AFTER_MS;
        if saturated {
            self.watched.set(Some(now));
            self.idle.set(Duration::ZERO);
        }
        saturated
    }

    fn was_idle(&self, waited: Duration) {
        if waited >= IDLE {
            self.busy_since.set(None);
        }
        self.idle.set(self.idle.get() + waited);
    }

    fn rest(&self, now: Time, waker: &Waker) -> Option<Time> {
        if !self.is_saturated(now) {
            return None;
        }
        let until = now.plus_millis(REST_MS);
        self.resting.borrow_mut().push_back((until, waker.clone()));
        if let Some(attendant) = self.attendant.take() {
            attendant.wake();
        }
        Some(until)
    }

    /// When the next rest ends; pending while nothing rests.
    fn next_end(&self, cx: &Context<'_>) -> Poll<Time> {
        if let Some((until, _)) = self.resting.borrow().front() {
            return Poll::Ready(*until);
        }
        self.attendant.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Until when there is nothing to do for a saturated core that has nothing ready to run.
    fn sleeps_until(&self) -> Option<Time> {
        self.watched.get()?;
        let resting = self.resting.borrow();
        resting.front().map(|(until, _)| *until)
    }

    fn wake_rested(&self, now: Time) {
        loop {
            let rested = {
                let mut resting = self.resting.borrow_mut();
                resting.pop_front_if(|(until, _)| *until <= now)
            };
            let Some((_, waker)) = rested else { return };
            waker.wake();
        }
    }
}

/// To be called as this thread's runtime parks: nothing is ready to run. A saturated core sleeps here until the next rest
/// ends: in the poll below each message that comes would wake it, only to find its connection at rest.
pub(crate) fn park() {
    CORE.with(|core| {
        core.parked_at.set(Some(Instant::now()));
        let Some(clock) = core.clock.get() else {
            return;
        };
        if let Some(end) = core.sleeps_until() {
            let end = clock.instant(end).into_std();
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            core.wake_rested(clock.now());
        }
    });
}

/// To be called as it goes on. A core that had to wait for something to do is not saturated; one
/// that finds the next events at once is.
pub(crate) fn unpark() {
    CORE.with(|core| {
        if let Some(at) = core.parked_at.take() {
            core.was_idle(at.elapsed());
        }
    });
}

/// A connection of this thread has been read. Until when it is to be left alone, if it is: `waker`
/// is woken then.
pub(crate) fn after_read(now: Time, waker: &Waker) -> Option<Time> {
    CORE.with(|core| core.rest(now, waker))
}

/// Wakes the rested connections of this thread; runs until the task is dropped.
pub(crate) async fn moderate(hub: Arc<Hub>) {
    CORE.with(|core| {
        core.moderating.set(true);
        core.clock.set(Some(hub.clock));
    });
    quiet::begin(hub.clock);
    loop {
        let end = poll_fn(|cx| CORE.with(|core| core.next_end(cx))).await;
        tokio::time::sleep_until(hub.clock.instant(end)).await;
        CORE.with(|core| core.wake_rested(hub.clock.now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(1_000_000 + millis)
    }

    fn core() -> Core {
        let core = Core::new();
        core.moderating.set(true);
        core
    }

    #[test]
    fn nothing_rests_on_a_core_that_parks() {
        let core = core();
        for millis in 0..100 {
            assert_eq!(core.rest(at(millis), Waker::noop()), None);
            if millis % 2 == 1 {
                core.was_idle(IDLE);
            }
        }
    }

    #[test]
    fn a_core_that_idles_because_of_rests_goes_on_with_them_until_it_idles_for_long() {
        let core = core();
        let rests = |millis| core.rest(at(millis), Waker::noop()).is_some();
        assert!(!rests(0));
        assert!(rests(2));
        // Half of the time there is nothing to do, which would be all of it without rests.
        for millis in 3..100 {
            core.was_idle(Duration::from_micros(500));
            assert!(rests(millis), "{millis}");
        }
        // Now there is little to do; at the end of the watch it shows.
        let mut resting = 0;
        for millis in 100..200 {
            core.was_idle(Duration::from_micros(900));
            resting += u64::from(rests(millis));
        }
        assert!(resting <= 2 * WATCH_MS, "{resting}");
    }

    #[test]
    fn on_a_saturated_core_each_rests_as_long_and_is_woken_once_at_its_end() {
        let (core, count) = (core(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::Relaxed);
        assert_eq!(core.rest(at(0), &waker), None);
        assert_eq!(core.rest(at(2), &waker), Some(at(6)));
        assert_eq!(core.rest(at(3), &waker), Some(at(7)));
        for (now, expected) in [(5, 0), (6, 1), (6, 1), (9, 2), (20, 2)] {
            core.wake_rested(at(now));
            assert_eq!(woken(), expected, "at {now}");
        }
    }

    #[test]
    fn only_a_saturated_core_with_connections_at_rest_sleeps_and_only_until_the_first_is_rested() {
        let core = core();
        assert_eq!(core.sleeps_until(), None);
        core.rest(at(0), Waker::noop());
        assert_eq!(core.sleeps_until(), None, "not saturated yet");
        core.rest(at(2), Waker::noop());
        core.rest(at(3), Waker::noop());
        assert_eq!(core.sleeps_until(), Some(at(6)));
        core.wake_rested(at(6));
        assert_eq!(core.sleeps_until(), Some(at(7)));
        core.wake_rested(at(7));
        assert_eq!(core.sleeps_until(), None, "nothing rests");
        core.rest(at(8), Waker::noop());
        // A watch with next to nothing to do: it shows at the next reading.
        core.was_idle(Duration::from_millis(WATCH_MS));
        core.rest(at(20), Waker::noop());
        assert_eq!(core.sleeps_until(), None, "not saturated any more");
    }

    #[test]
    fn the_attendant_is_woken_when_there_is_something_to_wait_for() {
        let (core, count) = (core(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        assert!(core.next_end(&cx).is_pending());
        core.rest(at(0), Waker::noop());
        core.rest(at(5), Waker::noop());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(core.next_end(&cx), Poll::Ready(at(9)));
    }

    #[test]
    fn a_thread_that_does_not_moderate_lets_nothing_rest() {
        let core = Core::new();
        assert_eq!(core.rest(at(0), Waker::noop()), None);
        assert_eq!(core.rest(at(1_000), Waker::noop()), None);
    }
}
