//! The open loop's schedule: messages are due at a steady rate whatever the broker does.
//!
//! A message's latency counts from the moment it was due, not from when it could be sent: a broker that holds a
//! publisher up would otherwise hide the messages that were not sent meanwhile (coordinated omission). What is not held
//! against the broker is the runtime's own timer, which wakes a publisher up to [`TIMER_NS`] late.

/// How late the runtime's timer may wake a task: its own millisecond, and that of the system call it waits in.
pub(crate) const TIMER_NS: u64 = 2_000_000;

/// When one publisher's messages are due, in nanoseconds of the run's clock. It does not drift.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    first_ns: u64,
    every_ns: f64,
    taken: u64,
    woke_ns: u64,
}

impl Schedule {
    pub(crate) fn new(first_ns: u64, every_ns: f64) -> Self {
        Self {
            first_ns,
            every_ns,
            taken: 0,
            woke_ns: 0,
        }
    }

    /// When the next message is due.
    pub(crate) fn due_ns(&self) -> u64 {
        self.first_ns
            .saturating_add((self.taken as f64 * self.every_ns) as u64)
    }

    /// How many messages that are due before `end_ns` have not been taken.
    pub(crate) fn left_before(&self, end_ns: u64) -> u64 {
        let span = end_ns.saturating_sub(self.first_ns) as f64;
        let due = (span / self.every_ns).ceil() as u64;
        due.saturating_sub(self.taken)
    }

    /// The publisher has slept until the next message was due, and this is when it woke.
    pub(crate) fn woke(&mut self, now_ns: u64) {
        self.woke_ns = now_ns;
    }

    /// Takes the next message: from when its latency counts.
    pub(crate) fn take(&mut self) -> u64 {
        let due_ns = self.due_ns();
        self.taken += 1;
        due_ns.max(self.woke_ns.min(due_ns.saturating_add(TIMER_NS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_timers_lateness_is_not_the_brokers() {
        let mut schedule = Schedule::new(10 * MS, 5.0 * MS as f64);
        assert_eq!(schedule.due_ns(), 10 * MS);
        schedule.woke(11 * MS);
        assert_eq!(schedule.take(), 11 * MS);
        assert_eq!(schedule.due_ns(), 15 * MS);
    }

    #[test]
    fn messages_that_could_not_be_sent_count_from_when_they_were_due() {
        let mut schedule = Schedule::new(10 * MS, 5.0 * MS as f64);
        schedule.woke(10 * MS);
        schedule.take();
        // The broker takes nothing for 30 ms; then the rest is sent at once, without a sleep.
        assert_eq!([schedule.take(), schedule.take()], [15 * MS, 20 * MS]);
    }

    #[test]
    fn what_is_left_is_what_is_due_and_not_taken() {
        let mut schedule = Schedule::new(10 * MS, 5.0 * MS as f64);
        assert_eq!(schedule.left_before(10 * MS), 0);
        assert_eq!(schedule.left_before(15 * MS), 1);
        assert_eq!(schedule.left_before(16 * MS), 2);
        schedule.take();
        assert_eq!(schedule.left_before(16 * MS), 1);
        assert_eq!(schedule.left_before(9 * MS), 0);
    }

    #[test]
    fn a_load_that_gets_no_processor_is_not_silent_about_it() {
        let mut schedule = Schedule::new(10 * MS, 5.0 * MS as f64);
        schedule.woke(18 * MS);
        assert_eq!(schedule.take(), 12 * MS);
        assert_eq!(schedule.take(), 17 * MS);
    }

    proptest! {
        #[test]
        fn stamps_never_come_before_their_time_nor_long_after(
            first in 0..MS, every in 1.0..1e9_f64, waits in prop::collection::vec(0..50 * MS, 1..50)
        ) {
            let mut schedule = Schedule::new(first, every);
            let mut now = 0;
            for (n, wait) in waits.into_iter().enumerate() {
                now += wait;
                let due = schedule.due_ns();
                prop_assert_eq!(due, first + (n as f64 * every) as u64);
                if due > now {
                    now = due + wait;
                    schedule.woke(now);
                }
                let stamp = schedule.take();
                prop_assert!((due..=due + TIMER_NS).contains(&stamp));
                prop_assert!(stamp <= now.max(due));
            }
        }
    }
}
