//! What `rollout show --json` says (names and states are part of the program's contract).

use serde::{Deserialize, Serialize};

use super::{
    Counts, Device, Planner, Pulse, Rollout, RolloutState, Rules, ShownFailure, Wave, WaveState,
};
use crate::job::StatusDetails;
use crate::{ExecutionStatus, FirmwareName, FirmwareVersion, RolloutId};

/// Something that was done to a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When (seconds since 1970).
    pub at: u64,
    /// What: the verb of a person, or the state it came to by itself.
    pub what: String,
    /// Who said so; nobody where it came by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// When a device came to what (seconds since 1970).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownTimes {
    /// It was told, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<u64>,
    /// It began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<u64>,
    /// It came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
}

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
    /// Why nobody is told of it now, where every device would refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
    /// The group it is for.
    #[serde(default)]
    pub group: String,
    /// When it was made (seconds since 1970).
    #[serde(default)]
    pub created_at: u64,
    /// Not before this time, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<u64>,
    /// What holds over all waves, and for each that says nothing else.
    pub rules: Rules,
    /// What was done to it, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<Deed>,
    /// Its waves.
    pub waves: Vec<ShownWave>,
    /// Its devices, wave by wave; none where only the outline was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executions: Vec<ShownExecution>,
    /// Why devices failed, the most frequent reasons first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<ShownFailure>,
    /// How many devices failed for other reasons than those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed_otherwise: u64,
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
    /// Those that cannot go back: the signed manifests do not let them, or no earlier version of theirs is known.
    #[serde(default)]
    pub barred: usize,
    /// Its waves.
    #[serde(default)]
    pub waves: Vec<ShownBackWave>,
}

/// A wave on the way back as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownBackWave {
    /// Its specification.
    pub name: String,
    /// Where it stands.
    pub state: WaveState,
    /// Devices of it that go back.
    pub total: usize,
    /// Those that have gone back.
    pub succeeded: usize,
    /// Those that failed to.
    pub failed: usize,
    /// Those at it.
    pub in_progress: usize,
    /// Those that were told and have not begun.
    pub queued: usize,
    /// When its first device was told, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<u64>,
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
    /// Why its way back stands so: the device's own words, or why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_reason: Option<String>,
    /// The version the device says it runs, where that is not the one it is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<FirmwareVersion>,
    /// Which try it is, where it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When it was told, began and ended.
    #[serde(flatten)]
    pub times: ShownTimes,
    /// The same of its way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_times: Option<ShownTimes>,
    /// All that the device said (`statusDetails`), where it has not come to a good end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Planner {
    /// The rollout as operators see it.
    #[must_use]
    pub fn view(&self) -> RolloutView {
        let rollout = &self.rollout;
        let of_waves = rollout
            .waves
            .iter()
            .flat_map(|wave| std::iter::repeat_n(wave, wave.things.len()));
        let executions = of_waves
            .zip(self.devices())
            .map(|(wave, (thing, device))| rollout.execution(thing, wave, device));
        RolloutView {
            executions: executions.collect(),
            ..self.outline()
        }
    }

    /// The same without its devices: as long as it has waves.
    #[must_use]
    pub fn outline(&self) -> RolloutView {
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
        let failures = self.failures();
        RolloutView {
            id: rollout.id.clone(),
            name: rollout.spec.name.clone(),
            version: rollout.spec.version.clone(),
            state: rollout.state,
            reason: rollout.reason.clone(),
            withheld: rollout.withheld.clone(),
            group: String::new(),
            created_at: 0,
            start_at: rollout.spec.start_at,
            rules: rollout.spec.rules.clone(),
            log: Vec::new(),
            waves: waves.collect(),
            executions: Vec::new(),
            failures: failures.shown,
            failed_otherwise: failures.otherwise,
            rollback: (rollout.undone > 0).then(|| self.rollback()),
            health: rollout.health.clone(),
        }
    }

    fn rollback<'d>(&'d self) -> ShownRollback {
        let all = || self.devices.iter();
        let waiting = all()
            .filter(|device| device.rollback.is_none() && self.rollout.way_back(device).is_some())
            .count();
        let should = all().filter(|device| device.rollback.is_none());
        let should = should.filter(|device| self.rollout.is_left(device));
        let barred = should.count() - waiting;
        let part = |device: &'d Device| Some((device.rollback.as_ref()?, device.current.as_ref()));
        let parts = || all().filter_map(part);
        let total = parts().count();
        let waves = self.rollout.waves.iter().enumerate();
        let waves = waves.map(|(index, wave)| {
            let counts = self.back_counts(index);
            ShownBackWave {
                name: wave.name.clone(),
                state: wave.back.state,
                total: counts.total,
                succeeded: counts.succeeded,
                failed: counts.failed,
                in_progress: counts.in_progress,
                queued: counts.queued,
                begun_at: wave.back.begun_at,
            }
        });
        let counts = Counts::count(total, parts(), &self.rollout.spec.rules);
        ShownRollback {
            turn: self.rollout.undone,
            total: total + waiting + barred,
            succeeded: counts.succeeded,
            failed: counts.failed,
            in_progress: counts.in_progress,
            queued: counts.queued,
            waiting,
            barred,
            waves: waves.collect(),
        }
    }
}

impl Rollout {
    fn execution(&self, thing: &str, wave: &Wave, device: &Device) -> ShownExecution {
        let install = device.install.as_ref();
        let rollback = device.rollback.as_ref();
        let open = self.undone > 0 && rollback.is_none();
        let barred = self.bars(device).filter(|_| open);
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
            reason: reason.or_else(|| {
                let why = |name| {
                    format!("it has no window: its attribute timezone `{name}` is no time zone")
                };
                lost.map(why)
            }),
            rollback: rollback.map(|part| part.status),
            rollback_reason: (device.rollback_reason.clone()).or_else(|| barred.map(str::to_owned)),
            reported: None,
            times: ShownTimes::default(),
            rollback_times: None,
            details: None,
            attempt: install.map(|part| part.attempt).filter(|try_| *try_ > 1),
        }
    }
}
