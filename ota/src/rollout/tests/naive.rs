//! The planner as it is told: everything counted anew each time it is asked. It is what the one that keeps
//! count is held against.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::super::gate::alarm;
use super::super::offer::{Opens, opens};
use super::super::*;
use super::Devices;
use crate::ExecutionStatus;

fn install(device: &Device) -> Option<&Part> {
    device.install.as_ref()
}

fn rollback(device: &Device) -> Option<&Part> {
    device.rollback.as_ref()
}

fn plan_of(actions: Vec<Action>) -> Plan {
    Plan {
        actions,
        wake_at: None,
    }
}

/// Counts installs.
pub(super) fn counts(things: &[String], devices: &Devices, rules: &Rules) -> Counts {
    let installs = things.iter().filter_map(|thing| {
        let device = devices.get(thing)?;
        Some((device.install.as_ref()?, device.current.as_ref()))
    });
    Counts::count(things.len(), installs, rules)
}

impl Rollout {
    /// What to do now, and when to ask again.
    pub(super) fn plan_naively(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        match self.state {
            RolloutState::Scheduled => Ok(match self.spec.start_at {
                Some(start) if start > now => Plan {
                    actions: Vec::new(),
                    wake_at: Some(start),
                },
                _ => plan_of(vec![Action::Begin]),
            }),
            RolloutState::Paused if self.undone > 0 => self.back(devices, now),
            RolloutState::Running | RolloutState::Paused | RolloutState::WaitingApproval => {
                self.forward(devices, now)
            }
            // Those who were not waited for.
            RolloutState::Succeeded if self.undone == 0 => {
                if let Some(abort) = self.judge(devices) {
                    return Ok(plan_of(vec![abort]));
                }
                let mut round = Round::new(devices, self.things(), install, now);
                let actions = self.installs(&mut round, devices)?;
                Ok(Plan {
                    actions,
                    wake_at: round.wake_at(),
                })
            }
            RolloutState::Succeeded => Ok(Plan::default()),
            RolloutState::Aborted => Ok(plan_of(self.cancel_queued(devices)?)),
            RolloutState::RollingBack | RolloutState::RolledBack => self.back(devices, now),
        }
    }

    fn begun(&self) -> impl Iterator<Item = (usize, &Wave)> {
        let begun = |wave: &Wave| matches!(wave.state, WaveState::Running | WaveState::Done);
        self.waves
            .iter()
            .enumerate()
            .filter(move |(_, wave)| begun(wave))
    }

    fn judge(&self, devices: &Devices) -> Option<Action> {
        let begun: Vec<(usize, &Wave, Counts)> = self
            .begun()
            .map(|(index, wave)| (index, wave, counts(&wave.things, devices, &wave.rules)))
            .collect();
        if let Some((last, ..)) = begun.last() {
            let failed = begun.iter().map(|(_, _, counts)| counts.failed).sum();
            let finished = begun.iter().map(|(_, _, counts)| counts.finished()).sum();
            let seen = alarm(
                self.gates().len(),
                &self.health,
                &self.spec.rules,
                failed,
                finished,
            );
            if let Some(why) = seen {
                return Some(Action::Abort { wave: *last, why });
            }
        }
        // A wave that was good may turn out bad by those it did not wait for.
        for (index, wave, counts) in begun {
            if let Some(why) = wave.rules.stops(&counts) {
                return Some(Action::Abort { wave: index, why });
            }
        }
        None
    }

    fn forward(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        if let Some(abort) = self.judge(devices) {
            return Ok(plan_of(vec![abort]));
        }
        for (index, wave) in self.begun() {
            let counts = counts(&wave.things, devices, &wave.rules);
            let gone = counts.taken_over();
            if let Some(why) = gone.filter(|_| wave.state == WaveState::Running) {
                return Ok(plan_of(vec![Action::GiveUp { wave: index, why }]));
            }
            if wave.state == WaveState::Running && wave.rules.passes(&counts) {
                return Ok(plan_of(vec![Action::FinishWave {
                    wave: index,
                    at: now,
                }]));
            }
        }
        if self.state == RolloutState::Paused {
            return Ok(plan_of(self.hold(devices, now)?));
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
                why: None,
            }),
            Some((index, wave))
                if wave.state == WaveState::Waiting && self.state == RolloutState::Running =>
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
            .and_then(|before| self.waves.get(before))
            .and_then(|before| {
                let watch = if before.rules.gates.is_empty() {
                    0
                } else {
                    2 * self.spec.rules.watch_seconds + 1
                };
                Some(
                    before
                        .done_at?
                        .saturating_add(before.rules.soak_seconds.max(watch)),
                )
            });
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

