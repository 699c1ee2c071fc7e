//! What is counted of a run, and when counting is on.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::payload::Head;

/// Latencies above a minute count as a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// The counters of a run. Times are nanoseconds of its own clock.
pub(crate) struct Tally {
    epoch: Instant,
    /// Tells messages of this run from others'.
    pub(crate) run: u32,
    start_ns: Cell<u64>,
    end_ns: Cell<u64>,
    /// Messages that may still be sent and counted.
    left: Cell<u64>,
    /// Counted messages that were sent.
    pub(crate) sent: Cell<u64>,
    /// Copies of them that came, whenever they did.
    pub(crate) received: Cell<u64>,
    /// Copies of any message that came while counting was on.
    pub(crate) delivered: Cell<u64>,
    /// Answers to messages of QoS 1 and 2 that came while counting was on.
    pub(crate) acknowledged: Cell<u64>,
    /// Publishers that have sent all they had to.
    pub(crate) finished: Cell<u32>,
    /// Messages of somebody else.
    pub(crate) foreign: Cell<u64>,
    last_ns: Cell<u64>,
    latency_ns: RefCell<Histogram<u64>>,
    late_ns: RefCell<Histogram<u64>>,
    /// The last message of a limited number has been sent.
    pub(crate) spent: Notify,
}

/// Whether a message is sent, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Before counting begins.
    Uncounted,
    Counted,
    /// The run is over.
    Over,
}

impl Tally {
    pub(crate) fn new(
        run: u32,
        messages: Option<u64>,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).map(RefCell::new);
        Ok(Self {
            epoch: Instant::now(),
            run,
            start_ns: Cell::new(u64::MAX),
            end_ns: Cell::new(u64::MAX),
            left: Cell::new(messages.unwrap_or(u64::MAX)),
            sent: Cell::new(0),
            received: Cell::new(0),
            delivered: Cell::new(0),
            acknowledged: Cell::new(0),
            finished: Cell::new(0),
            foreign: Cell::new(0),
            last_ns: Cell::new(0),
            latency_ns: histogram()?,
            late_ns: histogram()?,
            spent: Notify::new(),
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// When a moment of the clock is, for timers.
    pub(crate) fn instant(&self, ns: u64) -> tokio::time::Instant {
        (self.epoch + std::time::Duration::from_nanos(ns)).into()
    }

    /// Messages count from `start_ns` on and before `end_ns`.
    pub(crate) fn open(&self, start_ns: u64, end_ns: u64) {
        self.start_ns.set(start_ns);
        self.end_ns.set(end_ns);
    }

    /// Asks whether a message whose latency counts from `stamp_ns` is to be sent.
    pub(crate) fn admit(&self, stamp_ns: u64) -> Admission {
        if stamp_ns < self.start_ns.get() {
            return Admission::Uncounted;
        }
        if stamp_ns >= self.end_ns.get() || self.left.get() == 0 {
            return Admission::Over;
        }
        self.left.set(self.left.get() - 1);
        self.sent.set(self.sent.get() + 1);
        if self.left.get() == 0 {
            self.spent.notify_one();
        }
        Admission::Counted
    }

    /// A counted message left so much after it was due.
    pub(crate) fn left_late(&self, late_ns: u64) {
        self.late_ns.borrow_mut().saturating_record(late_ns);
    }

    /// A message has come.
    pub(crate) fn heard(&self, head: Head, now_ns: u64) {
        if self.counts(now_ns) {
            self.delivered.set(self.delivered.get() + 1);
        }
        if self.counts(head.stamp_ns) {
            self.received.set(self.received.get() + 1);
            self.last_ns.set(now_ns);
            let latency = now_ns.saturating_sub(head.stamp_ns);
            self.latency_ns.borrow_mut().saturating_record(latency);
        }
    }

    /// An answer to a message of QoS 1 or 2 has come.
    pub(crate) fn answered(&self) {
        if self.counts(self.now_ns()) {
            self.acknowledged.set(self.acknowledged.get() + 1);
        }
    }

    fn counts(&self, ns: u64) -> bool {
        (self.start_ns.get()..self.end_ns.get()).contains(&ns)
    }

    /// When the last counted message came.
    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns.get()
    }

    pub(crate) fn latency_ns(&self) -> std::cell::Ref<'_, Histogram<u64>> {
        self.latency_ns.borrow()
    }

    pub(crate) fn late_ns(&self) -> std::cell::Ref<'_, Histogram<u64>> {
        self.late_ns.borrow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(stamp_ns: u64) -> Head {
        Head {
            stamp_ns,
            source: 0,
            sequence: 0,
        }
    }

    #[test]
    fn a_message_counts_by_its_stamp_and_a_delivery_by_when_it_comes() {
        let tally = Tally::new(1, None).unwrap();
        assert_eq!(tally.admit(5), Admission::Uncounted);
        tally.open(10, 20);
        assert_eq!(tally.admit(9), Admission::Uncounted);
        assert_eq!(tally.admit(10), Admission::Counted);
        assert_eq!(tally.admit(19), Admission::Counted);
        assert_eq!(tally.admit(20), Admission::Over);
        tally.heard(head(9), 10);
        tally.heard(head(10), 12);
        tally.heard(head(19), 35);
        let counts = [&tally.sent, &tally.received, &tally.delivered];
        assert_eq!(counts.map(Cell::get), [2, 2, 2]);
        assert_eq!(tally.latency_ns().max(), 16);
        assert_eq!(tally.last_ns(), 35);
    }

    #[test]
    fn a_limited_number_of_messages_ends_the_run() {
        let tally = Tally::new(1, Some(2)).unwrap();
        tally.open(10, u64::MAX);
        assert_eq!(tally.admit(9), Admission::Uncounted);
        let admissions = [11, 12, 13].map(|stamp| tally.admit(stamp));
        assert_eq!(
            admissions,
            [Admission::Counted, Admission::Counted, Admission::Over]
        );
        assert_eq!(tally.sent.get(), 2);
    }
}
