//! How fast images and deltas leave, all downloads together, so that messages are not held up by them.
//!
//! Each download books its next piece when the one before is on its way, and all of them in one row: whoever
//! waits is served in turn, so each gets the same share. Pieces become smaller while many wait, lest a device
//! takes the silence between two of them for a broken connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes a second that leave as images, unless the operator says otherwise.
pub const DEFAULT_DOWNLOAD_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// Downloads of one thing at once: more are of no use to it.
pub const MAX_DOWNLOADS_OF_A_THING: usize = 4;
/// The largest piece in bytes, and the smallest.
const PIECE: (u64, u64) = (64 * 1024, 2 * 1024);
/// Within this time each download under way gets a piece.
const TURN: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Row {
    /// Bytes a second; 0: as fast as they go.
    rate: u64,
    /// When what has been booked will have left.
    free_at: Option<Instant>,
    /// Downloads under way.
    all: usize,
    of: HashMap<String, usize>,
}

impl Row {
    fn book(&mut self, bytes: u64, now: Instant) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let from = self.free_at.map_or(now, |at| at.max(now));
        self.free_at = Some(from + self.takes(bytes));
        from.saturating_duration_since(now)
    }

    fn takes(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn piece(&self) -> u64 {
        if self.rate == 0 {
            return PIECE.0;
        }
        let all = u64::try_from(self.all.max(1)).unwrap_or(u64::MAX);
        (self.rate.saturating_mul(TURN.as_secs()) / all).clamp(PIECE.1, PIECE.0)
    }
}

/// The bound that all downloads share. Clones are the same one.
#[derive(Clone, Default)]
pub struct Shaper(Arc<Mutex<Row>>);

impl Shaper {
    /// At most `bytes_per_second` leave from now on; 0 takes the bound away.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.row().rate = bytes_per_second;
    }

    /// A download of `thing` begins; `None` where it has [`MAX_DOWNLOADS_OF_A_THING`] already.
    #[must_use]
    pub fn begin(&self, thing: &str) -> Option<Download> {
        let mut row = self.row();
        let mine = row.of.entry(thing.to_owned()).or_default();
        if *mine >= MAX_DOWNLOADS_OF_A_THING {
            return None;
        }
        *mine += 1;
        row.all += 1;
        Some(Download {
            shaper: self.clone(),
            thing: thing.to_owned(),
        })
    }

    /// Bytes leave that nobody has waited for: downloads wait so much longer. How long they take.
    #[must_use]
    pub fn charge(&self, bytes: u64, now: Instant) -> Duration {
        let mut row = self.row();
        if row.rate == 0 {
            return Duration::ZERO;
        }
        row.book(bytes, now);
        row.takes(bytes)
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A download under way, until it is dropped.
pub struct Download {
    shaper: Shaper,
    thing: String,
}

impl Download {
    /// Books the next piece, of at most `most` bytes: how many bytes it has, and how long to wait before they
    /// are sent.
    #[must_use]
    pub fn book(&self, most: u64, now: Instant) -> (u64, Duration) {
        let mut row = self.shaper.row();
        let bytes = row.piece().min(most);
        let wait = row.book(bytes, now);
        (bytes, wait)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let mut row = self.shaper.row();
        row.all = row.all.saturating_sub(1);
        if let Some(mine) = row.of.get_mut(&self.thing) {
            *mine -= 1;
            if *mine == 0 {
                row.of.remove(&self.thing);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// What each of these downloads got within so many seconds, taking the next piece as soon as it may.
    fn run(rate: u64, downloads: usize, seconds: u64) -> Vec<u64> {
        let shaper = Shaper::default();
        shaper.set_rate(rate);
        let start = Instant::now();
        let all: Vec<Download> = (0..downloads)
            .map(|number| shaper.begin(&format!("lamp-{number}")).unwrap())
            .collect();
        let mut due = vec![(start, 0_u64, 0_u64); downloads];
        let end = start + Duration::from_secs(seconds);
        loop {
            let (next, (at, ..)) = due
                .iter()
                .copied()
                .enumerate()
                .min_by_key(|(_, (at, ..))| *at)
                .unwrap();
            if at >= end {
                return due.into_iter().map(|(_, got, _)| got).collect();
            }
            let (bytes, wait) = all[next].book(u64::MAX, at);
            let (when, got, coming) = due[next];
            due[next] = (when + wait, got + coming, bytes);
            if wait.is_zero() {
                due[next].0 += Duration::from_nanos(1);
            }
        }
    }

    #[test]
    fn all_together_get_the_rate_and_each_the_same() {
        for downloads in [1, 7, 1000] {
            let got = run(16 * MIB, downloads, 10);
            let (sum, most, least) = (
                got.iter().sum::<u64>(),
                got.iter().max().unwrap(),
                got.iter().min().unwrap(),
            );
            assert!(sum <= 161 * MIB, "{downloads}: {sum}");
            assert!(sum >= 150 * MIB, "{downloads}: {sum}");
            assert!(
                most - least <= 2 * PIECE.0,
                "{downloads}: {least} to {most}"
            );
        }
    }

    #[test]
    fn nobody_waits_longer_than_a_turn_however_many_there_are() {
        let shaper = Shaper::default();
        shaper.set_rate(16 * MIB);
        let now = Instant::now();
        let all: Vec<Download> = (0..8000)
            .map(|number| shaper.begin(&format!("lamp-{number}")).unwrap())
            .collect();
        let longest = all
            .iter()
            .map(|one| one.book(u64::MAX, now).1)
            .max()
            .unwrap();
        assert!(longest <= TURN, "{longest:?}");
        assert!(longest >= TURN / 2, "{longest:?}");
    }

    #[test]
    fn a_thing_has_so_many_downloads_and_no_more() {
        let shaper = Shaper::default();
        let mut mine: Vec<Download> = (0..MAX_DOWNLOADS_OF_A_THING)
            .map(|_| shaper.begin("lamp").unwrap())
            .collect();
        assert!(shaper.begin("lamp").is_none());
        assert!(shaper.begin("other").is_some());
        mine.pop();
        assert!(shaper.begin("lamp").is_some());
        mine.clear();
        assert!(shaper.row().of.is_empty() && shaper.row().all == 0);
    }

    #[test]
    fn without_a_rate_nobody_waits_and_what_is_charged_is_waited_for() {
        let shaper = Shaper::default();
        let (one, now) = (shaper.begin("lamp").unwrap(), Instant::now());
        assert_eq!(one.book(u64::MAX, now), (PIECE.0, Duration::ZERO));
        assert_eq!(shaper.charge(MIB, now), Duration::ZERO);
        shaper.set_rate(MIB);
        assert_eq!(shaper.charge(MIB, now), Duration::from_secs(1));
        assert_eq!(one.book(10, now), (10, Duration::from_secs(1)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(rate in 1000..100_000_000_u64, books in prop::collection::vec((1..PIECE.0, 0..50_u64), 1..200)) {
            let shaper = Shaper::default();
            shaper.set_rate(rate);
            let (one, start) = (shaper.begin("lamp").unwrap(), Instant::now());
            let (mut now, mut sent) = (start, 0);
            for (most, pause) in books {
                now += Duration::from_millis(pause);
                let (bytes, wait) = one.book(most, now);
                prop_assert!(bytes <= most);
                // All that was sent before has had its time, but for rounding.
                let allowed = (now + wait - start).as_nanos() * u128::from(rate) / 1_000_000_000;
                prop_assert!(sent <= allowed + 200, "{} {}", sent, allowed);
                sent += u128::from(bytes);
            }
        }
    }
}
