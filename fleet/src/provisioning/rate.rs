//! How often a claim may ask: a bucket that fills by the minute. Whoever has the claim takes from the one bucket, so the
//! places that they ask from share it: where it is more than half empty, each takes its part of it and no more, and what
//! flows in is for those who have taken less. In memory only; a restart fills it.

use super::place::Place;
use ca::CertificateId;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Buckets kept; past it those that are full again are dropped.
const BUCKETS_LIMIT_ITEMS: usize = 10_000;
/// Places told apart at one bucket; those beyond share one part.
const PLACES_LIMIT_ITEMS: usize = 256;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Rates {
    buckets: HashMap<(CertificateId, bool), Bucket>,
}

struct Bucket {
    /// When it will be full again if nobody asks.
    full_at: Instant,
    /// Where it was asked from within the last minute.
    places: HashMap<Place, Part>,
}

/// What one place has taken of a bucket.
struct Part {
    /// As [`Bucket::full_at`], of what it has taken itself.
    full_at: Instant,
    asked: Instant,
}

impl Rates {
    /// Takes one from the bucket; `false` when it is empty. `per_minute` is what it holds and what it gets.
    pub(super) fn take(
        &mut self,
        who: CertificateId,
        registers: bool,
        place: Place,
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
            .or_insert_with(|| Bucket {
                full_at: now,
                places: HashMap::new(),
            });
        let full_at = bucket.full_at.max(now) + each;
        let places = &mut bucket.places;
        places.retain(|_, part| part.asked + MINUTE > now);
        let place = match places.len() < PLACES_LIMIT_ITEMS || places.contains_key(&place) {
            true => place,
            false => Place::of(None),
        };
        let part = places.entry(place).or_insert(Part {
            full_at: now,
            asked: now,
        });
        // Who is refused has asked, too: a part is kept for it.
        part.asked = now;
        // Its part flows in so much slower as there are parts, and one is always to be had.
        let own_full_at = part.full_at.max(now);
        let own_each = each * u32::try_from(places.len()).unwrap_or(u32::MAX);
        let own_full_at = own_full_at + own_each;
        let own_most = now + MINUTE.max(own_each);
        // `each` is rounded down, so that a full minute's worth always fits.
        if full_at > now + MINUTE || (own_full_at > own_most && full_at > now + MINUTE / 2) {
            return false;
        }
        bucket.full_at = full_at;
        if let Some(part) = places.get_mut(&place) {
            // What nobody else wanted is not held against it for longer.
            part.full_at = own_full_at.min(own_most);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(n: u8) -> Place {
        Place::of(Some([10, 0, 0, n].into()))
    }

    #[test]
    fn who_takes_all_leaves_others_their_part() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let each = Duration::from_secs(1);
        let mut take = |from, at| rates.take(claim(1), false, place(from), 60, at);
        // Alone it has the whole.
        assert_eq!((0..100).filter(|_| take(1, start)).count(), 60);
        assert!(!take(2, start), "there is nothing left");
        // From then on half of what flows in is for who came later, however often the first one asks before it.
        let mut got = [0; 2];
        for second in 1..=20 {
            let at = start + second * each;
            got[0] += (0..100).filter(|_| take(1, at)).count();
            got[1] += usize::from(take(2, at));
        }
        assert!(got[0] + got[1] == 20 && got[1] >= 10, "{got:?}");
        // Those who ask seldom are served beside one who asks all the time.
        let mut seldom = [0; 4];
        for second in 21..=140 {
            let at = start + second * each;
            for _ in 0..100 {
                take(1, at);
            }
            for (number, got) in seldom.iter_mut().enumerate() {
                if second as usize % 10 == number {
                    *got += u32::from(take(2 + number as u8, at));
                }
            }
        }
        assert!(seldom.iter().all(|got| *got >= 11), "{seldom:?} of 12 each");
    }

    #[test]
    fn places_without_number_share_a_part() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for number in 0..2_000_u32 {
            let place = Place::of(Some(std::net::Ipv4Addr::from_bits(number).into()));
            rates.take(claim(1), false, place, 6_000, start);
        }
        let places = rates.buckets.values().map(|bucket| bucket.places.len());
        assert_eq!(places.max(), Some(PLACES_LIMIT_ITEMS + 1));
    }

    fn claim(n: u8) -> CertificateId {
        format!("{n:02x}").repeat(32).parse().unwrap()
    }

    #[test]
    fn a_minute_gives_as_many_as_it_says() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let taken = |rates: &mut Rates, at| {
            (0..100)
                .filter(|_| rates.take(claim(1), false, place(1), 10, at))
                .count()
        };
        assert_eq!(taken(&mut rates, start), 10);
        assert_eq!(taken(&mut rates, start + Duration::from_secs(6)), 1);
        assert_eq!(taken(&mut rates, start + Duration::from_secs(600)), 10);
        assert!(
            rates.take(claim(2), false, place(1), 10, start),
            "another claim has its own"
        );
        assert!(
            rates.take(claim(1), true, place(1), 10, start),
            "and another kind of request"
        );
        assert!(!rates.take(claim(3), false, place(1), 0, start));
    }

    proptest! {
        /// Over any minute at most twice the rate, over any longer time the rate and one bucket.
        #[test]
        fn never_more_than_bucket_and_refill(rate in 1_u32..50, steps in proptest::collection::vec(0_u64..5_000, 1..300)) {
            let (mut rates, start) = (Rates::default(), Instant::now());
            let (mut at, mut taken) = (Duration::ZERO, 0_u64);
            for step in steps {
                at += Duration::from_millis(step);
                taken += u64::from(rates.take(claim(1), false, place(step as u8 % 3), rate, start + at));
                let most = u64::from(rate) + (at.as_millis() as u64 * u64::from(rate)) / 60_000 + 1;
                prop_assert!(taken <= most, "{taken} > {most}");
            }
        }
    }
}
