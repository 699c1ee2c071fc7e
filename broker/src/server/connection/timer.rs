//! One timer per connection, moved only when it must ring earlier.
//!
//! Keep alive pushes its deadline back with every packet; the timer is left where it is and, when
//! it rings, set to what is due by then. Of thousands of connections that hear nothing many are
//! looked at in one waking of their core: silence may last a little longer than it must.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Context;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;

use super::{Connection, End};
use crate::session::Time;

/// How often to look while the journal is failing, so that its recovery is noticed.
const JOURNAL_LOOK: Duration = Duration::from_secs(1);

/// Silence that ends later than so many milliseconds from now is looked for at full multiples of as many.
const SILENCE_GRID_MS: u64 = 512;

/// The moment for a look at one that is silent.
fn coarse(due: Time, now: Time) -> Time {
    if due.millis_since(now) < SILENCE_GRID_MS {
        return due;
    }
    let grid = due.as_millis().div_ceil(SILENCE_GRID_MS);
    Time::from_millis(grid.saturating_mul(SILENCE_GRID_MS))
}

#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<(Pin<Box<Sleep>>, Time)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Ends what is overdue and sets the timer for what is due next.
    pub(super) fn keep_time(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // Silent is who was heard out: what waits unread because we are behind may be a word in time [MQTT-3.1.2-22].
        let silent = self.session.deadline().filter(|_| self.heard_out);
        if silent.is_some_and(|due| due <= self.now) {
            self.session.handle_timeout(self.now).map_err(End::Broke)?;
        }
        if self.stall_due().is_some_and(|due| due <= self.now) {
            return Err(End::Stalled);
        }
        let unfinished = self.unfinished_due().filter(|_| self.heard_out);
        if unfinished.is_some_and(|due| due <= self.now) {
            return Err(End::Dripped);
        }
        if self.not_after < self.now {
            self.look_again();
            self.check_standing()?;
            // What that has put into the output, or let go on, this turn does not look at any more.
            cx.waker().wake_by_ref();
        }
        loop {
            let look = (!self.waiting.is_empty()
                || self.stalled.is_some()
                || self.owes_retained()
                || self.awaited_delivery().is_some())
            .then(|| self.now.plus_millis(JOURNAL_LOOK.as_millis() as u64));
            let due = [
                silent.map(|due| coarse(due, self.now)),
                unfinished,
                self.stall_due(),
                look,
                Some(self.not_after.plus_millis(1)),
            ]
            .into_iter()
            .flatten()
            .min();
            let Some(due) = due else { return Ok(()) };
            let at = self.hub.clock.instant(due);
            match &mut self.timer.sleep {
                None => self.timer.sleep = Some((Box::pin(tokio::time::sleep_until(at)), due)),
                // Not to ring before that, and this task has been told of: there is nothing to ask.
                Some((_, set)) if *set <= due && self.now < *set => return Ok(()),
                Some((sleep, set)) if due < *set || sleep.is_elapsed() => {
                    sleep.as_mut().reset(at);
                    *set = due;
                }
                Some(_) => {}
            }
            let Some((sleep, _)) = &mut self.timer.sleep else {
                return Ok(());
            };
            // Pending means that this task will be woken, whatever is left of its budget.
            if pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                return Ok(());
            }
            self.asked = None;
            if due <= self.hub.clock.now() {
                // Rung in this very moment: come back with a new look at the clock.
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    fn unfinished_due(&self) -> Option<Time> {
        let most = u64::try_from(self.hub.limits.packet_time.as_millis()).unwrap_or(u64::MAX);
        self.partial_since.map(|since| since.plus_millis(most))
    }

    fn stall_due(&self) -> Option<Time> {
        let stall = u64::try_from(self.hub.limits.write_stall.as_millis()).unwrap_or(u64::MAX);
        self.blocked_since.map(|since| since.plus_millis(stall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_looked_for_in_common_and_never_early() {
        let at = Time::from_millis;
        assert_eq!(
            coarse(at(1_300), at(1_000)),
            at(1_300),
            "soon: at its moment"
        );
        assert_eq!(coarse(at(91_000), at(1_000)), at(91_136));
        assert_eq!(coarse(at(91_136), at(1_000)), at(91_136));
        for due in 91_000..92_000 {
            let look = coarse(at(due), at(1_000)).as_millis();
            assert!(
                look >= due && look - due < SILENCE_GRID_MS && look.is_multiple_of(SILENCE_GRID_MS)
            );
        }
    }
}
