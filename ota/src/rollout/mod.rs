//! The rollout planner: a rollout, how its devices stand and the time go in; what to do next comes out.
//!
//! It is pure and can be asked as often as one likes: an action stays on the list until what it does can
//! be seen in the rollout ([`Rollout::apply`]) or in the devices, and names everything it makes
//! deterministically, so doing it again after a crash makes nothing twice.

mod show;
mod spec;
mod waves;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use show::{RolloutView, ShownExecution, ShownWave};
pub use spec::{DEFAULT_TIMEOUT_MINUTES, RolloutSpec};
pub use waves::{MAX_THINGS, MAX_WAVES, WaveSpec, assign};

use crate::{Error, ExecutionStatus, FirmwareVersion, JobId, RolloutId, sha256};

/// Longest rollout id, so that the ids of its jobs fit a job id.
pub const MAX_ROLLOUT_ID_BYTES: usize = 48;

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Waits for its time.
    Scheduled,
    /// Waves are going out.
    Running,
    /// No new wave begins; the devices at work go on, and the abort rule holds.
    Paused,
    /// Every wave is done.
    Succeeded,
    /// The devices that took it are going back.
    RollingBack,
    /// Nobody who could go back has the version any more.
    RolledBack,
    /// Stopped by a person; devices stay as they are.
    Aborted,
}

impl RolloutState {
    /// The name in `rollout show --json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
        }
    }

    /// Whether the planner will do nothing more by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack | Self::Aborted)
    }
}

/// Where a wave stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaveState {
    /// Not begun; its devices know nothing.
    Waiting,
    /// Its job is out.
    Running,
    /// Every device of it has finished.
    Done,
    /// Stopped by the abort rule or a person.
    Aborted,
}

/// A wave and who is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wave {
    /// Its specification, `10%`.
    pub name: String,
    /// Where it stands.
    pub state: WaveState,
    /// Its things, in the order of their hashes.
    pub things: Vec<String>,
}

/// A rollout: the specification and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// What was asked for.
    pub spec: RolloutSpec,
    /// Where it stands.
    pub state: RolloutState,
    /// Its waves, in order.
    pub waves: Vec<Wave>,
    /// Why it was aborted or rolled back.
    pub reason: Option<String>,
}

/// How one device of a rollout stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its install execution; `None` before its wave.
    pub install: Option<ExecutionStatus>,
    /// Its rollback execution.
    pub rollback: Option<ExecutionStatus>,
    /// The version it had when its install was queued.
    pub before: Option<FirmwareVersion>,
    /// The version it is known to run now.
    pub current: Option<FirmwareVersion>,
    /// What the device said about its last failure.
    pub reason: Option<String>,
}

/// The devices of a rollout by thing name; one not in here is as if it had no execution.
pub type Devices = BTreeMap<String, Device>;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The time has come.
    Begin,
    /// Make the wave's job and queue it for its things.
    StartWave {
        /// Index of the wave.
        wave: usize,
        /// The job's id.
        job: JobId,
        /// For whom.
        things: Vec<String>,
    },
    /// The wave is over.
    FinishWave {
        /// Index of the wave.
        wave: usize,
    },
    /// The wave failed; from now on the rollout goes back.
    Abort {
        /// Index of the wave.
        wave: usize,
        /// The rule and the numbers.
        why: String,
    },
    /// Cancel these install executions if they are still queued; those in progress go on to their end.
    CancelQueued {
        /// The wave's job.
        job: JobId,
        /// Whose.
        things: Vec<String>,
    },
    /// Queue the way back to `version` for these things.
    RollBack {
        /// The job's id.
        job: JobId,
        /// The version they had.
        version: FirmwareVersion,
        /// For whom.
        things: Vec<String>,
    },
    /// The rollout is over.
    Finish {
        /// How.
        state: RolloutState,
    },
}

/// What an operator may tell a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin no further wave.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good; devices stay as they are.
    Abort,
    /// Stop for good and go back.
    Rollback,
}

/// The devices of a wave, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: usize,
    pub(crate) succeeded: usize,
    pub(crate) failed: usize,
    pub(crate) in_progress: usize,
    pub(crate) queued: usize,
    ended: usize,
}

