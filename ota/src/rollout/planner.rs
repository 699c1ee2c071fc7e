//! A rollout, its devices, and what the planner has counted of them. Each change of a device costs what
//! it changes and each question what its answer is long, not what the fleet is large; the answer is the
//! one that counting everything anew would give.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::index::{Index, Pool, WaveIndex};
use super::{Action, Command, Device, Devices, Rollout, RolloutState, Wave};
use crate::{Error, FirmwareVersion};

/// A rollout with its devices, ready to be asked what comes next ([`Planner::plan`]).
pub struct Planner {
    pub(super) rollout: Rollout,
    /// By place: the things of the waves, one wave after another.
    pub(super) devices: Vec<Device>,
    /// The place of the first thing of each wave.
    starts: Vec<u32>,
    /// Places by the hashes of their names.
    places: HashTable<u32>,
    hasher: RandomState,
    pub(super) index: Index,
}

fn name_at<'r>(rollout: &'r Rollout, starts: &[u32], place: u32) -> Option<&'r str> {
    let wave = wave_at(starts, place)?;
    let first = starts.get(wave)?;
    let thing = rollout
        .waves
        .get(wave)?
        .things
        .get((place - first) as usize);
    thing.map(String::as_str)
}

/// Of waves that begin at one place all but the last are empty.
fn wave_at(starts: &[u32], place: u32) -> Option<usize> {
    starts
        .partition_point(|start| *start <= place)
        .checked_sub(1)
}

impl Planner {
    /// A rollout whose devices stand so; one that is not among them is as if it had no execution.
    #[must_use]
    pub fn new(rollout: Rollout, mut devices: Devices) -> Self {
        let count = rollout.things().count();
        let hasher = RandomState::new();
        let mut starts = Vec::with_capacity(rollout.waves.len());
        let mut places = HashTable::with_capacity(count);
        let mut list = Vec::with_capacity(count);
        let mut place = 0;
        for wave in &rollout.waves {
            starts.push(place);
            for thing in &wave.things {
                let hash = |place: &u32| {
                    hasher.hash_one(name_at(&rollout, &starts, *place).unwrap_or_default())
                };
                places.insert_unique(hasher.hash_one(thing.as_str()), place, hash);
                list.push(devices.remove(thing).unwrap_or_default());
                place += 1;
            }
        }
        let mut planner = Self {
            rollout,
            devices: list,
            starts,
            places,
            hasher,
            index: Index::default(),
        };
        planner.count();
        planner
    }

    /// The rollout.
    #[must_use]
    pub const fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// How many devices it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Whether devices that were not waited for still get it though the rollout has succeeded.
    #[must_use]
    pub fn still_tells(&self) -> bool {
        let there = |wave: &WaveIndex| wave.pools.values().any(Pool::has_more);
        self.rollout.state == RolloutState::Succeeded
            && self.rollout.undone == 0
            && (self.index.open > 0 || self.index.waves.iter().any(there))
    }

    /// Whether a device may have to be told later, in a window of its own.
    #[must_use]
    pub fn waits(&self) -> bool {
        let goes_on = !matches!(
            self.rollout.state,
            RolloutState::Scheduled | RolloutState::Paused | RolloutState::Aborted
        );
        let there = |pool: &Pool| pool.has_more() || !pool.queued.is_empty();
        let mut waves = self.index.waves.iter();
        goes_on && waves.any(|wave| wave.pools.values().any(there))
    }

