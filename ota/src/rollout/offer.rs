//! Whom to tell now: nobody over the rate, nobody outside its window.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::{Device, Devices, Offer, Opening, Part, Rules};
use crate::ExecutionStatus;

/// The time over which a rate is counted.
const MINUTE: u64 = 60;

/// One round of telling devices at one moment.
pub(super) struct Round<'a> {
    devices: &'a Devices,
    now: u64,
    /// When devices were told within the last minute; in order.
    recent: Vec<u64>,
    /// Devices that were told of the job at hand, and those that have succeeded.
    told: usize,
    succeeded: usize,
    /// When more can be said though nothing happens.
    wake_at: Option<u64>,
}

/// A device that is to be told, and which try that is.
pub(super) struct Candidate<'a> {
    pub(super) thing: &'a str,
    pub(super) attempt: u32,
    /// When it was told before.
    told_at: Option<u64>,
}

impl<'a> Round<'a> {
    /// `things` are those of the rollout that may have been told; `part` is what they are told of now.
    pub(super) fn new(
        devices: &'a Devices,
        things: impl Iterator<Item = &'a String>,
        part: impl Fn(&'a Device) -> Option<&'a Part>,
        now: u64,
    ) -> Self {
        let mut recent: Vec<u64> = Vec::new();
        let (mut told, mut succeeded) = (0, 0);
        for device in things.filter_map(|thing| devices.get(thing)) {
            if let Some(part) = part(device) {
                told += 1;
                succeeded += usize::from(part.status == ExecutionStatus::Succeeded);
            }
            let parts = device.parts().map(|part| part.offered_at);
            let times = parts.chain(device.told_before.iter().copied());
            // Far in the future: the clock was set back meanwhile.
            recent.extend(times.filter(|at| at + MINUTE > now && *at <= now + MINUTE));
        }
        recent.sort_unstable();
        Self {
            devices,
            now,
            recent,
            told,
            succeeded,
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

    /// Whether a device with this part in a job has to be told, as far as that part goes.
    pub(super) fn candidate(
        &mut self,
        thing: &'a str,
        part: Option<&Part>,
        rules: &Rules,
    ) -> Option<Candidate<'a>> {
        let Some(part) = part else {
            return Some(Candidate {
                thing,
                attempt: 1,
                told_at: None,
            });
        };
        let attempt = if part.is_shut(self.now) {
            part.attempt
        } else if part.is_retried(
            rules,
            self.devices
                .get(thing)
                .and_then(|device| device.current.as_ref()),
        ) {
            part.attempt + 1
        } else {
            if let Some(until) = part
                .until
                .filter(|_| part.status == ExecutionStatus::Queued)
            {
                self.wake(until);
            }
            return None;
        };
        Some(Candidate {
            thing,
            attempt,
            told_at: Some(part.offered_at),
        })
    }

    /// Those of `candidates` that can be told now under `rules`, in their order.
    pub(super) fn offers(&mut self, rules: &Rules, candidates: Vec<Candidate<'a>>) -> Vec<Offer> {
        let mut clocks: BTreeMap<Option<&'a str>, Opening> = BTreeMap::new();
        let mut offers = Vec::new();
        let rate = rules.rate(self.told, self.succeeded);
        for candidate in candidates {
            let until = match &rules.window {
                None => None,
                Some(window) => {
                    let device = self.devices.get(candidate.thing);
                    let name = device.and_then(|device| device.zone.as_deref());
                    let opening = *clocks.entry(name).or_insert_with(|| {
                        match clock(name.or(rules.zone.as_deref())) {
                            Some(zone) => window.at(&zone, self.now),
                            None => Opening::Closed { opens: None },
                        }
                    });
                    match opening {
                        Opening::Open { until } => Some(until),
                        Opening::Closed { opens } => {
                            opens.into_iter().for_each(|opens| self.wake(opens));
                            continue;
                        }
                    }
                }
            };
            if let Some(rate) = rate {
                // What a device was told before is counted once only: it must be out of the count first.
                if let Some(again) = candidate
                    .told_at
                    .map(|at| at + MINUTE)
                    .filter(|at| *at > self.now && *at <= self.now + 2 * MINUTE)
                {
                    self.wake(again);
                    continue;
                }
                let over = self.recent.len().checked_sub(rate as usize);
                if let Some(slot) = over.and_then(|over| self.recent.get(over)) {
                    self.wake(slot + MINUTE);
                    break;
                }
            }
            self.recent.push(self.now);
            offers.push(Offer {
                thing: candidate.thing.to_owned(),
                attempt: candidate.attempt,
                until,
            });
        }
        offers
    }
}

/// A zone that is not known has no windows: its device waits until its attribute is mended.
fn clock(name: Option<&str>) -> Option<TimeZone> {
    name.map_or(Some(TimeZone::UTC), |name| TimeZone::get(name).ok())
}
