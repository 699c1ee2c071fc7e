//! What comes next. All of it follows from the rollout, its devices and the time.

use std::collections::BTreeMap;

use super::gate::alarm;
use super::offer::Round;
use super::{Action, Counts, Planner, RolloutState, Wave, WaveState};
use crate::{Error, JobId};

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order; empty where only devices, people or time can change anything.
    pub actions: Vec<Action>,
    /// When there may be more to do though nothing happened (seconds since 1970).
    pub wake_at: Option<u64>,
}

impl Plan {
    pub(super) fn of(actions: Vec<Action>) -> Self {
        Self {
            actions,
            wake_at: None,
        }
    }
}

impl Planner {
    /// What to do now, and when to ask again. No more than `most` devices are told by it, and as many
    /// taken back what they were told; the rest comes when it is asked again.
    ///
    /// # Errors
    /// Never: ids leave room for their endings.
    pub fn plan(&self, now: u64, most: usize) -> Result<Plan, Error> {
        match self.rollout.state {
            RolloutState::Scheduled => Ok(match self.rollout.spec.start_at {
                Some(start) if start > now => Plan {
                    actions: Vec::new(),
                    wake_at: Some(start),
                },
                _ => Plan::of(vec![Action::Begin]),
            }),
            RolloutState::Paused if self.rollout.undone > 0 => self.back(now, most),
            RolloutState::Running | RolloutState::Paused | RolloutState::WaitingApproval => {
                self.forward(now, most)
            }
            // Those who were not waited for: they stop the rollout like any other.
            RolloutState::Succeeded if self.rollout.undone == 0 => {
                if let Some(abort) = self.judge() {
                    return Ok(Plan::of(vec![abort]));
                }
                if self.rollout.withheld.is_some() {
                    return Ok(Plan::of(self.hold(now, most)?));
                }
                let mut round = Round::new(self, now, most);
                let actions = self.installs(&mut round)?;
                Ok(Plan {
                    actions,
                    wake_at: round.wake_at(),
                })
            }
            RolloutState::Succeeded => Ok(Plan::default()),
            RolloutState::Aborted => Ok(Plan::of(self.cancel_queued(most)?)),
            RolloutState::RollingBack | RolloutState::RolledBack => self.back(now, most),
        }
    }

    fn begun(&self) -> impl Iterator<Item = (usize, &Wave)> {
        let begun = |wave: &Wave| matches!(wave.state, WaveState::Running | WaveState::Done);
        let waves = self.rollout.waves.iter().enumerate();
        waves.filter(move |(_, wave)| begun(wave))
    }

    /// The installs of a wave, counted.
    pub(super) fn counts(&self, wave: usize) -> Counts {
        let kept = self.index.waves.get(wave);
        kept.map(|kept| kept.counts).unwrap_or_default()
    }

    /// Whether the rollout must not go on. A wave that was good may turn out bad by those it did not wait
    /// for, and so may a rollout that has succeeded.
    fn judge(&self) -> Option<Action> {
        let begun: Vec<(usize, &Wave, Counts)> = self
            .begun()
            .map(|(index, wave)| (index, wave, self.counts(index)))
            .collect();
        let (last, ..) = begun.last()?;
        let failed = begun.iter().map(|(_, _, counts)| counts.failed).sum();
        let finished = begun.iter().map(|(_, _, counts)| counts.finished()).sum();
        let rollout = &self.rollout;
        let gates = rollout.gates().len();
        let seen = alarm(
            gates,
            &rollout.health,
            &rollout.spec.rules,
            failed,
            finished,
        );
        if let Some(why) = seen {
            return Some(Action::Abort { wave: *last, why });
        }
        begun.iter().find_map(|(index, wave, counts)| {
            let why = wave.rules.stops(counts)?;
            Some(Action::Abort { wave: *index, why })
        })
    }

