//! Rollouts on the server: what an operator may do with them, and the carrying out of what the planner
//! says. Everything made has a name that follows from the rollout, so a crash at any point is made good
//! by asking the planner again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use fleet::ThingName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::executions::Changes;
use super::jobs::cancel;
use super::records::{
    Install, Job, JobStatus, MembersRow, RolloutRow, Runs, THINGS_PER_ROW, WaveRow, key,
};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::rollout::{
    Action, Command, DEFAULT_TIMEOUT_MINUTES, Devices, Rollout, RolloutSpec, RolloutState,
    RolloutView, WaveSpec, WaveState, assign,
};
use crate::{Error, FirmwareName, FirmwareVersion, InstallDocument, JobId, RolloutId};

/// Executions made in one go.
const QUEUE_AT_ONCE: usize = 500;

/// The body of a request to start a rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartRollout {
    /// The firmware.
    pub name: FirmwareName,
    /// Its version.
    pub version: FirmwareVersion,
    /// The group it is for.
    pub group: String,
    /// `10%`, `5`, `group:NAME`; one wave of everything where empty.
    #[serde(default)]
    pub waves: Vec<WaveSpec>,
    /// Abort at this percentage of failures in the current wave.
    pub abort_failed: Option<u8>,
    /// Not before so many have finished; 1 unless said otherwise.
    pub abort_min: Option<u32>,
    /// How long a device may be at it; [`DEFAULT_TIMEOUT_MINUTES`] unless said otherwise.
    pub timeout_minutes: Option<u32>,
    /// Not before this time, seconds since 1970.
    pub start_at: Option<u64>,
    /// Everything else: refused by name.
    #[serde(flatten)]
    pub unsupported: BTreeMap<String, Value>,
}

/// A line of the list of rollouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSummary {
    /// Its id.
    pub id: RolloutId,
    /// The firmware.
    pub name: FirmwareName,
    /// Its version.
    pub version: FirmwareVersion,
    /// The group it is for.
    pub group: String,
    /// Where it stands.
    pub state: RolloutState,
    /// Why it was aborted or rolled back.
    pub reason: Option<String>,
    /// When it was made, seconds since 1970.
    pub created_at: u64,
}

fn missing(id: &RolloutId) -> Error {
    Error::NotFound {
        kind: "rollout",
        name: id.to_string(),
    }
}

impl Ota {
    /// Starts a rollout.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Rollout`] in words, [`Error::NotFound`] for the firmware, the
    /// registry's for the group, and those of [`crate::Manifest::verify`] where devices would refuse it.
    pub fn start_rollout(
        &self,
        request: &StartRollout,
        at: SystemTime,
    ) -> Result<RolloutId, Error> {
        if let Some(field) = request.unsupported.keys().next() {
            return Err(Error::Invalid {
                field: field.clone(),
                why: "this release does not support it".into(),
            });
        }
        self.still_good(&request.name, &request.version, seconds(at))?;
        let group = self.members(&request.group)?;
        let mut named = BTreeMap::new();
        for spec in &request.waves {
            if let WaveSpec::Group(name) = spec {
                named.insert(
                    name.clone(),
                    self.members(name)?.into_iter().collect::<BTreeSet<_>>(),
                );
            }
        }
        let spec = RolloutSpec {
            name: request.name.clone(),
            version: request.version.clone(),
            abort_failed_percent: request.abort_failed,
            abort_min: request.abort_min.unwrap_or(1),
            timeout_minutes: request.timeout_minutes.unwrap_or(DEFAULT_TIMEOUT_MINUTES),
            start_at: request.start_at,
        };
        let rollout = Rollout::new(
            new_id(seconds(at))?,
            spec,
            assign(group, &request.waves, &named)?,
        )?;
        let row = RolloutRow {
            id: rollout.id.clone(),
            spec: rollout.spec.clone(),
            group: request.group.clone(),
            state: rollout.state,
            reason: None,
            waves: rollout
                .waves
                .iter()
                .map(|w| WaveRow {
                    name: w.name.clone(),
                    state: w.state,
                })
                .collect(),
            created_at: seconds(at),
        };
        // The members first: a rollout that is there is there whole.
        for (index, wave) in rollout.waves.iter().enumerate() {
            for (part, things) in wave.things.chunks(THINGS_PER_ROW).enumerate() {
                let mut rows = Transaction::new(&self.inner.table);
                let key = format!("{}{part:06}", key::members(&rollout.id, index));
                rows.put(
                    key,
                    &MembersRow {
                        things: things.to_vec(),
                    },
                )?;
                rows.commit()?;
            }
        }
        self.change(at, |changes| {
            changes.rollouts.insert(rollout.id.clone());
            changes.rows.put(key::rollout(&rollout.id), &row)
        })?;
        Ok(rollout.id)
    }