    /// Its things and how each stands, wave by wave.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &Device)> {
        let things = self.rollout.things().map(String::as_str);
        things.zip(&self.devices)
    }

    /// How a device stands.
    #[must_use]
    pub fn device(&self, thing: &str) -> Option<&Device> {
        self.devices.get(self.place(thing)? as usize)
    }

    /// The wave of a thing.
    #[must_use]
    pub fn wave(&self, thing: &str) -> Option<&Wave> {
        self.rollout.waves.get(self.wave_of(self.place(thing)?)?)
    }

    /// A device stands otherwise now; nothing where it is not one of the rollout's.
    pub fn change(&mut self, thing: &str, change: impl FnOnce(&mut Device)) {
        let Some(place) = self.place(thing) else {
            return;
        };
        let Some(wave) = wave_at(&self.starts, place) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(place as usize) {
            self.index.note(&self.rollout, wave, place, device, false);
            change(device);
            self.index.note(&self.rollout, wave, place, device, true);
        }
    }

    /// Looks at each device, and counts all of them anew.
    ///
    /// # Errors
    /// The first of `change`; those after it are not looked at.
    pub fn change_each<E>(
        &mut self,
        mut change: impl FnMut(&str, &mut Device) -> Result<(), E>,
    ) -> Result<(), E> {
        let things = self.rollout.waves.iter().flat_map(|wave| &wave.things);
        let done = things
            .zip(&mut self.devices)
            .try_for_each(|(thing, device)| change(thing, device));
        self.count();
        done
    }

    /// Records that `action` was done, as [`Rollout::apply`].
    pub fn apply(&mut self, action: &Action) {
        let turn = self.rollout.undone;
        self.rollout.apply(action);
        self.turned(turn);
    }

    /// Does what a person says, as [`Rollout::command`].
    ///
    /// # Errors
    /// Those of [`Rollout::command`].
    pub fn command(&mut self, command: Command) -> Result<(), Error> {
        let turn = self.rollout.undone;
        self.rollout.command(command)?;
        self.turned(turn);
        Ok(())
    }

    /// The rollout is recorded to stand as `rollout` says, whose waves come without their things.
    pub fn follow(&mut self, mut rollout: Rollout) {
        let turn = self.rollout.undone;
        let mut other_rules = false;
        for (new, old) in rollout.waves.iter_mut().zip(&mut self.rollout.waves) {
            new.things = std::mem::take(&mut old.things);
            other_rules |= new.rules != old.rules;
        }
        rollout.barred = std::mem::take(&mut self.rollout.barred);
        rollout.withheld = self.rollout.withheld.take();
        self.rollout = rollout;
        if other_rules {
            self.count();
        }
        self.turned(turn);
    }

    /// The versions of its devices: those they had, and those they run.
    #[must_use]
    pub fn versions(&self) -> BTreeSet<FirmwareVersion> {
        let parts = self.devices.iter().flat_map(Device::parts);
        let had = parts.filter_map(|part| part.before.as_ref());
        let run = self
            .devices
            .iter()
            .filter_map(|device| device.current.as_ref());
        had.chain(run).cloned().collect()
    }

    /// Nobody is told of its version, for this reason, or everybody again.
    pub fn withhold(&mut self, why: Option<String>) {
        self.rollout.withheld = why;
    }

    /// To these versions its devices cannot be brought now that it was turned round.
    pub fn bar(&mut self, barred: BTreeMap<FirmwareVersion, String>) {
        if self.rollout.barred != barred {
            self.rollout.barred = barred;
            self.count();
        }
    }

    /// Why not one of the devices that should be brought somewhere can be, where that is so.
    #[must_use]
    pub fn dead_end(&self) -> Option<String> {
        let should = || {
            let devices = self.devices.iter();
            devices.filter(|device| self.rollout.is_left(device))
        };
        let why = should().next().and_then(|one| self.rollout.bars(one))?;
        let barred = should().all(|one| self.rollout.bars(one).is_some());
        barred.then(|| {
            format!(
                "none of the {} devices that have it can go back: {why} (`muster rollout abort` stops it where it is)",
                should().count()
            )
        })
    }

    /// That no device has what is undone now that it was turned round, and none is at it, where that is so.
    #[must_use]
    pub fn nobody_turns(&self) -> Option<String> {
        let nobody = self.index.left == 0 && self.index.open == 0;
        nobody.then(|| {
            if self.rollout.undone % 2 == 1 {
                let forward = if self.rollout.undone > 1 {
                    " (`--forward` sends those that went back to it again)"
                } else {
                    ""
                };
                format!("no device runs the version that this rollout has brought{forward}")
            } else {
                "no device went back that could be brought forward again".to_owned()
            }
        })
    }

    /// What was the way back is what the next one undoes.
    fn turned(&mut self, before: u32) {
        let turns = before..self.rollout.undone;
        if turns.is_empty() {
            return;
        }
        for _ in turns.filter(|turn| *turn > 0) {
            self.devices.iter_mut().for_each(Device::turn);
        }
        self.count();
    }

    /// Counts all devices.
    fn count(&mut self) {
        self.index = Index::of(&self.rollout);
        let waves = self.rollout.waves.iter().enumerate();
        let places = waves.flat_map(|(wave, of)| std::iter::repeat_n(wave, of.things.len()));
        for ((place, wave), device) in (0..).zip(places).zip(&self.devices) {
            self.index.note(&self.rollout, wave, place, device, true);
        }
    }

    fn place(&self, thing: &str) -> Option<u32> {
        let is = |place: &u32| name_at(&self.rollout, &self.starts, *place) == Some(thing);
        self.places.find(self.hasher.hash_one(thing), is).copied()
    }

    pub(super) fn name(&self, place: u32) -> Option<&str> {
        name_at(&self.rollout, &self.starts, place)
    }

    pub(super) fn wave_of(&self, place: u32) -> Option<usize> {
        wave_at(&self.starts, place)
    }

    pub(super) fn at(&self, place: u32) -> Option<&Device> {
        self.devices.get(place as usize)
    }
}
