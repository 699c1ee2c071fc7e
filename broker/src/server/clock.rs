//! Wall time that never runs backwards: read once at start, then counted on by the monotonic clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::session::Time;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    epoch_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self::at(Time::from_millis(millis(since_epoch)))
    }

    /// Begins at `now`.
    pub(crate) fn at(now: Time) -> Self {
        Self {
            started: Instant::now(),
            epoch_ms: now.as_millis(),
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_millis(self.epoch_ms.saturating_add(millis(self.started.elapsed())))
    }

    /// The monotonic moment of a time, for timers.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        let after = Duration::from_millis(time.as_millis().saturating_sub(self.epoch_ms));
        // A moment too far away to be told is one the timer need not wait for in one go.
        self.started
            .checked_add(after)
            .unwrap_or_else(|| self.started + Duration::from_secs(365 * 24 * 3600))
    }

    /// The time as the registry counts it.
    pub(crate) fn wall(time: Time) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(time.as_millis())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the epoch of a moment of the registry; far ends are clipped.
pub(crate) fn time_of(moment: SystemTime) -> Time {
    Time::from_millis(millis(
        moment.duration_since(UNIX_EPOCH).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_the_wall_clock() {
        let before = time_of(SystemTime::now());
        let clock = Clock::start();
        let now = clock.now();
        assert!(now >= before);
        assert!(now.millis_since(before) < 60_000);
        assert_eq!(time_of(Clock::wall(now)), now);
    }
}
