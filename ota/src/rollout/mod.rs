//! The rollout planner: a rollout, how its devices stand and the time go in; what to do next comes out.
//!
//! It is pure and can be asked as often as one likes: an action stays on the list until what it does can
//! be seen in the rollout ([`Rollout::apply`]) or in the devices, and names everything it makes
//! deterministically, so doing it again after a crash makes nothing twice.

mod alarm;
mod back;
mod command;
mod device;
mod failures;
mod forecast;
mod gate;
mod index;
mod offer;
mod plan;
mod planner;
mod rate;
mod show;
mod spec;
mod waves;
mod window;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use alarm::USUAL_PERCENT;
pub use command::Command;
use device::Counts;
pub use device::{Device, Devices, HELD, Part};
pub use failures::{Failures, MAX_SHOWN_REASONS, ShownFailure};
pub use forecast::{Forecast, ForecastThing, ForecastWave};
pub use gate::{DEFAULT_WATCH_SECONDS, Look, MAX_WATCH_SECONDS, Metric, Pulse};
pub use plan::Plan;
pub use planner::Planner;
pub use rate::{Counted, Growth, Rate};
pub use show::{
    Deed, RolloutView, ShownBackWave, ShownExecution, ShownRollback, ShownTimes, ShownWave,
};
pub use spec::{
    DEFAULT_TIMEOUT_MINUTES, MAX_APPROVERS, MAX_RETRIES, MAX_SOAK_SECONDS, RolloutSpec, Rules,
    WavePlan,
};
pub use waves::{MAX_THINGS, MAX_WAVES, WaveSpec, assign};
pub use window::{Opening, Window, zone};

use crate::{Error, FirmwareVersion, JobId, RolloutId, sha256};

/// Whether a job's id is kept for the jobs of rollouts: it begins like the id of one, `r-`, twelve and eight
/// hexadecimal digits, and goes on.
#[must_use]
pub fn is_kept(job: &JobId) -> bool {
    let hex = |text: &str, digits: usize| {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        text.len() == digits && text.bytes().all(digit)
    };
    let mut parts = job.as_str().splitn(4, '-');
    parts.next() == Some("r")
        && parts.next().is_some_and(|moment| hex(moment, 12))
        && parts.next().is_some_and(|random| hex(random, 8))
        && parts.next().is_some()
}

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
    /// No device begins; the devices at work go on, and the abort rule holds.
    Paused,
    /// The next wave needs people to approve it.
    WaitingApproval,
    /// Every wave is done; with `--success`, devices that were not waited for still get it, and where too
    /// many of them fail the rollout goes back after all.
    Succeeded,
    /// The devices that took it are going back, wave by wave.
    RollingBack,
    /// Those who could go back did, or some of them; the reason has how many did not.
    RolledBack,
    /// Stopped by a person, or turned round and nobody went; devices stay as they are.
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
            Self::WaitingApproval => "waiting-approval",
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
    /// It is good: every device of it has finished, or as many have succeeded as were asked for.
    Done,
    /// Stopped by the abort rule or a person.
    Aborted,
}

/// How a wave goes back, once the rollout was turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackWave {
    /// Where it stands.
    pub state: WaveState,
    /// When its devices were told first (seconds since 1970).
    pub begun_at: Option<u64>,
}

impl Default for BackWave {
    fn default() -> Self {
        Self {
            state: WaveState::Waiting,
            begun_at: None,
        }
    }
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
    /// Not before this time (seconds since 1970).
    pub start_at: Option<u64>,
    /// What it lives by.
    pub rules: Rules,
    /// When it was found good (seconds since 1970).
    pub done_at: Option<u64>,
    /// Who has approved it.
    pub approved_by: Vec<String>,
    /// How it goes back.
    pub back: BackWave,
}

