//! How often a claim may ask: a bucket that fills by the minute. In memory only; a restart fills it.

use ca::CertificateId;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Buckets kept; past it those that are full again are dropped.
const BUCKETS_LIMIT_ITEMS: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Rates {
    buckets: HashMap<(CertificateId, bool), Bucket>,
}

struct Bucket {
    /// When it will be full again if nobody asks.
    full_at: Instant,
}

impl Rates {
    /// Takes one from the bucket; `false` when it is empty. `per_minute` is what it holds and what it gets.
    pub(super) fn take(
        &mut self,
        who: CertificateId,
        registers: bool,
        per_minute: u32,
        now: Instant,
    ) -> bool {
        let Some(each) = MINUTE.checked_div(per_minute) else {
            return false;
        };
        if self.buckets.len() >= BUCKETS_LIMIT_ITEMS {
            self.buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let bucket = self
            .buckets
            .entry((who, registers))
            .or_insert(Bucket { full_at: now });
        let full_at = bucket.full_at.max(now) + each;
        // `each` is rounded down, so that a full minute's worth always fits.
        if full_at > now + MINUTE {
            return false;
        }
        bucket.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(n: u8) -> CertificateId {
        format!("{n:02x}").repeat(32).parse().unwrap()
    }

    #[test]
    fn a_minute_gives_as_many_as_it_says() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let taken = |rates: &mut Rates, at| {
            (0..100)
                .filter(|_| rates.take(claim(1), false, 10, at))
                .count()
        };
        assert_eq!(taken(&mut rates, start), 10);
        assert_eq!(taken(&mut rates, start + Duration::from_secs(6)), 1);
        assert_eq!(taken(&mut rates, start + Duration::from_secs(600)), 10);
        assert!(
            rates.take(claim(2), false, 10, start),
            "another claim has its own"
        );
        assert!(
            rates.take(claim(1), true, 10, start),
            "and another kind of request"
        );
        assert!(!rates.take(claim(3), false, 0, start));
    }

    proptest! {
        /// Over any minute at most twice the rate, over any longer time the rate and one bucket.
        #[test]
        fn never_more_than_bucket_and_refill(rate in 1_u32..50, steps in proptest::collection::vec(0_u64..5_000, 1..300)) {
            let (mut rates, start) = (Rates::default(), Instant::now());
            let (mut at, mut taken) = (Duration::ZERO, 0_u64);
            for step in steps {
                at += Duration::from_millis(step);
                taken += u64::from(rates.take(claim(1), false, rate, start + at));
                let most = u64::from(rate) + (at.as_millis() as u64 * u64::from(rate)) / 60_000 + 1;
                prop_assert!(taken <= most, "{taken} > {most}");
            }
        }
    }
}
