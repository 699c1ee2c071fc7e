//! What `rollout show --json` says (names and states are part of the program's contract).

use serde::{Deserialize, Serialize};

use super::{Counts, Device, Planner, Pulse, Rollout, RolloutState, Rules, Wave, WaveState};
use crate::job::StatusDetails;
use crate::{ExecutionStatus, FirmwareName, FirmwareVersion, RolloutId};

/// A rollout as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Its id.
    pub id: RolloutId,
    /// The firmware.
    pub name: FirmwareName,
    /// The version it goes to.
    pub version: FirmwareVersion,
    /// Where it stands.
    pub state: RolloutState,
    /// Why it was aborted or rolled back.
    pub reason: Option<String>,
    /// Its waves.
    pub waves: Vec<ShownWave>,
    /// Its devices, wave by wave.
    pub executions: Vec<ShownExecution>,
    /// How its way back stands, once it was turned round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<ShownRollback>,
    /// What its health gates have seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<Pulse>,
}

/// The way back as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRollback {
    /// How often the rollout was turned round.
    pub turn: u32,
    /// Devices that go back.
    pub total: usize,
    /// Those that have gone back.
    pub succeeded: usize,
    /// Those that failed to.
    pub failed: usize,
    /// Those at it.
    pub in_progress: usize,
    /// Those that were told and have not begun.
    pub queued: usize,
    /// Those that were not told yet.
    pub waiting: usize,
}

/// A wave as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownWave {
    /// Its specification.
    pub name: String,
    /// Where it stands.
    pub state: WaveState,
    /// Devices in it.
    pub total: usize,
    /// Those that confirmed the new version.
    pub succeeded: usize,
    /// Those that failed, timed out or refused.
    pub failed: usize,
    /// Those at it.
    pub in_progress: usize,
    /// Those that have not begun.
    pub queued: usize,
    /// Who has approved it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved_by: Vec<String>,
    /// Not before this time, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<u64>,
    /// When it was good, seconds since 1970; its soak begins then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_at: Option<u64>,
    /// How it goes.
    pub rules: Rules,
}

/// A device of a rollout as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownExecution {
    /// The thing.
    pub thing: String,
    /// The name of its wave.
    pub wave: String,
    /// AWS's status, or `WAITING` before its wave has begun.
    pub status: String,
    /// The version the device is known to run now.
    pub version: Option<FirmwareVersion>,
    /// Why it stands so, in the device's own words where it gave any.
    pub reason: Option<String>,
    /// How its way back stands, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<ExecutionStatus>,
    /// The version the device says it runs, where that is not the one it is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<FirmwareVersion>,
    /// Which try it is, where it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// All that the device said (`statusDetails`), where it did not come to a good end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
}

impl Planner {
    /// The rollout as operators see it.
    #[must_use]
    pub fn view(&self) -> RolloutView {
        let rollout = &self.rollout;
        let waves = rollout.waves.iter().enumerate().map(|(index, wave)| {
            let counts = self.counts(index);
            ShownWave {
                name: wave.name.clone(),
                state: wave.state,
                total: counts.total,
                succeeded: counts.succeeded,
                failed: counts.failed,
                in_progress: counts.in_progress,
                queued: counts.queued,
                approved_by: wave.approved_by.clone(),
                start_at: wave.start_at,
                done_at: wave.done_at,
                rules: wave.rules.clone(),
            }
        });
        let of_waves = rollout
            .waves
            .iter()
            .flat_map(|wave| std::iter::repeat_n(wave, wave.things.len()));
        let executions = of_waves
            .zip(self.devices())
            .map(|(wave, (thing, device))| rollout.execution(thing, wave, device));
        RolloutView {
            id: rollout.id.clone(),
            name: rollout.spec.name.clone(),
            version: rollout.spec.version.clone(),
            state: rollout.state,
            reason: rollout.reason.clone(),
            waves: waves.collect(),
            executions: executions.collect(),
            rollback: (rollout.undone > 0).then(|| self.rollback()),
            health: rollout.health.clone(),
        }
    }

    fn rollback<'d>(&'d self) -> ShownRollback {
        let all = || self.devices.iter();
        let waiting = all()
            .filter(|device| device.rollback.is_none() && self.rollout.way_back(device).is_some())
            .count();
        let part = |device: &'d Device| Some((device.rollback.as_ref()?, device.current.as_ref()));
        let parts = || all().filter_map(part);
        let total = parts().count();
        let counts = Counts::count(total, parts(), &self.rollout.spec.rules);
        ShownRollback {
            turn: self.rollout.undone,
            total: total + waiting,
            succeeded: counts.succeeded,
            failed: counts.failed,
            in_progress: counts.in_progress,
            queued: counts.queued,
            waiting,
        }
    }
}

impl Rollout {
    fn execution(&self, thing: &str, wave: &Wave, device: &Device) -> ShownExecution {
        let install = device.install.as_ref();
        let rollback = device.rollback.as_ref();
        let stuck = matches!(
            self.state,
            RolloutState::RollingBack | RolloutState::RolledBack
        ) && install
            .is_some_and(|part| part.status == ExecutionStatus::Succeeded && part.before.is_none())
            && rollback.is_none();
        let reason = device.reason.clone();
        let lost = device
            .zone
            .as_deref()
            .filter(|name| wave.rules.window.is_some() && super::zone(name, "").is_err());
        ShownExecution {
            thing: thing.to_owned(),
            wave: wave.name.clone(),
            status: install.map_or_else(|| "WAITING".to_owned(), |part| part.status.to_string()),
            version: device.current.clone(),
            reason: reason
                .or_else(|| stuck.then(|| "no earlier version is known to go back to".to_owned()))
                .or_else(|| {
                    let why = |name| {
                        format!("it has no window: its attribute timezone `{name}` is no time zone")
                    };
                    lost.map(why)
                }),
            rollback: rollback.map(|part| part.status),
            reported: None,
            details: None,
            attempt: install.map(|part| part.attempt).filter(|try_| *try_ > 1),
        }
    }
}