impl Wave {
    fn is_approved(&self) -> bool {
        self.approved_by.len() as u64 >= u64::from(self.rules.approvers)
    }
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
    /// How often it was turned round: 1 is its rollback, 2 the rollback of that, and so on.
    pub undone: u32,
    /// What its health gates have seen.
    pub health: Vec<Pulse>,
    /// Until when they have looked (seconds since 1970).
    pub looked_at: u64,
    /// The versions that devices it was turned round for cannot be brought to, and why. Found out anew, not stored.
    #[serde(skip)]
    pub barred: BTreeMap<FirmwareVersion, String>,
    /// Why every device would refuse its version by now, where that is so: nobody is told of it. Found out anew, not stored.
    #[serde(skip)]
    pub withheld: Option<String>,
}

/// What one device is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The thing.
    pub thing: String,
    /// Which try this is, from 1. One that was made is not made again; one that was shut is open again.
    pub attempt: u32,
    /// Until when it may begin (seconds since 1970).
    pub until: Option<u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The time has come.
    Begin,
    /// From now on the wave's devices are told.
    StartWave {
        /// Index of the wave.
        wave: usize,
    },
    /// Make the wave's job, where it is not there yet, and queue it for these things.
    Install {
        /// Index of the wave.
        wave: usize,
        /// The job's id.
        job: JobId,
        /// For whom.
        offers: Vec<Offer>,
    },
    /// The wave is good.
    FinishWave {
        /// Index of the wave.
        wave: usize,
        /// Now.
        at: u64,
    },
    /// Wait until people approve the next wave.
    AwaitApproval,
    /// The wave failed; from now on the rollout goes back.
    Abort {
        /// Index of the wave.
        wave: usize,
        /// The rule and the numbers.
        why: String,
    },
    /// Nobody of the wave is left to take it; from now on nothing more happens, and nobody is sent back.
    GiveUp {
        /// Index of the wave.
        wave: usize,
        /// What became of its devices.
        why: String,
    },
    /// The rollout is paused: take these executions back, as a window that has closed does, if they are
    /// still queued. They are offered again, as the same try, when it goes on.
    Hold {
        /// The job.
        job: JobId,
        /// Whose.
        things: Vec<String>,
    },
    /// Cancel these executions if they are still queued; those in progress go on to their end.
    CancelQueued {
        /// The job.
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
        offers: Vec<Offer>,
    },
    /// From now on the devices of the wave that go back are told so.
    StartBack {
        /// Index of the wave.
        wave: usize,
        /// Now.
        at: u64,
    },
    /// Enough of the wave have gone back for the next one to follow.
    FinishBack {
        /// Index of the wave.
        wave: usize,
    },
    /// The way back failed; devices stay as they are.
    StopBack {
        /// Index of the wave.
        wave: usize,
        /// The rule and the numbers.
        why: String,
    },
    /// The rollout is over.
    Finish {
        /// How.
        state: RolloutState,
        /// What is to be said of that, beside the reason for which it was turned round.
        why: Option<String>,
    },
}

/// What the ids of the jobs begin with that bring devices back in this turn.
fn back_jobs(id: &RolloutId, turn: u32) -> String {
    match turn {
        0 | 1 => format!("{id}-back-"),
        turn => format!("{id}-b{turn}-"),
    }
}

/// Whether nobody may begin with a job of a rollout any more that stands so and was turned round so often: it was stopped,
/// or the job is of an earlier turn. Who has begun goes on.
#[must_use]
pub fn is_withdrawn(id: &RolloutId, state: RolloutState, turn: u32, job: &JobId) -> bool {
    let earlier = turn > 0 && !job.as_str().starts_with(&back_jobs(id, turn));
    state == RolloutState::Aborted || earlier
}

