//! What `rollout show --json` says (names and states are part of the program's contract).

use serde::{Deserialize, Serialize};

use super::{Counts, Device, Devices, Rollout, RolloutState, WaveState};
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
}

impl Rollout {
    /// The rollout as operators see it.
    #[must_use]
    pub fn view(&self, devices: &Devices) -> RolloutView {
        let waves = self.waves.iter().map(|wave| {
            let counts = Counts::of(&wave.things, devices);
            ShownWave {
                name: wave.name.clone(),
                state: wave.state,
                total: counts.total,
                succeeded: counts.succeeded,
                failed: counts.failed,
                in_progress: counts.in_progress,
                queued: counts.queued,
            }
        });
        let executions = self.waves.iter().flat_map(|wave| {
            wave.things
                .iter()
                .map(|thing| self.execution(thing, &wave.name, devices.get(thing)))
        });
        RolloutView {
            id: self.id.clone(),
            name: self.spec.name.clone(),
            version: self.spec.version.clone(),
            state: self.state,
            reason: self.reason.clone(),
            waves: waves.collect(),
            executions: executions.collect(),
        }
    }

    fn execution(&self, thing: &str, wave: &str, device: Option<&Device>) -> ShownExecution {
        let install = device.and_then(|device| device.install);
        let rollback = device.and_then(|device| device.rollback);
        let stuck = matches!(
            self.state,
            RolloutState::RollingBack | RolloutState::RolledBack
        ) && install == Some(ExecutionStatus::Succeeded)
            && rollback.is_none()
            && device.is_some_and(|device| device.before.is_none());
        let reason = device.and_then(|device| device.reason.clone());
        ShownExecution {
            thing: thing.to_owned(),
            wave: wave.to_owned(),
            status: install.map_or_else(|| "WAITING".to_owned(), |status| status.to_string()),
            version: device.and_then(|device| device.current.clone()),
            reason: reason
                .or_else(|| stuck.then(|| "no earlier version is known to go back to".to_owned())),
            rollback,
        }
    }
}