impl Counts {
    pub(crate) fn of(things: &[String], devices: &Devices) -> Self {
        let mut counts = Self {
            total: things.len(),
            ..Self::default()
        };
        for status in things
            .iter()
            .filter_map(|thing| devices.get(thing)?.install)
        {
            match status {
                ExecutionStatus::Succeeded => counts.succeeded += 1,
                ExecutionStatus::InProgress => counts.in_progress += 1,
                ExecutionStatus::Queued => counts.queued += 1,
                status if status.is_failure() => counts.failed += 1,
                _ => {}
            }
            counts.ended += usize::from(status.is_terminal());
        }
        counts
    }

    /// What the abort rule divides by: executions that were cancelled or removed tell nothing.
    const fn finished(&self) -> usize {
        self.succeeded + self.failed
    }
}

impl Rollout {
    /// A rollout that has not begun.
    ///
    /// # Errors
    /// [`Error::Rollout`] where the specification means nothing.
    pub fn new(
        id: RolloutId,
        spec: RolloutSpec,
        waves: Vec<(String, Vec<String>)>,
    ) -> Result<Self, Error> {
        spec.check()?;
        if id.as_str().len() > MAX_ROLLOUT_ID_BYTES {
            return Err(Error::Rollout {
                why: format!("its id has more than {MAX_ROLLOUT_ID_BYTES} bytes"),
            });
        }
        let waves = waves
            .into_iter()
            .map(|(name, things)| Wave {
                name,
                state: WaveState::Waiting,
                things,
            })
            .collect();
        Ok(Self {
            id,
            spec,
            state: RolloutState::Scheduled,
            waves,
            reason: None,
        })
    }

    /// The id of a wave's job.
    ///
    /// # Errors
    /// Never: the rollout's id was checked to leave room.
    pub fn wave_job(&self, wave: usize) -> Result<JobId, Error> {
        format!("{}-wave-{}", self.id, wave + 1).parse()
    }

    /// The id of the job that brings devices back to `version`.
    ///
    /// # Errors
    /// Never: the rollout's id was checked to leave room.
    pub fn back_job(&self, version: &FirmwareVersion) -> Result<JobId, Error> {
        let hash = sha256(version.as_str().as_bytes()).to_string();
        format!("{}-back-{}", self.id, hash.get(..8).unwrap_or_default()).parse()
    }

    /// What to do now, in order; empty where only devices, people or time can change anything.
    ///
    /// # Errors
    /// Never: ids leave room for their endings.
    pub fn next(&self, devices: &Devices, now: u64) -> Result<Vec<Action>, Error> {
        match self.state {
            RolloutState::Scheduled if self.spec.start_at.is_none_or(|start| start <= now) => {
                Ok(vec![Action::Begin])
            }
            RolloutState::Scheduled | RolloutState::Succeeded | RolloutState::RolledBack => {
                Ok(Vec::new())
            }
            RolloutState::Running | RolloutState::Paused => self.next_wave(devices),
            RolloutState::Aborted => self.cancel_queued(devices),
            RolloutState::RollingBack => self.next_back(devices),
        }
    }

    /// When [`Rollout::next`] may say something new though nothing happened.
    #[must_use]
    pub const fn wake_at(&self) -> Option<u64> {
        match self.state {
            RolloutState::Scheduled => self.spec.start_at,
            _ => None,
        }
    }

    fn next_wave(&self, devices: &Devices) -> Result<Vec<Action>, Error> {
        let goes_on = self.state == RolloutState::Running;
        let open = self
            .waves
            .iter()
            .enumerate()
            .find(|(_, wave)| wave.state != WaveState::Done);
        Ok(match open {
            None if goes_on => vec![Action::Finish {
                state: RolloutState::Succeeded,
            }],
            Some((index, wave)) if wave.state == WaveState::Running => {
                let counts = Counts::of(&wave.things, devices);
                let over = counts.ended == counts.total;
                if let Some(why) = self.spec.abort_rule(&counts) {
                    vec![Action::Abort { wave: index, why }]
                } else if over && counts.succeeded == 0 && counts.failed > 0 {
                    let why = format!(
                        "none of the {} devices that finished succeeded",
                        counts.finished()
                    );
                    vec![Action::Abort { wave: index, why }]
                } else if over {
                    vec![Action::FinishWave { wave: index }]
                } else {
                    Vec::new()
                }
            }
            Some((index, wave)) if goes_on => {
                vec![Action::StartWave {
                    wave: index,
                    job: self.wave_job(index)?,
                    things: wave.things.clone(),
                }]
            }
            _ => Vec::new(),
        })
    }