impl Rollout {
    /// A rollout that has not begun. Each wave comes with its things.
    ///
    /// # Errors
    /// [`Error::Rollout`] where the specification means nothing or could never come true after `now`.
    pub fn new(
        id: RolloutId,
        spec: RolloutSpec,
        waves: Vec<(WavePlan, Vec<String>)>,
        now: u64,
    ) -> Result<Self, Error> {
        spec.rules.check(now)?;
        if id.as_str().len() > MAX_ROLLOUT_ID_BYTES {
            return Err(Error::Rollout {
                why: format!("its id has more than {MAX_ROLLOUT_ID_BYTES} bytes"),
            });
        }
        let wave = |(plan, things): (WavePlan, _)| {
            plan.rules.check(now)?;
            Ok(Wave {
                name: plan.size.to_string(),
                state: WaveState::Waiting,
                things,
                start_at: plan.start_at,
                rules: plan.rules,
                done_at: None,
                approved_by: Vec::new(),
                back: BackWave::default(),
            })
        };
        Ok(Self {
            id,
            spec,
            state: RolloutState::Scheduled,
            waves: waves.into_iter().map(wave).collect::<Result<_, Error>>()?,
            reason: None,
            undone: 0,
            health: Vec::new(),
            looked_at: 0,
            barred: BTreeMap::new(),
            withheld: None,
        })
    }

    /// The id of a wave's job.
    ///
    /// # Errors
    /// Never: the rollout's id was checked to leave room.
    pub fn wave_job(&self, wave: usize) -> Result<JobId, Error> {
        format!("{}-wave-{}", self.id, wave + 1).parse()
    }

    /// The id of the job that brings devices to `version` when the rollout is turned round for the
    /// `turn`th time.
    ///
    /// # Errors
    /// Never: the rollout's id was checked to leave room.
    pub fn back_job(&self, turn: u32, version: &FirmwareVersion) -> Result<JobId, Error> {
        let hash = sha256(version.as_str().as_bytes()).to_string();
        let hash = hash.get(..8).unwrap_or_default();
        format!("{}{hash}", back_jobs(&self.id, turn)).parse()
    }

    /// Whether any device must be asked for its time zone.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        let rules = self.waves.iter().map(|wave| &wave.rules);
        rules
            .chain([&self.spec.rules])
            .any(|rules| rules.window.is_some())
    }

    fn things(&self) -> impl Iterator<Item = &String> {
        self.waves.iter().flat_map(|wave| &wave.things)
    }

    /// Records that `action` was done. What is told to devices shows in the devices, not here.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::Begin => self.state = RolloutState::Running,
            Action::StartWave { wave } => self.set_wave(*wave, WaveState::Running),
            Action::FinishWave { wave, at } => {
                self.set_wave(*wave, WaveState::Done);
                if let Some(wave) = self.waves.get_mut(*wave) {
                    wave.done_at = Some(*at);
                }
            }
            Action::AwaitApproval => self.state = RolloutState::WaitingApproval,
            Action::Abort { wave, why } => {
                self.set_wave(*wave, WaveState::Aborted);
                self.undo(why.clone());
            }
            Action::GiveUp { wave, why } => {
                self.set_wave(*wave, WaveState::Aborted);
                self.reason = Some(why.clone());
                self.state = RolloutState::Aborted;
            }
            Action::StartBack { wave, at } => {
                if let Some(wave) = self.waves.get_mut(*wave) {
                    wave.back = BackWave {
                        state: WaveState::Running,
                        begun_at: Some(*at),
                    };
                }
            }
            Action::FinishBack { wave } => {
                if let Some(wave) = self.waves.get_mut(*wave) {
                    wave.back.state = WaveState::Done;
                }
            }
            Action::StopBack { wave, why } => {
                if let Some(wave) = self.waves.get_mut(*wave) {
                    wave.back.state = WaveState::Aborted;
                }
                self.state = RolloutState::Aborted;
                self.say_too(&format!("the way back was stopped: {why}"));
            }
            Action::Finish { state, why } => {
                self.state = *state;
                why.iter().for_each(|why| self.say_too(why));
            }
            Action::Install { .. }
            | Action::Hold { .. }
            | Action::CancelQueued { .. }
            | Action::RollBack { .. } => {}
        }
    }

    fn say_too(&mut self, why: &str) {
        let reason = self.reason.take().map(|reason| format!("{reason}; "));
        self.reason = Some(format!("{}{why}", reason.unwrap_or_default()));
    }

    fn set_wave(&mut self, index: usize, state: WaveState) {
        if let Some(wave) = self.waves.get_mut(index) {
            wave.state = state;
        }
    }
}

#[cfg(test)]
mod tests;
