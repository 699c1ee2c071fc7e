//! How long a fetch may go on: until the job's window closes, or its manifest runs out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Clock;
use crate::update::Order;

/// How long it is until a server's `until`, and when that is by this device's clock, which may stand elsewhere; `said_at` is
/// what the server took the time for when it said so. Where it does not say, its clock is taken for this one. All are in
/// seconds, since 1970 or of a span.
#[must_use]
pub(crate) fn by_own_clock(until: u64, said_at: Option<u64>, clock: &Clock) -> (u64, u64) {
    let now = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = until.saturating_sub(said_at.unwrap_or(now.as_secs()));
    (left, now.as_secs().saturating_add(left))
}

/// How long one job may take.
pub(crate) struct Term<'a> {
    clock: &'a Clock,
    until: Option<SystemTime>,
    /// When its manifest runs out, once that is known.
    pub expires: Option<SystemTime>,
}

impl<'a> Term<'a> {
    /// What the job says of it.
    pub(crate) fn of(order: &Order, clock: &'a Clock) -> Self {
        let until = order.until.map(Duration::from_secs);
        Self {
            clock,
            // A time that no clock can show never comes.
            until: until.and_then(|until| UNIX_EPOCH.checked_add(until)),
            expires: None,
        }
    }

    /// Whether the window has closed: nothing is begun any more.
    pub(crate) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= self.clock.now())
    }

    /// Whether it is of no use to go on.
    pub(crate) fn is_over(&self) -> bool {
        self.end().is_some_and(|end| end <= self.clock.now())
    }

    /// A wait no longer than what is left.
    pub(crate) fn bound(&self, wait: Duration) -> Duration {
        let left = |end: SystemTime| end.duration_since(self.clock.now()).unwrap_or_default();
        self.end().map_or(wait, |end| wait.min(left(end)))
    }

    fn end(&self) -> Option<SystemTime> {
        self.until.into_iter().chain(self.expires).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(until: Option<u64>) -> Order {
        let name = "lamp".parse().unwrap();
        let order = Order::new(name, "1.0".parse().unwrap(), "r-1".parse().unwrap(), false);
        Order { until, ..order }
    }

    #[test]
    fn the_nearer_of_window_and_manifest_ends_it() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let clock = Clock::since(UNIX_EPOCH);
        let long = Duration::from_secs(3600);
        let endless = order(None);
        let mut term = Term::of(&endless, &clock);
        assert!(!term.is_over() && !term.is_late());
        assert_eq!(term.bound(long), long);
        term.expires = Some(SystemTime::now() + Duration::from_secs(60));
        assert!(!term.is_over() && term.bound(long) <= Duration::from_secs(60));
        term.expires = Some(UNIX_EPOCH);
        assert!(term.is_over() && !term.is_late());
        assert_eq!(term.bound(long), Duration::ZERO);
        let windowed = order(Some(now - 1));
        assert!(Term::of(&windowed, &clock).is_late());
        let windowed = order(Some(now + 60));
        let term = Term::of(&windowed, &clock);
        assert!(!term.is_late() && term.bound(long) <= Duration::from_secs(60));
        assert!(!Term::of(&order(Some(u64::MAX)), &clock).is_late());
    }

    #[test]
    fn a_window_of_a_server_in_another_time_lasts_as_long_here() {
        let clock = Clock::since(UNIX_EPOCH);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (left, until) = by_own_clock(1_000_060, Some(1_000_000), &clock);
        assert_eq!(left, 60);
        assert!((now + 60..now + 120).contains(&until), "{until} {now}");
        let (left, until) = by_own_clock(1, Some(2), &clock);
        assert!(left == 0 && until < now + 60);
        let endless = by_own_clock(u64::MAX, Some(0), &clock);
        assert_eq!(endless, (u64::MAX, u64::MAX));
        // Nothing is said of the server's clock.
        let (left, until) = by_own_clock(now + 600, None, &clock);
        assert!(left <= 600 && until == now + 600, "{left} {until}");
    }
}