    fn hold(&self, devices: &Devices, now: u64) -> Result<Vec<Action>, Error> {
        let told = |thing: &&String| {
            let part = devices
                .get(*thing)
                .and_then(|device| device.install.as_ref());
            part.is_some_and(|part| part.status == ExecutionStatus::Queued && !part.is_shut(now))
        };
        let mut actions = Vec::new();
        for (index, wave) in self.begun() {
            let things: Vec<String> = wave.things.iter().filter(told).cloned().collect();
            if !things.is_empty() {
                let job = self.wave_job(index)?;
                actions.push(Action::Hold { job, things });
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
                let stopped = self.state == RolloutState::Aborted;
                if let Some(part) = device.rollback.as_ref().filter(queued).filter(|_| stopped) {
                    let job = self.back_job(self.undone, &part.to)?;
                    jobs.entry(job).or_default().push(thing.clone());
                }
            }
        }
        let cancel = |(job, things)| Action::CancelQueued { job, things };
        Ok(jobs.into_iter().map(cancel).collect())
    }

    pub(super) fn back_counts(&self, wave: usize, devices: &Devices) -> Counts {
        let wave = &self.waves[wave];
        let all = || wave.things.iter().filter_map(|thing| devices.get(thing));
        let told: Vec<_> = all()
            .filter_map(|device| Some((device.rollback.as_ref()?, device.current.as_ref())))
            .collect();
        let fresh = all()
            .filter(|device| device.rollback.is_none() && self.way_back(device).is_some())
            .count();
        Counts::count(told.len() + fresh, told.into_iter(), &wave.rules)
    }

    /// Those who have the version go back to what they had, as soon as each has it; those who fell back by
    /// themselves are left alone. Those in progress are waited for: their timeout bounds it. Windows and
    /// rates hold on the way back too. One that is found to have taken it only after all is over, because
    /// its report came late, is still sent back.
    fn back(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        let over = self.state == RolloutState::RolledBack;
        let counts = |wave: usize| self.back_counts(wave, devices);
        if let Some(stop) = self.judge_back(counts).filter(|_| !over) {
            return Ok(plan_of(vec![stop]));
        }
        let mut actions = self.cancel_queued(devices)?;
        if self.state == RolloutState::Paused {
            let mut jobs: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
            for thing in self.things() {
                let Some(device) = devices.get(thing) else {
                    continue;
                };
                let told =
                    |part: &&Part| part.status == ExecutionStatus::Queued && !part.is_shut(now);
                let part = device.rollback.as_ref().filter(told);
                if let Some(part) = part.filter(|_| self.way_back(device).is_some()) {
                    let job = self.back_job(self.undone, &part.to)?;
                    jobs.entry(job).or_default().push(thing.clone());
                }
            }
            let hold = |(job, things)| Action::Hold { job, things };
            actions.extend(jobs.into_iter().map(hold));
            return Ok(plan_of(actions));
        }
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
                if !over && wave.back.state == WaveState::Waiting {
                    let told = |part: &Part| {
                        part.is_shut(now) || part.is_retried(&wave.rules, device.current.as_ref())
                    };
                    busy |= device.rollback.as_ref().is_none_or(told);
                    continue;
                }
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
        if actions.is_empty() && !over {
            let begins = |wave: usize, rules: &Rules| {
                let things = self.waves[wave].things.iter();
                let waiting = things
                    .filter_map(|thing| devices.get(thing))
                    .filter(|device| {
                        let again = |part: &Part| part.is_retried(rules, device.current.as_ref());
                        self.way_back(device).is_some()
                            && device.rollback.as_ref().is_none_or(again)
                    });
                let opens = waiting.map(|device| opens(rules, device.zone.as_deref(), now));
                let opens: Vec<Opens> = opens.collect();
                match opens.iter().any(Result::is_ok) {
                    true => None,
                    false => opens.into_iter().filter_map(|opens| opens.err()?).min(),
                }
            };
            match self.next_back(now, counts, begins) {
                Ok(None) if !busy => {
                    let all = || self.things().filter_map(|thing| devices.get(thing));
                    let left = all().filter(|device| self.is_left(device)).count();
                    actions.push(self.turned_round(round.succeeded, left, all()));
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
}

/// The time over which a rate is counted.
const MINUTE: u64 = 60;

/// One round of telling devices at one moment.
struct Round<'a> {
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
struct Candidate<'a> {
    thing: &'a str,
    attempt: u32,
    /// When it was told before.
    told_at: Option<u64>,
}

impl<'a> Round<'a> {
    /// `things` are those of the rollout that may have been told; `part` is what they are told of now.
    fn new(
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

    fn wake(&mut self, at: u64) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
        }
    }

    const fn wake_at(&self) -> Option<u64> {
        self.wake_at
    }

    /// Whether a device with this part in a job has to be told, as far as that part goes.
    fn candidate(
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
    fn offers(&mut self, rules: &Rules, candidates: Vec<Candidate<'a>>) -> Vec<Offer> {
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
