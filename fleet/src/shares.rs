//! A share for each of a queue that many put into: so many of one's own may wait, so many bytes of them, and so many
//! may come in a minute. Who takes more is refused, and nobody else notices.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Shares remembered before those that are whole again are looked for.
const REMEMBERED_ITEMS: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// What one may take of a queue, and all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareBounds {
    /// How many of one may wait.
    pub waiting: usize,
    /// How many bytes of one may wait. A single one may be longer.
    pub waiting_bytes: usize,
    /// How many of one may come in a minute: what the bucket holds, and what flows into it. At least 1.
    pub per_minute: u32,
    /// How many of all may wait.
    pub all_waiting: usize,
    /// How many bytes of all may wait.
    pub all_waiting_bytes: usize,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// One's own wait already.
    #[error("too many requests of this device wait; try again later")]
    Own,
    /// One's own come too fast.
    #[error("this device asks more than {0} times a minute; try again later")]
    Rate(u32),
    /// Those of all together are too many.
    #[error("too many requests wait; try again later")]
    All,
}

/// The shares of one queue. Clones share them.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: ShareBounds,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    by_whom: HashMap<String, Share>,
    waiting: usize,
    waiting_bytes: usize,
    /// How many shares may be remembered before the next look.
    remembered: usize,
}

#[derive(Debug)]
struct Share {
    waiting: usize,
    waiting_bytes: usize,
    /// When the bucket is full again if nothing more comes.
    full_at: Instant,
}

/// A place in the queue, given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    shares: Shares,
    who: String,
    bytes: usize,
}

impl Shares {
    /// With nobody waiting.
    #[must_use]
    pub fn new(bounds: ShareBounds) -> Self {
        Self(Arc::new(Inner {
            bounds,
            taken: Mutex::new(Taken {
                remembered: REMEMBERED_ITEMS,
                ..Taken::default()
            }),
        }))
    }

    /// A place for something of `bytes` that `who` puts in.
    ///
    /// # Errors
    /// [`Crowded`]: there is none, and nothing is taken.
    pub fn take(&self, who: &str, bytes: usize, now: Instant) -> Result<Seat, Crowded> {
        let bounds = &self.0.bounds;
        let mut taken = self.0.taken.lock();
        let share = taken.by_whom.get(who);
        if share.is_some_and(|share| !share.has_room(bytes, bounds)) {
            return Err(Crowded::Own);
        }
        let each = MINUTE / bounds.per_minute.max(1);
        let full_at = share.map_or(now, |share| share.full_at.max(now)) + each;
        // `each` is rounded down, so that a full minute's worth always fits.
        if full_at > now + MINUTE {
            return Err(Crowded::Rate(bounds.per_minute));
        }
        if taken.waiting >= bounds.all_waiting
            || (taken.waiting > 0
                && taken.waiting_bytes.saturating_add(bytes) > bounds.all_waiting_bytes)
        {
            return Err(Crowded::All);
        }
        taken.waiting += 1;
        taken.waiting_bytes += bytes;
        if let Some(share) = taken.by_whom.get_mut(who) {
            share.waiting += 1;
            share.waiting_bytes += bytes;
            share.full_at = full_at;
        } else {
            taken.look_over(now);
            let share = Share {
                waiting: 1,
                waiting_bytes: bytes,
                full_at,
            };
            taken.by_whom.insert(who.to_owned(), share);
        }
        Ok(Seat {
            shares: self.clone(),
            who: who.to_owned(),
            bytes,
        })
    }
}

impl Share {
    fn has_room(&self, bytes: usize, bounds: &ShareBounds) -> bool {
        self.waiting < bounds.waiting
            && (self.waiting == 0
                || self.waiting_bytes.saturating_add(bytes) <= bounds.waiting_bytes)
    }
}

