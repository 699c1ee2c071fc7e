//! What comes next. All of it follows from the rollout, its devices and the time.

use std::collections::BTreeMap;

use super::offer::Round;
use super::{Action, Counts, Device, Devices, Offer, Part, Rollout, RolloutState, Wave, WaveState};
use crate::{Error, ExecutionStatus, FirmwareVersion, JobId};

fn install(device: &Device) -> Option<&Part> {
    device.install.as_ref()
}

fn rollback(device: &Device) -> Option<&Part> {
    device.rollback.as_ref()
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order; empty where only devices, people or time can change anything.
    pub actions: Vec<Action>,
    /// When there may be more to do though nothing happened (seconds since 1970).
    pub wake_at: Option<u64>,
}

impl Plan {
    fn of(actions: Vec<Action>) -> Self {
        Self {
            actions,
            wake_at: None,
        }
    }
}

impl Rollout {
    /// What to do now, and when to ask again.
    ///
    /// # Errors
    /// Never: ids leave room for their endings.
    pub fn plan(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        match self.state {
            RolloutState::Scheduled => Ok(match self.spec.start_at {
                Some(start) if start > now => Plan {
                    actions: Vec::new(),
                    wake_at: Some(start),
                },
                _ => Plan::of(vec![Action::Begin]),
            }),
            RolloutState::Running | RolloutState::Paused | RolloutState::WaitingApproval => {
                self.forward(devices, now)
            }
            // Those who were not waited for.
            RolloutState::Succeeded if self.undone == 0 => {
                let mut round = Round::new(devices, self.things(), install, now);
                let actions = self.installs(&mut round, devices)?;
                Ok(Plan {
                    actions,
                    wake_at: round.wake_at(),
                })
            }
            RolloutState::Succeeded => Ok(Plan::default()),
            RolloutState::Aborted => Ok(Plan::of(self.cancel_queued(devices)?)),
            RolloutState::RollingBack | RolloutState::RolledBack => self.back(devices, now),
        }
    }

    /// The actions of [`Rollout::plan`].
    ///
    /// # Errors
    /// As [`Rollout::plan`].
    pub fn next(&self, devices: &Devices, now: u64) -> Result<Vec<Action>, Error> {
        Ok(self.plan(devices, now)?.actions)
    }

    fn begun(&self) -> impl Iterator<Item = (usize, &Wave)> {
        let begun = |wave: &Wave| matches!(wave.state, WaveState::Running | WaveState::Done);
        self.waves
            .iter()
            .enumerate()
            .filter(move |(_, wave)| begun(wave))
    }

