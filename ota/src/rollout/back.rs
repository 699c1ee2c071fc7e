//! The way back: what comes next once the rollout was turned round.

use std::collections::BTreeMap;

use super::offer::Round;
use super::{
    Action, Counts, Device, Offer, Part, Plan, Planner, Rollout, RolloutState, Rules, Wave,
    WaveState,
};
use crate::{Error, ExecutionStatus, FirmwareVersion, JobId};

/// Why a device has no way back.
const NOWHERE: &str = "no earlier version is known to go back to";
/// Why it is left to another rollout.
const THEIRS: &str = "another rollout has brought it to this version and can be rolled back";

impl Planner {
    /// Those who have the version go back to what they had, as soon as each has it; those who fell back by
    /// themselves are left alone. Those in progress are waited for: their timeout bounds it. They go in the
    /// waves in which they came, and each wave's abort rule, window and rate hold on the way back too. One that
    /// is found to have taken it only after all is over, because its report came late, is still sent back.
    pub(super) fn back(&self, now: u64, most: usize) -> Result<Plan, Error> {
        let rollout = &self.rollout;
        let over = rollout.state == RolloutState::RolledBack;
        if let Some(stop) = self.judge_back().filter(|_| !over) {
            return Ok(Plan::of(vec![stop]));
        }
        let mut actions = self.cancel_queued(most)?;
        if rollout.state == RolloutState::Paused {
            actions.extend(self.hold_back(now, most)?);
            return Ok(Plan::of(actions));
        }
        let mut round = Round::new(self, now, most);
        let mut back: BTreeMap<&FirmwareVersion, Vec<Offer>> = BTreeMap::new();
        let mut busy = self.index.open > 0;
        for (index, wave) in rollout.waves.iter().enumerate() {
            busy |= round.any(index);
            if !over && wave.back.state == WaveState::Waiting {
                continue;
            }
            for (place, offer) in round.offers(index, &wave.rules) {
                let device = self.at(place);
                if let Some(target) = device.and_then(|device| rollout.way_back(device)) {
                    back.entry(target).or_default().push(offer);
                }
            }
        }
        for (version, offers) in back {
            actions.push(Action::RollBack {
                job: rollout.back_job(rollout.undone, version)?,
                version: version.clone(),
                offers,
            });
        }
        if actions.is_empty() && !over {
            let begins = |wave, rules: &Rules| round.begins_at(wave, rules);
            let next = rollout.next_back(now, |wave| self.back_counts(wave), begins);
            match next {
                Ok(None) if !busy => {
                    let (went, left) = (self.index.succeeded, self.index.left);
                    actions.push(rollout.turned_round(went, left, self.devices.iter()));
                }
                Ok(None) => {}
                Ok(Some(action)) => actions.push(action),
                Err(later) => round.wake(later),
            }
        }
        Ok(Plan {
            actions,
            wake_at: round.wake_at(),
        })
    }

    /// The devices of a wave that go back, counted: those told, and those that have yet to be.
    pub(super) fn back_counts(&self, wave: usize) -> Counts {
        let Some(kept) = self.index.waves.get(wave) else {
            return Counts::default();
        };
        let fresh: usize = kept.pools.values().map(|pool| pool.fresh.len()).sum();
        kept.back.and(fresh)
    }

    fn judge_back(&self) -> Option<Action> {
        self.rollout.judge_back(|wave| self.back_counts(wave))
    }

    /// As [`Planner::hold`], of the way back.
    fn hold_back(&self, now: u64, most: usize) -> Result<Vec<Action>, Error> {
        let pools = self.index.waves.iter().flat_map(|wave| wave.pools.values());
        let mut places: Vec<u32> = pools.flat_map(|pool| pool.told(now)).collect();
        places.sort_unstable();
        places.truncate(most);
        let mut jobs: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        for place in places {
            let Some(part) = self.at(place).and_then(|device| device.rollback.as_ref()) else {
                continue;
            };
            let job = self.rollout.back_job(self.rollout.undone, &part.to)?;
            let thing = self.name(place).unwrap_or_default().to_owned();
            jobs.entry(job).or_default().push(thing);
        }
        let hold = |(job, things)| Action::Hold { job, things };
        Ok(jobs.into_iter().map(hold).collect())
    }
}

impl Rules {
    /// Why a way back that stands so in one wave must not go on.
    fn stops_back(&self, counts: &Counts) -> Option<String> {
        let why = self.abort_rule(counts)?;
        Some(why.replace("the rollout", "it"))
    }

    /// Whether enough of a wave have gone back for the next one to follow: half of them, or the share that
    /// `success_percent` says. Nobody waits longer than a device may take: those that are not there must not keep the others
    /// from going.
    fn lets_follow(&self, counts: &Counts) -> bool {
        let of = counts.finished() + counts.open();
        let share = usize::from(self.success_percent.unwrap_or(50).min(50));
        counts.open() == 0 || counts.succeeded * 100 >= share * of
    }
}

