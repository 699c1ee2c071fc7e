//! Log lines that an attacker can cause, bounded per second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines per second; what is beyond is counted in the statistics only.
const LINES_PER_SECOND: u64 = 20;

/// Says whether one more line may be written. Shared by all cores, without a lock.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    // The second since the start, times 2^16, plus the lines written in it.
    state: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl Sampler {
    /// With a whole second's share.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            state: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// Takes one line's worth of this second's share.
    pub fn take(&self) -> bool {
        self.take_at(self.started.elapsed().as_secs())
    }

    /// As [`Sampler::take`]; with a line comes how many were left out before it, to be said in it.
    pub fn take_counting(&self) -> Option<u64> {
        self.take_counting_at(self.started.elapsed().as_secs())
    }

    fn take_counting_at(&self, second: u64) -> Option<u64> {
        if self.take_at(second) {
            Some(self.left_out.swap(0, Ordering::Relaxed))
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    fn take_at(&self, second: u64) -> bool {
        self.state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                if state >> 16 != second {
                    Some(second << 16 | 1)
                } else {
                    (state & 0xFFFF < LINES_PER_SECOND).then_some(state + 1)
                }
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_no_more() {
        let sampler = Sampler::new();
        for second in [5, 6] {
            for _ in 0..LINES_PER_SECOND {
                assert!(sampler.take_at(second));
            }
            assert!(!sampler.take_at(second));
        }
    }

    #[test]
    fn what_is_left_out_is_said_with_the_next_line() {
        let sampler = Sampler::new();
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(sampler.take_counting_at(5), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(sampler.take_counting_at(5), None);
        }
        assert_eq!(sampler.take_counting_at(6), Some(3));
        assert_eq!(sampler.take_counting_at(6), Some(0));
    }
}