    fn forward(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        // A wave that was good may turn out bad by those it did not wait for.
        for (index, wave) in self.begun() {
            let counts = Counts::of(&wave.things, devices, &wave.rules);
            if let Some(why) = wave.rules.stops(&counts) {
                return Ok(Plan::of(vec![Action::Abort { wave: index, why }]));
            }
            if wave.state == WaveState::Running && wave.rules.passes(&counts) {
                return Ok(Plan::of(vec![Action::FinishWave {
                    wave: index,
                    at: now,
                }]));
            }
        }
        if self.state == RolloutState::Paused {
            return Ok(Plan::default());
        }
        let told = self.begun().flat_map(|(_, wave)| &wave.things);
        let mut round = Round::new(devices, told, install, now);
        let mut actions = self.installs(&mut round, devices)?;
        let open = self
            .waves
            .iter()
            .enumerate()
            .find(|(_, wave)| wave.state != WaveState::Done);
        match open {
            None => actions.push(Action::Finish {
                state: RolloutState::Succeeded,
            }),
            Some((index, wave))
                if wave.state == WaveState::Waiting && self.state == RolloutState::Running =>
            {
                let due = self.due(index, wave);
                if due > now {
                    round.wake(due);
                } else if index > 0 && !wave.things.is_empty() && !wave.is_approved() {
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
            .and_then(|before| self.waves.get(before))
            .and_then(|before| Some(before.done_at?.saturating_add(before.rules.soak_seconds)));
        soaked.max(wave.start_at).unwrap_or_default()
    }

    /// Tells the devices of the waves that have begun.
    fn installs<'a>(
        &'a self,
        round: &mut Round<'a>,
        devices: &'a Devices,
    ) -> Result<Vec<Action>, Error> {
        let mut actions = Vec::new();
        for (index, wave) in self.begun() {
            let mut candidates = Vec::new();
            for thing in &wave.things {
                let part = devices
                    .get(thing)
                    .and_then(|device| device.install.as_ref());
                candidates.extend(round.candidate(thing, part, &wave.rules));
            }
            let offers = round.offers(&wave.rules, candidates);
            if !offers.is_empty() {
                actions.push(Action::Install {
                    wave: index,
                    job: self.wave_job(index)?,
                    offers,
                });
            }
        }
        Ok(actions)
    }

    fn cancel_queued(&self, devices: &Devices) -> Result<Vec<Action>, Error> {
        let queued = |part: &&Part| part.status == ExecutionStatus::Queued;
        let mut jobs: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        for (index, wave) in self.waves.iter().enumerate() {
            for thing in &wave.things {
                let Some(device) = devices.get(thing) else {
                    continue;
                };
                if device.install.as_ref().filter(queued).is_some() {
                    let job = self.wave_job(index)?;
                    jobs.entry(job).or_default().push(thing.clone());
                }
                if let Some(part) = device.earlier.as_ref().filter(queued) {
                    let job = self.back_job(self.undone.saturating_sub(1), &part.to)?;
                    jobs.entry(job).or_default().push(thing.clone());
                }
            }
        }
        let cancel = |(job, things)| Action::CancelQueued { job, things };
        Ok(jobs.into_iter().map(cancel).collect())
    }

    /// Those who have the version go back to what they had, as soon as each has it; those who fell back by
    /// themselves are left alone. Those in progress are waited for: their timeout bounds it. Windows and
    /// rates hold on the way back too. One that is found to have taken it only after all is over, because
    /// its report came late, is still sent back.
    fn back(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        let mut actions = self.cancel_queued(devices)?;
        let mut round = Round::new(devices, self.things(), rollback, now);
        let mut back: BTreeMap<&FirmwareVersion, Vec<Offer>> = BTreeMap::new();
        let mut busy = false;
        for wave in &self.waves {
            let mut candidates = Vec::new();
            let mut targets: BTreeMap<&str, &FirmwareVersion> = BTreeMap::new();
            for thing in &wave.things {
                let Some(device) = devices.get(thing) else {
                    continue;
                };
                busy |= device.parts().any(|part| !part.status.is_terminal());
                let Some(target) = self.way_back(device) else {
                    continue;
                };
                targets.insert(thing, target);
                candidates.extend(round.candidate(thing, device.rollback.as_ref(), &wave.rules));
            }
            busy |= !candidates.is_empty();
            for offer in round.offers(&wave.rules, candidates) {
                if let Some(target) = targets.get(offer.thing.as_str()) {
                    back.entry(target).or_default().push(offer);
                }
            }
        }
        for (version, offers) in back {
            actions.push(Action::RollBack {
                job: self.back_job(self.undone, version)?,
                version: version.clone(),
                offers,
            });
        }
        if actions.is_empty() && !busy && self.state == RolloutState::RollingBack {
            let back = self.undone % 2 == 1;
            let state = if back {
                RolloutState::RolledBack
            } else {
                RolloutState::Succeeded
            };
            actions.push(Action::Finish { state });
        }
        Ok(Plan {
            actions,
            wake_at: round.wake_at(),
        })
    }

    /// What a device did last before the rollout was turned round.
    pub(super) fn undoes<'d>(&self, device: &'d Device) -> Option<&'d Part> {
        if self.undone > 1 {
            device.earlier.as_ref()
        } else {
            device.install.as_ref()
        }
    }

    /// The version a device should be sent back to: one it had, while it runs what it was given since.
    pub(super) fn way_back<'d>(&self, device: &'d Device) -> Option<&'d FirmwareVersion> {
        let did = self.undoes(device)?;
        let runs_it = device.current.as_ref() == Some(&did.to);
        did.before
            .as_ref()
            .filter(|before| did.status.is_terminal() && runs_it && **before != did.to)
    }
}