impl Rollout {
    /// Whether the way back must not go on: by a wave's abort rule, or as nobody has gone of a wave that is over and
    /// those before it, where that is more than one device.
    pub(super) fn judge_back(&self, counts: impl Fn(usize) -> Counts) -> Option<Action> {
        let (mut finished, mut succeeded) = (0, 0);
        let begun = |wave: &Wave| wave.back.state != WaveState::Waiting;
        let waves = self.waves.iter().enumerate();
        for (index, wave) in waves.filter(|(_, wave)| begun(wave)) {
            let counts = counts(index);
            finished += counts.finished();
            succeeded += counts.succeeded;
            let none = counts.open() == 0 && counts.failed > 0 && finished > 1 && succeeded == 0;
            let none =
                none.then(|| format!("none of the {finished} devices that finished succeeded"));
            if let Some(why) = wave.rules.stops_back(&counts).or(none) {
                return Some(Action::StopBack { wave: index, why });
            }
        }
        None
    }

    /// The next step of the waves on the way back, or when it may be taken (seconds since 1970). None is left where
    /// every wave is done. A wave begins when the first of it can be told (`begins`): the time that its devices have does not
    /// run while its window is shut.
    pub(super) fn next_back(
        &self,
        now: u64,
        counts: impl Fn(usize) -> Counts,
        begins: impl Fn(usize, &Rules) -> Option<u64>,
    ) -> Result<Option<Action>, u64> {
        for (index, wave) in self.waves.iter().enumerate() {
            let (state, rules) = (wave.back.state, &wave.rules);
            match state {
                WaveState::Waiting => {
                    if let Some(later) = begins(index, rules) {
                        return Err(later);
                    }
                    return Ok(Some(Action::StartBack {
                        wave: index,
                        at: now,
                    }));
                }
                WaveState::Running => {
                    let begun_at = wave.back.begun_at.unwrap_or(now);
                    let until = begun_at.saturating_add(u64::from(rules.timeout_minutes) * 60);
                    if until > now && !rules.lets_follow(&counts(index)) {
                        return Err(until);
                    }
                    return Ok(Some(Action::FinishBack { wave: index }));
                }
                WaveState::Done | WaveState::Aborted => {}
            }
        }
        Ok(None)
    }

    /// What brought a device to where the rollout now takes it away from: on the way back its install or the turn
    /// before, on the way forward again the turn before alone.
    fn undoes<'d>(&self, device: &'d Device) -> Option<&'d Part> {
        let earlier = device.earlier.as_ref();
        if self.undone % 2 == 1 {
            let here = |part: &&Part| part.to == self.spec.version;
            earlier.filter(here).or(device.install.as_ref())
        } else {
            earlier
        }
    }

    /// The version a device should be brought to now that the rollout was turned round: one it had, while it runs
    /// what this rollout, and none since, has brought it to.
    pub(super) fn goes_to<'d>(&self, device: &'d Device) -> Option<&'d FirmwareVersion> {
        let did = self.undoes(device)?;
        // What it brought is its own until another takes it away; where it went back to, it was there itself.
        let others = if self.undone % 2 == 1 {
            device.theirs
        } else {
            device.moved_on
        };
        let runs_it = device.current.as_ref() == Some(&did.to) && !others;
        did.before
            .as_ref()
            .filter(|before| did.status.is_terminal() && runs_it && **before != did.to)
    }

    /// Whether a device that has taken it runs its version though another rollout has brought it there: before it came, or
    /// since.
    fn is_theirs(&self, device: &Device) -> bool {
        let has = |did: &Part| {
            did.status == ExecutionStatus::Succeeded && device.current.as_ref() == Some(&did.to)
        };
        let untold = self.undone % 2 == 1 && device.rollback.is_none();
        untold && device.theirs && self.undoes(device).is_some_and(has)
    }

    /// Whether a device runs what it was given, now that the rollout was turned round, and no version is known that it
    /// could be brought back to.
    pub(super) fn is_stuck(&self, device: &Device) -> bool {
        self.undone % 2 == 1
            && self.undoes(device).is_some_and(|did| {
                let runs_it = device.current.as_ref() == Some(&did.to) && !device.theirs;
                let nowhere = did.before.as_ref().is_none_or(|before| *before == did.to);
                nowhere && did.status.is_terminal() && runs_it
            })
    }

    /// Whether a device runs what it should not, now that the rollout was turned round.
    pub(super) fn is_left(&self, device: &Device) -> bool {
        self.goes_to(device).is_some() || self.is_stuck(device) || self.is_theirs(device)
    }

    /// Why a device cannot be brought to where it should be.
    pub(super) fn bars<'s>(&'s self, device: &Device) -> Option<&'s str> {
        match self.goes_to(device) {
            Some(to) => self.barred.get(to).map(String::as_str),
            None if self.is_theirs(device) => Some(THEIRS),
            None => self.is_stuck(device).then_some(NOWHERE),
        }
    }

    /// The same, where it can be brought there.
    pub(super) fn way_back<'d>(&self, device: &'d Device) -> Option<&'d FirmwareVersion> {
        self.goes_to(device)
            .filter(|version| !self.barred.contains_key(*version))
    }

    /// The end of a turn in which so many went, and so many that should have did not.
    pub(super) fn turned_round<'d>(
        &self,
        went: usize,
        left: usize,
        mut devices: impl Iterator<Item = &'d Device>,
    ) -> Action {
        let state = match (went, left) {
            (0, 1..) => RolloutState::Aborted,
            _ if self.undone % 2 == 1 => RolloutState::RolledBack,
            _ => RolloutState::Succeeded,
        };
        let why = (left > 0).then(|| {
            let barred = devices.find_map(|device| self.bars(device));
            let barred = barred.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{left} of {} devices did not go back{barred}", went + left)
        });
        Action::Finish { state, why }
    }
}
