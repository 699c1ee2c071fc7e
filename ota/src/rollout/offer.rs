//! Whom to tell now: nobody over the rate, nobody outside its window.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use jiff::tz::TimeZone;

use super::index::Pool;
use super::{Offer, Opening, Part, Planner, Rules};

/// The time over which a rate is counted.
const MINUTE: u64 = 60;

/// One round of telling devices at one moment.
pub(super) struct Round<'a> {
    planner: &'a Planner,
    now: u64,
    /// When devices were told within the last minute and how many; in order, those of this round last.
    recent: Vec<(u64, usize)>,
    /// All of them.
    lately: usize,
    /// How many more this round may name.
    most: usize,
    /// When more can be said though nothing happens.
    wake_at: Option<u64>,
}

/// Devices that wait for one thing in one zone, in their order.
struct Source<'a> {
    places: std::collections::btree_set::Iter<'a, u32>,
    zone: usize,
    /// They failed, and this is another try.
    again: bool,
}

impl<'a> Round<'a> {
    pub(super) fn new(planner: &'a Planner, now: u64, most: usize) -> Self {
        // Far in the future: the clock was set back meanwhile.
        let minute = now.saturating_sub(MINUTE - 1)..=now + MINUTE;
        let recent: Vec<(u64, usize)> = planner
            .index
            .times
            .range(minute)
            .map(|(at, told)| (*at, *told))
            .collect();
        Self {
            planner,
            now,
            lately: recent.iter().map(|(_, told)| told).sum(),
            recent,
            most,
            wake_at: None,
        }
    }

    pub(super) fn wake(&mut self, at: u64) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
        }
    }

    pub(super) const fn wake_at(&self) -> Option<u64> {
        self.wake_at
    }

    /// When the one was told before whom there were `index` within the last minute.
    fn told_at(&self, mut index: usize) -> Option<u64> {
        for (at, told) in &self.recent {
            match index.checked_sub(*told) {
                None => return Some(*at),
                Some(left) => index = left,
            }
        }
        None
    }

    /// Whether a device of this wave has to be told, now or in its window.
    pub(super) fn any(&self, wave: usize) -> bool {
        let pools = self.planner.index.waves.get(wave).map(|wave| &wave.pools);
        let any = |pool: &Pool| {
            let shut = pool.queued.first_key_value();
            !pool.fresh.is_empty()
                || !pool.again.is_empty()
                || shut.is_some_and(|(until, _)| *until <= self.now)
        };
        pools.is_some_and(|pools| pools.values().any(any))
    }

    /// When the first window of those in a wave opens who have to be told; `None` where somebody can be told now, or
    /// nobody has to be.
    pub(super) fn begins_at(&self, wave: usize, rules: &Rules) -> Option<u64> {
        let pools = &self.planner.index.waves.get(wave)?.pools;
        let mut first: Option<u64> = None;
        let waiting = pools.iter().filter(|(_, pool)| pool.has_more());
        for (zone, _) in waiting {
            match opens(rules, zone.as_deref(), self.now) {
                Ok(_) => return None,
                Err(at) => first = first.into_iter().chain(at).min(),
            }
        }
        first
    }

    /// The devices of a wave that can be told now under `rules`, in their order, with their places.
    pub(super) fn offers(&mut self, wave: usize, rules: &Rules) -> Vec<(u32, Offer)> {
        let planner = self.planner;
        let Some(pools) = planner.index.waves.get(wave).map(|wave| &wave.pools) else {
            return Vec::new();
        };
        let mut zones: Vec<(Option<&str>, Option<Opens>)> = Vec::new();
        let mut sources = Vec::new();
        for (zone, pool) in pools {
            let index = zones.len();
            let mut source = |places: &'a BTreeSet<u32>, again| {
                let places = places.iter();
                sources.push(Source {
                    places,
                    zone: index,
                    again,
                });
            };
            source(&pool.fresh, false);
            source(&pool.again, true);
            for (_, shut) in pool.queued.range(..=self.now) {
                source(shut, false);
            }
            zones.push((zone.as_deref(), None));
            if let Some((until, _)) = pool.queued.range(self.now + 1..).next() {
                self.wake(*until);
            }
        }
        let mut heads: BinaryHeap<Reverse<(u32, usize)>> = BinaryHeap::new();
        for (index, source) in sources.iter_mut().enumerate() {
            heads.extend(source.places.next().map(|place| Reverse((*place, index))));
        }
        let rate = rules.rate(planner.index.told, planner.index.succeeded);
        let mut offers = Vec::new();
        while let Some(Reverse((place, index))) = heads.pop() {
            if self.most == 0 {
                break;
            }
            let Some(source) = sources.get_mut(index) else {
                continue;
            };
            let Some((zone, opening)) = zones.get_mut(source.zone) else {
                continue;
            };
            let until = match *opening.get_or_insert_with(|| opens(rules, *zone, self.now)) {
                Ok(until) => until,
                // For those after it in this zone too.
                Err(opens) => {
                    opens.into_iter().for_each(|opens| self.wake(opens));
                    continue;
                }
            };
            let again = source.again;
            heads.extend(source.places.next().map(|next| Reverse((*next, index))));
            let device = planner.at(place);
            let part: Option<&Part> = device.and_then(|device| {
                if planner.rollout.undone == 0 {
                    device.install.as_ref()
                } else {
                    device.rollback.as_ref()
                }
            });
            if let Some(rate) = rate {
                // What a device was told before is counted once only: it must be out of the count first.
                if let Some(later) = part
                    .map(|part| part.offered_at + MINUTE)
                    .filter(|at| *at > self.now && *at <= self.now + 2 * MINUTE)
                {
                    self.wake(later);
                    continue;
                }
                let over = self.lately.checked_sub(rate as usize);
                if let Some(slot) = over.and_then(|over| self.told_at(over)) {
                    self.wake(slot + MINUTE);
                    break;
                }
            }
            match self.recent.last_mut().filter(|(at, _)| *at == self.now) {
                Some((_, told)) => *told += 1,
                None => self.recent.push((self.now, 1)),
            }
            self.lately += 1;
            self.most -= 1;
            let offer = Offer {
                thing: planner.name(place).unwrap_or_default().to_owned(),
                attempt: part.map_or(1, |part| part.attempt + u32::from(again)),
                until,
            };
            offers.push((place, offer));
        }
        offers
    }
}

/// Open, and until when where that has an end; or closed, and until when where it ever opens again.
pub(super) type Opens = Result<Option<u64>, Option<u64>>;

pub(super) fn opens(rules: &Rules, zone: Option<&str>, now: u64) -> Opens {
    let Some(window) = &rules.window else {
        return Ok(None);
    };
    // A zone that is not known has no windows: its device waits until its attribute is mended.
    let zone = match zone.or(rules.zone.as_deref()) {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|_| None)?,
    };
    match window.at(&zone, now) {
        Opening::Open { until } => Ok(Some(until)),
        Opening::Closed { opens } => Err(opens),
    }
}