impl Taken {
    /// Forgets the shares that are whole again, once in so many that it costs nothing.
    fn look_over(&mut self, now: Instant) {
        if self.by_whom.len() < self.remembered {
            return;
        }
        self.by_whom
            .retain(|_, share| share.waiting > 0 || share.full_at > now);
        self.remembered = REMEMBERED_ITEMS.max(2 * self.by_whom.len());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.shares.0.taken.lock();
        taken.waiting = taken.waiting.saturating_sub(1);
        taken.waiting_bytes = taken.waiting_bytes.saturating_sub(self.bytes);
        if let Some(share) = taken.by_whom.get_mut(&self.who) {
            share.waiting = share.waiting.saturating_sub(1);
            share.waiting_bytes = share.waiting_bytes.saturating_sub(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: ShareBounds = ShareBounds {
        waiting: 4,
        waiting_bytes: 100,
        per_minute: 10,
        all_waiting: 6,
        all_waiting_bytes: 150,
    };

    #[test]
    fn nobody_takes_more_than_a_share_and_others_have_theirs() {
        let (shares, now) = (Shares::new(BOUNDS), Instant::now());
        let mut seats: Vec<Seat> = (0..4)
            .map(|_| shares.take("loud", 1, now).unwrap())
            .collect();
        assert_eq!(shares.take("loud", 1, now).unwrap_err(), Crowded::Own);
        seats.push(shares.take("quiet", 1, now).unwrap());
        seats.push(shares.take("other", 1, now).unwrap());
        assert_eq!(shares.take("third", 1, now).unwrap_err(), Crowded::All);
        // Who leaves makes room: for all, and for itself.
        seats.remove(0);
        seats.push(shares.take("loud", 1, now).unwrap());
        assert_eq!(shares.take("loud", 1, now).unwrap_err(), Crowded::Own);
    }

    #[test]
    fn bytes_are_counted_and_a_single_one_may_be_longer() {
        let (shares, now) = (Shares::new(BOUNDS), Instant::now());
        let long = shares.take("a", 120, now).unwrap();
        assert_eq!(shares.take("a", 0, now).unwrap_err(), Crowded::Own);
        assert_eq!(shares.take("b", 31, now).unwrap_err(), Crowded::All);
        let short = shares.take("b", 30, now).unwrap();
        drop(long);
        drop(short);
        // And all together, where nobody else waits.
        let longest = shares.take("a", 1_000, now).unwrap();
        assert_eq!(shares.take("b", 1, now).unwrap_err(), Crowded::All);
        drop(longest);
        shares.take("b", 1, now).unwrap();
    }

    #[test]
    fn a_minute_gives_as_many_as_it_says() {
        let (shares, start) = (Shares::new(BOUNDS), Instant::now());
        let came = |who, at| (0..100).filter(|_| shares.take(who, 1, at).is_ok()).count();
        assert_eq!(came("loud", start), 10);
        assert_eq!(
            shares.take("loud", 1, start).unwrap_err(),
            Crowded::Rate(10)
        );
        assert_eq!(came("quiet", start), 10, "another has its own");
        assert_eq!(came("loud", start + Duration::from_secs(6)), 1);
        assert_eq!(came("loud", start + Duration::from_secs(600)), 10);
    }

    #[test]
    fn shares_that_are_whole_again_are_forgotten() {
        let (shares, start) = (Shares::new(BOUNDS), Instant::now());
        let kept = shares.take("kept", 1, start).unwrap();
        for number in 0..3 * REMEMBERED_ITEMS {
            let at = start + MINUTE * u32::try_from(number).unwrap();
            shares.take(&number.to_string(), 1, at).unwrap();
        }
        let taken = shares.0.taken.lock();
        assert!(taken.by_whom.len() <= REMEMBERED_ITEMS);
        assert_eq!(taken.by_whom["kept"].waiting, 1);
        drop(taken);
        drop(kept);
    }

    proptest! {
        /// Whatever comes and goes, no bound is passed and what is taken is given back.
        #[test]
        fn no_bound_is_passed(steps in proptest::collection::vec((0_u8..4, 0_usize..40, 0_u64..5_000, any::<bool>()), 1..200)) {
            let (shares, mut now) = (Shares::new(BOUNDS), Instant::now());
            let mut seats: Vec<Seat> = Vec::new();
            for (who, bytes, step, leaves) in steps {
                now += Duration::from_millis(step);
                seats.extend(shares.take(&who.to_string(), bytes, now).ok());
                let sum = |seats: &[Seat]| seats.iter().map(|seat| seat.bytes).sum::<usize>();
                prop_assert!(seats.len() <= BOUNDS.all_waiting && sum(&seats) <= BOUNDS.all_waiting_bytes);
                let own: Vec<usize> = seats.iter().filter(|seat| seat.who == who.to_string()).map(|seat| seat.bytes).collect();
                prop_assert!(own.len() <= BOUNDS.waiting && own.iter().sum::<usize>() <= BOUNDS.waiting_bytes);
                if leaves && !seats.is_empty() {
                    seats.swap_remove(usize::from(who) % seats.len());
                }
            }
            drop(seats);
            let taken = shares.0.taken.lock();
            prop_assert_eq!((taken.waiting, taken.waiting_bytes), (0, 0));
            prop_assert!(taken.by_whom.values().all(|share| share.waiting == 0 && share.waiting_bytes == 0));
        }
    }
}