    fn forward(&self, now: u64, most: usize) -> Result<Plan, Error> {
        if let Some(abort) = self.judge() {
            return Ok(Plan::of(vec![abort]));
        }
        for (index, wave) in self.begun() {
            let counts = self.counts(index);
            let gone = counts.taken_over();
            if let Some(why) = gone.filter(|_| wave.state == WaveState::Running) {
                return Ok(Plan::of(vec![Action::GiveUp { wave: index, why }]));
            }
            if wave.state == WaveState::Running && wave.rules.passes(&counts) {
                return Ok(Plan::of(vec![Action::FinishWave {
                    wave: index,
                    at: now,
                }]));
            }
        }
        if self.rollout.state == RolloutState::Paused || self.rollout.withheld.is_some() {
            return Ok(Plan::of(self.hold(now, most)?));
        }
        let mut round = Round::new(self, now, most);
        let mut actions = self.installs(&mut round)?;
        let mut waves = self.rollout.waves.iter().enumerate();
        match waves.find(|(_, wave)| wave.state != WaveState::Done) {
            None => actions.push(Action::Finish {
                state: RolloutState::Succeeded,
                why: None,
            }),
            Some((index, wave))
                if wave.state == WaveState::Waiting
                    && self.rollout.state == RolloutState::Running =>
            {
                let due = self.due(index, wave);
                if due > now {
                    round.wake(due);
                } else if !wave.things.is_empty() && !wave.is_approved() {
                    actions.push(Action::AwaitApproval);
                } else {
                    actions.push(Action::StartWave { wave: index });
                }
            }
            Some(_) => {}
        }
        Ok(Plan {
            actions,
            wake_at: round.wake_at(),
        })
    }

    /// When a wave may begin, once the one before it is good.
    fn due(&self, index: usize, wave: &Wave) -> u64 {
        let soaked = index
            .checked_sub(1)
            .and_then(|before| self.rollout.waves.get(before))
            .and_then(|before| {
                // The last of its devices was looked at when a whole period of its own is over.
                let watched = if before.rules.gates.is_empty() {
                    0
                } else {
                    2 * self.rollout.spec.rules.watch_seconds + 1
                };
                let soak = before.rules.soak_seconds.max(watched);
                Some(before.done_at?.saturating_add(soak))
            });
        soaked.max(wave.start_at).unwrap_or_default()
    }

    /// Tells the devices of the waves that have begun.
    fn installs(&self, round: &mut Round<'_>) -> Result<Vec<Action>, Error> {
        let mut actions = Vec::new();
        for (index, wave) in self.begun() {
            let offers = round.offers(index, &wave.rules);
            if !offers.is_empty() {
                actions.push(Action::Install {
                    wave: index,
                    job: self.rollout.wave_job(index)?,
                    offers: offers.into_iter().map(|(_, offer)| offer).collect(),
                });
            }
        }
        Ok(actions)
    }

    /// Takes back what devices were told that have not begun; they are told again when the rollout goes on.
    fn hold(&self, now: u64, mut most: usize) -> Result<Vec<Action>, Error> {
        let mut actions = Vec::new();
        for (index, _) in self.begun() {
            let pools = self.index.waves.get(index).map(|wave| &wave.pools);
            let pools = pools.into_iter().flat_map(BTreeMap::values);
            let mut places: Vec<u32> = pools.flat_map(|pool| pool.told(now)).collect();
            places.sort_unstable();
            places.truncate(most);
            most -= places.len();
            if !places.is_empty() {
                let names = places.into_iter().filter_map(|place| self.name(place));
                actions.push(Action::Hold {
                    job: self.rollout.wave_job(index)?,
                    things: names.map(str::to_owned).collect(),
                });
            }
        }
        Ok(actions)
    }

    pub(super) fn cancel_queued(&self, most: usize) -> Result<Vec<Action>, Error> {
        let mut jobs: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        let mut cancel = |job, place| {
            let thing = self.name(place).unwrap_or_default();
            jobs.entry(job).or_default().push(thing.to_owned());
        };
        for place in self.index.queued.iter().take(most) {
            let wave = self.wave_of(*place).unwrap_or_default();
            cancel(self.rollout.wave_job(wave)?, *place);
        }
        let turn = self.rollout.undone;
        for place in self.index.queued_earlier.iter().take(most) {
            if let Some(part) = self.at(*place).and_then(|device| device.earlier.as_ref()) {
                let job = self.rollout.back_job(turn.saturating_sub(1), &part.to)?;
                cancel(job, *place);
            }
        }
        // The way back itself goes on until it is stopped.
        let back = &self.index.queued_back;
        let back = back
            .iter()
            .filter(|_| self.rollout.state == RolloutState::Aborted);
        for place in back.take(most) {
            if let Some(part) = self.at(*place).and_then(|device| device.rollback.as_ref()) {
                cancel(self.rollout.back_job(turn, &part.to)?, *place);
            }
        }
        let cancel = |(job, things)| Action::CancelQueued { job, things };
        Ok(jobs.into_iter().map(cancel).collect())
    }
}
