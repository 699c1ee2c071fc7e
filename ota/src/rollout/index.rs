//! What the planner asks for of all devices together, kept while they change.

use std::collections::{BTreeMap, BTreeSet};

use super::device::step;
use super::{Counts, Device, Part, Rollout, Rules};
use crate::{ExecutionStatus, FirmwareVersion};

/// Devices by what they wait for, each in one of the sets, or in none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    /// Not told yet.
    pub(super) fresh: BTreeSet<u32>,
    /// To be tried again.
    pub(super) again: BTreeSet<u32>,
    /// Queued, by the time from which they may not begin any more.
    pub(super) queued: BTreeMap<u64, BTreeSet<u32>>,
    /// Queued, and may begin whenever they like.
    pub(super) untimed: BTreeSet<u32>,
}

/// What is kept of a wave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WaveIndex {
    /// Its installs.
    pub(super) counts: Counts,
    /// Those on the way back that were told.
    pub(super) back: Counts,
    /// Its devices that may have to be told, by the zone of their windows.
    pub(super) pools: BTreeMap<Option<String>, Pool>,
}

/// What is kept of a rollout's devices. What they are told of is the install, or once the rollout was
/// turned round the way back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) waves: Vec<WaveIndex>,
    /// Devices that were told, and those of them that have succeeded.
    pub(super) told: usize,
    pub(super) succeeded: usize,
    /// Devices that run what they should not, now that the rollout was turned round.
    pub(super) left: usize,
    /// Parts that are not over.
    pub(super) open: usize,
    /// When devices were told, and how many.
    pub(super) times: BTreeMap<u64, usize>,
    /// Devices whose install is queued.
    pub(super) queued: BTreeSet<u32>,
    /// Devices whose part in this turn is queued.
    pub(super) queued_back: BTreeSet<u32>,
    /// Devices whose part in the turn before is queued.
    pub(super) queued_earlier: BTreeSet<u32>,
}

fn put(set: &mut BTreeSet<u32>, place: u32, there: bool) {
    if there {
        set.insert(place);
    } else {
        set.remove(&place);
    }
}

impl Pool {
    fn note(
        &mut self,
        place: u32,
        part: Option<&Part>,
        current: Option<&FirmwareVersion>,
        rules: &Rules,
        there: bool,
    ) {
        match part {
            None => put(&mut self.fresh, place, there),
            Some(part) if part.is_retried(rules, current) => put(&mut self.again, place, there),
            Some(part) if part.status == ExecutionStatus::Queued => {
                let Some(until) = part.until else {
                    return put(&mut self.untimed, place, there);
                };
                let set = self.queued.entry(until).or_default();
                put(set, place, there);
                if set.is_empty() {
                    self.queued.remove(&until);
                }
            }
            Some(_) => {}
        }
    }

    /// Those who know of it and have yet to begin.
    pub(super) fn told(&self, now: u64) -> impl Iterator<Item = u32> {
        let timed = self.queued.range(now + 1..).flat_map(|(_, places)| places);
        self.untimed.iter().chain(timed).copied()
    }

    /// Whether anybody has yet to be told, for the first time or once more.
    pub(super) fn has_more(&self) -> bool {
        !self.fresh.is_empty() || !self.again.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.again.is_empty()
            && self.queued.is_empty()
            && self.untimed.is_empty()
    }
}

impl Index {
    /// Of no device of `rollout` yet.
    pub(super) fn of(rollout: &Rollout) -> Self {
        let wave = |things: usize| WaveIndex {
            counts: Counts::none_of(things),
            back: Counts::default(),
            pools: BTreeMap::new(),
        };
        Self {
            waves: rollout
                .waves
                .iter()
                .map(|of| wave(of.things.len()))
                .collect(),
            ..Self::default()
        }
    }

    /// Counts a device of a wave in, or out again before it changes.
    pub(super) fn note(
        &mut self,
        rollout: &Rollout,
        wave: usize,
        place: u32,
        device: &Device,
        there: bool,
    ) {
        let Some((kept, of)) = self.waves.get_mut(wave).zip(rollout.waves.get(wave)) else {
            return;
        };
        let current = device.current.as_ref();
        if let Some(install) = &device.install {
            kept.counts.note(install, current, &of.rules, there);
        }
        if let Some(rollback) = &device.rollback {
            step(&mut kept.back.total, there);
            kept.back.note(rollback, current, &of.rules, there);
        }
        let forward = rollout.undone == 0;
        let part = if forward {
            device.install.as_ref()
        } else {
            device.rollback.as_ref()
        };
        if forward || rollout.way_back(device).is_some() {
            let zone = device.zone.as_ref().filter(|_| of.rules.window.is_some());
            let zone = zone.cloned();
            let pool = kept.pools.entry(zone.clone()).or_default();
            pool.note(place, part, current, &of.rules, there);
            if pool.is_empty() {
                kept.pools.remove(&zone);
            }
        }
        if !forward && rollout.is_left(device) {
            step(&mut self.left, there);
        }
        if let Some(part) = part {
            step(&mut self.told, there);
            if part.status == ExecutionStatus::Succeeded {
                step(&mut self.succeeded, there);
            }
        }
        for part in device.parts() {
            if !part.status.is_terminal() {
                step(&mut self.open, there);
            }
        }
        let parts = device.parts().map(|part| part.offered_at);
        for at in parts.chain(device.told_before.iter().copied()) {
            let told = self.times.entry(at).or_default();
            step(told, there);
            if *told == 0 {
                self.times.remove(&at);
            }
        }
        let queued = |part: &Option<Part>| {
            part.as_ref()
                .is_some_and(|part| part.status == ExecutionStatus::Queued)
        };
        if queued(&device.install) {
            put(&mut self.queued, place, there);
        }
        if queued(&device.rollback) {
            put(&mut self.queued_back, place, there);
        }
        if queued(&device.earlier) {
            put(&mut self.queued_earlier, place, there);
        }
    }
}
