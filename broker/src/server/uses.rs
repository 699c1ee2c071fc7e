//! How often a remembered decision was gone by. The record of what devices do has to know it, and must not be asked at each
//! message: a connection counts beside what it remembers, and tells of it every few seconds at most and at its end.

use crate::session::Time;

/// Least time between two tellings of a connection, in milliseconds.
const TOLD_EVERY_MS: u64 = 10_000;

/// Uses of one decision that were not told yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    times: u32,
    last: Option<Time>,
}

impl Uses {
    /// Once more.
    pub(crate) fn count(&mut self, now: Time) {
        self.times = self.times.saturating_add(1);
        self.last = Some(now);
    }

    /// The newest one has been told by itself.
    pub(crate) fn discount(&mut self) {
        self.times = self.times.saturating_sub(1);
    }

    /// How many there were and when the last one was, if any; they are told then.
    pub(crate) fn take(&mut self) -> Option<(u32, Time)> {
        let Self { times, last } = std::mem::take(self);
        last.filter(|_| times > 0).map(|last| (times, last))
    }
}

/// When a connection is to tell of uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Telling {
    since: Option<Time>,
}

impl Telling {
    /// Whether it is time, at a use.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        let since = *self.since.get_or_insert(now);
        let due = now.millis_since(since) >= TOLD_EVERY_MS;
        if due {
            self.since = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(1_000_000 + millis)
    }

    #[test]
    fn uses_are_told_once_with_the_time_of_the_last() {
        let mut uses = Uses::default();
        assert_eq!(uses.take(), None);
        uses.count(at(1));
        uses.discount();
        assert_eq!(uses.take(), None);
        for millis in 1..=5 {
            uses.count(at(millis));
        }
        assert_eq!(uses.take(), Some((5, at(5))));
        assert_eq!(uses.take(), None);
    }

    #[test]
    fn a_connection_tells_ten_seconds_after_it_told() {
        let mut telling = Telling::default();
        let due: Vec<u64> = (0..35_000)
            .step_by(1000)
            .filter(|millis| telling.is_due(at(*millis)))
            .collect();
        assert_eq!(due, [10_000, 20_000, 30_000]);
    }
}