    /// A rollout as operators see it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn rollout(&self, id: &RolloutId) -> Result<RolloutView, Error> {
        let rollout = self.load(id)?;
        Ok(rollout.view(&self.devices(&rollout)?))
    }

    /// Rollouts in the order of their ids, at most `limit` after the one named `after`.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn rollouts(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RolloutSummary>, Error> {
        let after = after.map(|after| format!("{}{after}", key::ROLLOUTS));
        let rows =
            self.inner
                .table
                .scan_as::<RolloutRow>(key::ROLLOUTS, after.as_deref(), limit)?;
        let summary = |row: RolloutRow| RolloutSummary {
            id: row.id,
            name: row.spec.name,
            version: row.spec.version,
            group: row.group,
            state: row.state,
            reason: row.reason,
            created_at: row.created_at,
        };
        Ok(rows
            .into_iter()
            .map(|(_, row)| summary(row.value))
            .collect())
    }

    /// Tells a rollout to pause, resume, abort or roll back.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::RolloutState`] where that does not fit its state.
    pub fn command_rollout(
        &self,
        id: &RolloutId,
        command: Command,
        at: SystemTime,
    ) -> Result<(), Error> {
        let mut rollout = self.load(id)?;
        self.change(at, |changes| {
            let mut row: RolloutRow = changes
                .rows
                .get(&key::rollout(id))?
                .ok_or_else(|| missing(id))?;
            follow(&mut rollout, &row);
            rollout.command(command)?;
            row.follow(&rollout);
            changes.rollouts.insert(id.clone());
            changes.rows.put(key::rollout(id), &row)
        })
    }

    fn load(&self, id: &RolloutId) -> Result<Rollout, Error> {
        let row = self
            .inner
            .table
            .get_as::<RolloutRow>(&key::rollout(id))?
            .ok_or_else(|| missing(id))?
            .value;
        let mut members = Vec::new();
        for wave in 0..row.waves.len() {
            let rows = self.inner.table.scan_as::<MembersRow>(
                &key::members(id, wave),
                None,
                crate::rollout::MAX_THINGS,
            )?;
            members.push(
                rows.into_iter()
                    .flat_map(|(_, row)| row.value.things)
                    .collect::<Vec<_>>(),
            );
        }
        Ok(row.into_rollout(members))
    }

    /// How the devices of a rollout stand.
    fn devices(&self, rollout: &Rollout) -> Result<Devices, Error> {
        let mut devices = Devices::new();
        for thing in rollout.waves.iter().flat_map(|wave| &wave.things) {
            let runs = self
                .inner
                .table
                .get_as::<Runs>(&key::runs(thing, &rollout.spec.name))?;
            devices.entry(thing.clone()).or_default().current = runs.map(|runs| runs.value.version);
        }
        for index in 0..rollout.waves.len() {
            self.each_execution(&rollout.wave_job(index)?, |execution| {
                let device = devices.entry(execution.thing).or_default();
                device.install = Some(execution.status);
                device.before = execution.before;
                device.reason = execution
                    .details
                    .and_then(|details| details.get("reason").cloned());
            })?;
        }
        let versions: BTreeSet<FirmwareVersion> = devices
            .values()
            .filter_map(|device| device.before.clone())
            .collect();
        for version in versions {
            self.each_execution(&rollout.back_job(&version)?, |execution| {
                let device = devices.entry(execution.thing).or_default();
                device.rollback = Some(execution.status);
                if let Some(reason) = execution
                    .details
                    .and_then(|details| details.get("reason").cloned())
                {
                    device.reason = Some(reason);
                }
            })?;
        }
        Ok(devices)
    }

    /// Does what the planner says until it says nothing more; when to look again.
    pub(super) fn advance(&self, id: &RolloutId, at: SystemTime) -> Result<Option<u64>, Error> {
        let mut rollout = self.load(id)?;
        loop {
            let actions = rollout.next(&self.devices(&rollout)?, seconds(at))?;
            if actions.is_empty() {
                return Ok(rollout.wake_at());
            }
            for action in actions {
                if !self.carry_out(&mut rollout, &action, at)? {
                    // A person spoke meanwhile: plan anew.
                    rollout = self.load(id)?;
                    break;
                }
            }
        }
    }

    /// Does one action and records it; `false` where the rollout is no longer what was planned for.
    fn carry_out(
        &self,
        rollout: &mut Rollout,
        action: &Action,
        at: SystemTime,
    ) -> Result<bool, Error> {
        let (state, id) = (rollout.state, rollout.id.clone());
        match action {
            Action::StartWave { job, things, .. } => {
                if !self.queue_all(rollout, job, &rollout.spec.version, false, things, at)? {
                    return Ok(false);
                }
            }
            Action::RollBack {
                job,
                version,
                things,
            } => {
                if !self.queue_all(rollout, job, version, true, things, at)? {
                    return Ok(false);
                }
            }
            Action::CancelQueued { job, things } => {
                for things in things.chunks(QUEUE_AT_ONCE) {
                    self.change(at, |changes| cancel(changes, job, things, false))?;
                }
            }
            Action::Begin
            | Action::FinishWave { .. }
            | Action::Abort { .. }
            | Action::Finish { .. } => {}
        }
        let mut next = rollout.clone();
        next.apply(action);
        let planned = next.state;
        let recorded = self.change(at, |changes| {
            let mut row: RolloutRow = changes
                .rows
                .get(&key::rollout(&id))?
                .ok_or_else(|| missing(&id))?;
            // Paused after its devices had been queued: the wave runs, and is watched like any other.
            let paused =
                matches!(action, Action::StartWave { .. }) && row.state == RolloutState::Paused;
            if row.state != state && !paused {
                return Ok(false);
            }
            next.state = if paused { row.state } else { planned };
            row.follow(&next);
            changes.rows.put(key::rollout(&id), &row)?;
            Ok(true)
        })?;
        if recorded {
            *rollout = next;
        }
        Ok(recorded)
    }

    /// Makes the job `id`, where it is not there yet, and queues it for `things`; `false` where the
    /// rollout is no longer in the state it was planned for.
    fn queue_all(
        &self,
        rollout: &Rollout,
        id: &JobId,
        version: &FirmwareVersion,
        rollback: bool,
        things: &[String],
        at: SystemTime,
    ) -> Result<bool, Error> {
        for things in things.chunks(QUEUE_AT_ONCE) {
            let mut exist = Vec::new();
            for thing in things {
                exist.push(self.exists(thing)?);
            }
            let queued = self.change(at, |changes| {
                let row: Option<RolloutRow> = changes.rows.get(&key::rollout(&rollout.id))?;
                if row.is_none_or(|row| row.state != rollout.state) {
                    return Ok(false);
                }
                let mut job = match changes.job(id)? {
                    Some(job) => job,
                    None => install_job(changes, rollout, id, version, rollback)?,
                };
                // A rollback job may have been over before the last device came to need it.
                job.status = JobStatus::InProgress;
                job.completed_at = None;
                for (thing, exists) in things.iter().zip(&exist) {
                    changes.queue(&mut job, thing, *exists)?;
                }
                if job.open == 0 {
                    job.status = JobStatus::Completed;
                    job.completed_at = Some(changes.now.seconds);
                }
                changes.rows.put(key::job(id), &job)?;
                Ok(true)
            })?;
            if !queued {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn exists(&self, thing: &str) -> Result<bool, Error> {
        let Ok(name) = thing.parse::<ThingName>() else {
            return Ok(false);
        };
        match self.inner.fleet.thing(&name) {
            Ok(_) => Ok(true),
            Err(fleet::FleetError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The rollouts the planner may still have something to do for.
    pub(super) fn unfinished(&self) -> Result<BTreeSet<RolloutId>, Error> {
        let mut unfinished = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let rows =
                self.inner
                    .table
                    .scan_as::<RolloutRow>(key::ROLLOUTS, after.as_deref(), 200)?;
            let Some((last, _)) = rows.last() else {
                return Ok(unfinished);
            };
            after = Some(last.clone());
            // An aborted one may not have cancelled everything yet.
            let open = |row: &RolloutRow| {
                !matches!(
                    row.state,
                    RolloutState::Succeeded | RolloutState::RolledBack
                )
            };
            unfinished.extend(
                rows.into_iter()
                    .map(|(_, row)| row.value)
                    .filter(open)
                    .map(|row| row.id),
            );
        }
    }
}

/// What was recorded since `rollout` was loaded.
fn follow(rollout: &mut Rollout, row: &RolloutRow) {
    rollout.state = row.state;
    rollout.reason.clone_from(&row.reason);
    let states: Vec<WaveState> = row.waves.iter().map(|wave| wave.state).collect();
    for (wave, state) in rollout.waves.iter_mut().zip(states) {
        wave.state = state;
    }
}

fn install_job(
    changes: &mut Changes<'_>,
    rollout: &Rollout,
    id: &JobId,
    version: &FirmwareVersion,
    rollback: bool,
) -> Result<Job, Error> {
    let name = rollout.spec.name.clone();
    let document =
        InstallDocument::new(name.clone(), version.clone(), rollout.id.clone(), rollback);
    let document = serde_json::to_string(&document).map_err(|error| Error::Malformed {
        what: "install job",
        why: error.to_string(),
    })?;
    let job = Job {
        id: id.clone(),
        targets: Vec::new(),
        document,
        description: Some(format!("rollout {}: {name} {version}", rollout.id)),
        status: JobStatus::InProgress,
        timeout_minutes: Some(rollout.spec.timeout_minutes),
        created_at: changes.now.seconds,
        last_updated_at: changes.now.seconds,
        completed_at: None,
        reason_code: None,
        comment: None,
        force_canceled: false,
        open: 0,
        install: Some(Install {
            rollout: rollout.id.clone(),
            name,
            version: version.clone(),
        }),
    };
    changes.rows.put(key::job(id), &job)?;
    Ok(job)
}

/// In the order of time, so that a list of rollouts is their history; the random half keeps two of one
/// second apart.
fn new_id(now: u64) -> Result<RolloutId, Error> {
    let mut bytes = [0; 4];
    rand::fill(&mut bytes).map_err(|_| Error::Rollout {
        why: "the system gave no randomness for its id".into(),
    })?;
    format!("r-{now:09x}-{}", HEXLOWER.encode(&bytes)).parse()
}