    fn cancel_queued(&self, devices: &Devices) -> Result<Vec<Action>, Error> {
        let mut actions = Vec::new();
        for (index, wave) in self.waves.iter().enumerate() {
            let queued = |thing: &&String| {
                devices
                    .get(*thing)
                    .is_some_and(|device| device.install == Some(ExecutionStatus::Queued))
            };
            let things: Vec<String> = wave.things.iter().filter(queued).cloned().collect();
            if !things.is_empty() {
                actions.push(Action::CancelQueued {
                    job: self.wave_job(index)?,
                    things,
                });
            }
        }
        Ok(actions)
    }

    /// Those who have the version go back to what they had, as soon as each has it; those who failed fell
    /// back by themselves and are left alone. Those in progress are waited for: their timeout bounds it.
    fn next_back(&self, devices: &Devices) -> Result<Vec<Action>, Error> {
        let mut actions = self.cancel_queued(devices)?;
        let mut back: BTreeMap<&FirmwareVersion, Vec<String>> = BTreeMap::new();
        let mut busy = false;
        for (thing, device) in self
            .things()
            .filter_map(|thing| Some((thing, devices.get(thing)?)))
        {
            busy |= device.install.is_some_and(|status| !status.is_terminal());
            busy |= device.rollback.is_some_and(|status| !status.is_terminal());
            if let Some(version) = self.way_back(device) {
                back.entry(version).or_default().push(thing.clone());
            }
        }
        for (version, things) in back {
            actions.push(Action::RollBack {
                job: self.back_job(version)?,
                version: version.clone(),
                things,
            });
        }
        if actions.is_empty() && !busy {
            actions.push(Action::Finish {
                state: RolloutState::RolledBack,
            });
        }
        Ok(actions)
    }

    /// The version a device should be sent back to: one it had, while it still runs this rollout's.
    fn way_back<'d>(&self, device: &'d Device) -> Option<&'d FirmwareVersion> {
        let took = device.install == Some(ExecutionStatus::Succeeded) && device.rollback.is_none();
        let runs_it = device.current.as_ref() == Some(&self.spec.version);
        device
            .before
            .as_ref()
            .filter(|before| took && runs_it && **before != self.spec.version)
    }

    fn things(&self) -> impl Iterator<Item = &String> {
        self.waves.iter().flat_map(|wave| &wave.things)
    }

    /// Records that `action` was done. `CancelQueued` and `RollBack` show in the devices, not here.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::Begin => self.state = RolloutState::Running,
            Action::StartWave { wave, .. } => self.set_wave(*wave, WaveState::Running),
            Action::FinishWave { wave } => self.set_wave(*wave, WaveState::Done),
            Action::Abort { wave, why } => {
                self.set_wave(*wave, WaveState::Aborted);
                self.state = RolloutState::RollingBack;
                self.reason = Some(why.clone());
            }
            Action::Finish { state } => self.state = *state,
            Action::CancelQueued { .. } | Action::RollBack { .. } => {}
        }
    }

    fn set_wave(&mut self, index: usize, state: WaveState) {
        if let Some(wave) = self.waves.get_mut(index) {
            wave.state = state;
        }
    }

    /// Does what a person says.
    ///
    /// # Errors
    /// [`Error::RolloutState`] where that cannot be said to a rollout in this state.
    pub fn command(&mut self, command: Command) -> Result<(), Error> {
        use RolloutState::{Aborted, Paused, RollingBack, Running, Scheduled, Succeeded};
        let (verb, next) = match (command, self.state) {
            (Command::Pause, Running) => ("paused", Some(Paused)),
            (Command::Resume, Paused) => ("resumed", Some(Running)),
            (Command::Abort, Scheduled | Running | Paused) => ("aborted", Some(Aborted)),
            (Command::Rollback, Scheduled | Running | Paused | Succeeded | Aborted) => {
                ("rolled back", Some(RollingBack))
            }
            (Command::Pause, _) => ("paused", None),
            (Command::Resume, _) => ("resumed", None),
            (Command::Abort, _) => ("aborted", None),
            (Command::Rollback, _) => ("rolled back", None),
        };
        let Some(next) = next else {
            return Err(Error::RolloutState {
                id: self.id.to_string(),
                state: self.state.as_str(),
                verb,
            });
        };
        if matches!(next, Aborted | RollingBack) {
            for wave in self
                .waves
                .iter_mut()
                .filter(|wave| wave.state == WaveState::Running)
            {
                wave.state = WaveState::Aborted;
            }
            self.reason = Some(format!("{verb} by an operator"));
        }
        self.state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
