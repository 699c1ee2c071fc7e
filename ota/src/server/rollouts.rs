//! Rollouts on the server: what an operator may do with them, and the carrying out of what the planner
//! says. Everything made has a name that follows from the rollout, so a crash at any point is made good
//! by asking the planner again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;
use std::time::SystemTime;

use fleet::ThingName;
use serde::{Deserialize, Serialize};

use super::executions::Changes;
use super::jobs::cancel;
use super::records::{
    Execution, Install, Job, JobStatus, MembersRow, RolloutRow, Runs, WaveRow, key,
};
use super::{Ota, seconds};
use crate::rollout::{
    Action, Command, Devices, Offer, Part, Planner, Rollout, RolloutState, RolloutView, ShownTimes,
};
use crate::{
    Error, ExecutionStatus, FirmwareName, FirmwareVersion, InstallDocument, JobId, RolloutId,
};

/// The attribute of a thing that names its time zone.
pub(super) const ZONE_ATTRIBUTE: &str = "timezone";
/// The attribute of a thing that names its hardware.
pub(super) const HARDWARE_ATTRIBUTE: &str = "hardware";
/// Executions made in one go.
const QUEUE_AT_ONCE: usize = 500;
/// Devices told by one plan before those that ask are answered again; the planner names the rest anew.
const TELL_AT_ONCE: usize = 10_000;

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

pub(super) fn missing(id: &RolloutId) -> Error {
    Error::NotFound {
        kind: "rollout",
        name: id.to_string(),
    }
}

impl Ota {
    /// A rollout as operators see it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn rollout(&self, id: &RolloutId) -> Result<RolloutView, Error> {
        let mut drifted = BTreeMap::new();
        let row = self.rollout_row(id)?;
        let rollout = self.load(id)?;
        let mut planner = self.planner(rollout, &mut drifted)?;
        let now = seconds(SystemTime::now());
        self.bar_if_turned(&mut planner, now)?;
        self.withhold(&mut planner, now)?;
        let mut view = planner.view();
        (view.group, view.created_at, view.log) = (row.group, row.created_at, row.log);
        let mut places = HashMap::new();
        for (place, execution) in view.executions.iter_mut().enumerate() {
            execution.reported = drifted.remove(&execution.thing);
            places.insert(execution.thing.clone(), place);
        }
        let rollout = planner.rollout();
        for wave in 0..rollout.waves.len() {
            self.each_install(id, &rollout.wave_job(wave)?, |row| {
                let place = places.get(&row.thing);
                if let Some(shown) = place.and_then(|place| view.executions.get_mut(*place)) {
                    shown.times = times(&row);
                    shown.details = row
                        .details
                        .filter(|_| row.status != ExecutionStatus::Succeeded);
                }
            })?;
        }
        for version in planner.versions() {
            let job = rollout.back_job(rollout.undone.max(1), &version)?;
            self.each_install(id, &job, |row| {
                let place = places.get(&row.thing);
                if let Some(shown) = place.and_then(|place| view.executions.get_mut(*place)) {
                    shown.rollback_times = Some(times(&row));
                }
            })?;
        }
        Ok(view)
    }

    /// The same without its devices: what stays short however many there are.
    ///
    /// # Errors
    /// As [`Self::rollout`].
    pub fn rollout_outline(&self, id: &RolloutId) -> Result<RolloutView, Error> {
        let row = self.rollout_row(id)?;
        let mut planner = self.planner(self.load(id)?, &mut BTreeMap::new())?;
        let now = seconds(SystemTime::now());
        self.bar_if_turned(&mut planner, now)?;
        self.withhold(&mut planner, now)?;
        let mut view = planner.outline();
        (view.group, view.created_at, view.log) = (row.group, row.created_at, row.log);
        Ok(view)
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

    /// Tells a rollout to pause, resume, go on, abort or roll back; `by` is who says so.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::RolloutState`] where that does not fit its state; [`Error::Invalid`] where it
    /// should go back and the signed manifests let nobody.
    pub fn command_rollout(
        &self,
        id: &RolloutId,
        command: Command,
        by: &str,
        at: SystemTime,
    ) -> Result<(), Error> {
        match command {
            Command::Rollback | Command::Forward => self.check_way_back(id, &command, at)?,
            Command::Pause => self.check_still_tells(id, "paused")?,
            Command::Abort => self.check_still_tells(id, "aborted")?,
            Command::Resume | Command::Approve { .. } => {}
        }
        self.change(at, |changes| {
            let mut row: RolloutRow = changes
                .rows
                .get(&key::rollout(id))?
                .ok_or_else(|| missing(id))?;
            let mut rollout = row.clone().into_bare();
            let verb = command.as_str();
            rollout.command(command)?;
            row.follow(&rollout);
            row.note(changes.now.seconds, verb, Some(by));
            changes.rollouts.insert(id.clone());
            changes.rows.put(key::rollout(id), &row)
        })
    }

    /// One that has succeeded can be stopped as long as there is anybody to be told.
    fn check_still_tells(&self, id: &RolloutId, verb: &'static str) -> Result<(), Error> {
        let rollout = self.rollout_row(id)?.into_bare();
        if !rollout.may_still_tell() {
            // Then it follows from its state alone.
            return Ok(());
        }
        let planner = self.planner(self.load(id)?, &mut BTreeMap::new())?;
        if !planner.still_tells() {
            return Err(rollout.refuses(verb));
        }
        Ok(())
    }

    pub(super) fn rollout_row(&self, id: &RolloutId) -> Result<RolloutRow, Error> {
        let row = self.inner.table.get_as::<RolloutRow>(&key::rollout(id))?;
        row.map(|row| row.value).ok_or_else(|| missing(id))
    }

    pub(super) fn load(&self, id: &RolloutId) -> Result<Rollout, Error> {
        let row = self.rollout_row(id)?;
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

    /// A rollout and its devices as the rows have them, and those of them that say they run another version
    /// than they were brought to.
    pub(super) fn planner(
        &self,
        rollout: Rollout,
        drifted: &mut BTreeMap<String, FirmwareVersion>,
    ) -> Result<Planner, Error> {
        let zones = rollout.has_windows();
        let spec = rollout.spec.clone();
        let undone = rollout.undone;
        let mut jobs = Vec::new();
        for index in 0..rollout.waves.len() {
            jobs.push(rollout.wave_job(index)?);
        }
        let mut planner = Planner::new(rollout, Devices::new());
        let id = planner.rollout().id.clone();
        planner.change_each(|thing, device| {
            let runs = self
                .inner
                .table
                .get_as::<Runs>(&key::runs(thing, &spec.name))?;
            if let Some(runs) = runs.map(|runs| runs.value) {
                let drift = runs.drift().cloned();
                drifted.extend(drift.map(|drift| (thing.to_owned(), drift)));
                device.moved_on = runs.rollout.as_ref().is_some_and(|by| *by != id);
                device.current = runs.clone().brought_or_said();
                device.theirs = runs.owner().is_some_and(|owner| owner != id);
            }
            if zones {
                device.zone = self.attribute_of(thing, ZONE_ATTRIBUTE)?;
            }
            Ok::<(), Error>(())
        })?;
        for job in jobs {
            self.each_install(&id, &job, |execution| {
                planner.change(&execution.thing.clone(), |device| {
                    device.reason = said(&execution);
                    device.install = Some(part(execution, &spec.version));
                });
            })?;
        }
        for turn in 1..=undone {
            // Each turn brings devices to what they had before, or to what was rolled out.
            let parts = planner.devices().flat_map(|(_, device)| device.parts());
            let before = parts.filter_map(|part| part.before.clone());
            let versions: BTreeSet<FirmwareVersion> =
                before.chain([spec.version.clone()]).collect();
            if turn > 1 {
                planner.change_each(|_, device| {
                    device.turn();
                    Ok::<(), Error>(())
                })?;
            }
            for version in versions {
                let job = planner.rollout().back_job(turn, &version)?;
                self.each_install(&id, &job, |execution| {
                    planner.change(&execution.thing.clone(), |device| {
                        device.rollback_reason = said(&execution);
                        device.rollback = Some(part(execution, &version));
                    });
                })?;
            }
        }
        Ok(planner)
    }

    /// The executions of a rollout's job; none where it is not that rollout's.
    pub(super) fn each_install(
        &self,
        rollout: &RolloutId,
        job: &JobId,
        look: impl FnMut(Execution),
    ) -> Result<(), Error> {
        let row = self.inner.table.get_as::<Job>(&key::job(job))?;
        let install = row.and_then(|row| row.value.install);
        if install.is_some_and(|install| install.rollout == *rollout) {
            self.each_execution(job, look)?;
        }
        Ok(())
    }

    /// What the registry says of a thing under `attribute`.
    pub(super) fn attribute_of(
        &self,
        thing: &str,
        attribute: &str,
    ) -> Result<Option<String>, Error> {
        let Ok(name) = thing.parse::<ThingName>() else {
            return Ok(None);
        };
        match self.inner.fleet.thing(&name) {
            Ok(mut thing) => Ok(thing.attributes.remove(attribute)),
            Err(fleet::FleetError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Does what the planner says until it says nothing more; when to look again.
    pub(super) fn advance(&self, id: &RolloutId, at: SystemTime) -> Result<Option<u64>, Error> {
        let mut pictures = self
            .inner
            .pictures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let picture = self.picture(&mut pictures, id, seconds(at))?;
            let look = self.look_at_health(picture, at)?;
            let plan = picture.planner.plan(seconds(at), TELL_AT_ONCE)?;
            if plan.actions.is_empty() {
                // A time zone that is mended meanwhile may open a window at once.
                let zones = picture.zones_due().filter(|_| picture.planner.waits());
                let over = picture.planner.rollout().state.is_final();
                let tells = !over || picture.planner.still_tells();
                let good = picture.good_due().filter(|_| tells);
                if plan.wake_at.is_none() && !tells {
                    pictures.forget(id);
                }
                let wakes = look.into_iter().chain(plan.wake_at);
                return Ok(wakes.chain(zones).chain(good).min());
            }
            let mut told = 0;
            for action in plan.actions {
                told += tells(&action);
                // `false`: a person spoke meanwhile, so plan anew.
                if !self.carry_out(&mut picture.planner, &action, at)? {
                    break;
                }
            }
            if told >= TELL_AT_ONCE {
                return Ok(Some(seconds(at)));
            }
        }
    }

    /// Does one action and records it; `false` where the rollout is no longer what was planned for.
    fn carry_out(
        &self,
        planner: &mut Planner,
        action: &Action,
        at: SystemTime,
    ) -> Result<bool, Error> {
        let rollout = planner.rollout();
        let id = rollout.id.clone();
        match action {
            Action::Install { wave, job, offers } => {
                let minutes = rollout
                    .waves
                    .get(*wave)
                    .map_or(rollout.spec.rules.timeout_minutes, |wave| {
                        wave.rules.timeout_minutes
                    });
                let order = Order {
                    job,
                    version: &rollout.spec.version,
                    back: false,
                    minutes,
                };
                return self.queue_all(rollout, &order, offers, at);
            }
            Action::RollBack {
                job,
                version,
                offers,
            } => {
                let order = Order {
                    job,
                    version,
                    back: true,
                    minutes: rollout.spec.rules.timeout_minutes,
                };
                return self.queue_all(rollout, &order, offers, at);
            }
            Action::Hold { job, things } => {
                for things in things.chunks(QUEUE_AT_ONCE) {
                    let held = self.change(at, |changes| {
                        let row: Option<RolloutRow> = changes.rows.get(&key::rollout(&id))?;
                        if row.is_none_or(|row| !same(rollout, &row)) {
                            return Ok(false);
                        }
                        for thing in things {
                            changes.hold(job, thing)?;
                        }
                        Ok(true)
                    })?;
                    if !held {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
            Action::CancelQueued { job, things } => {
                for things in things.chunks(QUEUE_AT_ONCE) {
                    self.change(at, |changes| cancel(changes, job, things, false))?;
                }
                return Ok(true);
            }
            Action::Begin
            | Action::StartWave { .. }
            | Action::FinishWave { .. }
            | Action::AwaitApproval
            | Action::Abort { .. }
            | Action::GiveUp { .. }
            | Action::StartBack { .. }
            | Action::FinishBack { .. }
            | Action::StopBack { .. }
            | Action::Finish { .. } => {}
        }
        let recorded = self.change(at, |changes| {
            let mut row: RolloutRow = changes
                .rows
                .get(&key::rollout(&id))?
                .ok_or_else(|| missing(&id))?;
            if !same(rollout, &row) {
                return Ok(None);
            }
            let mut next = row.clone().into_bare();
            next.apply(action);
            let was = row.state;
            row.follow(&next);
            if row.state != was {
                row.note(changes.now.seconds, row.state.as_str(), None);
            }
            changes.rows.put(key::rollout(&id), &row)?;
            Ok(Some(next))
        })?;
        let was = recorded.is_some();
        recorded.into_iter().for_each(|next| planner.follow(next));
        Ok(was)
    }

    /// Makes the job, where it is not there yet, and queues it as `offers` say; `false` where the rollout
    /// is no longer in the state it was planned for.
    fn queue_all(
        &self,
        rollout: &Rollout,
        order: &Order<'_>,
        offers: &[Offer],
        at: SystemTime,
    ) -> Result<bool, Error> {
        for offers in offers.chunks(QUEUE_AT_ONCE) {
            let mut exist = Vec::new();
            for offer in offers {
                exist.push(self.exists(&offer.thing)?);
            }
            let queued = self.change(at, |changes| {
                let row: Option<RolloutRow> = changes.rows.get(&key::rollout(&rollout.id))?;
                if row.is_none_or(|row| !same(rollout, &row)) {
                    return Ok(false);
                }
                let mut job = match changes.job(order.job)? {
                    Some(job) if order.made(rollout, &job) => job,
                    Some(job) => return Err(not_ours(rollout, &job)),
                    None => install_job(changes, rollout, order)?,
                };
                // A job may have been over before the last device came to need it.
                job.status = JobStatus::InProgress;
                job.completed_at = None;
                for (offer, exists) in offers.iter().zip(&exist) {
                    changes.offer(&mut job, offer, *exists)?;
                }
                if job.open == 0 {
                    job.status = JobStatus::Completed;
                    job.completed_at = Some(changes.now.seconds);
                }
                changes.put_job(&job)?;
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
            // An aborted one may not have cancelled everything yet, one that went back may have heard of a device that
            // has yet to go, and one that succeeded may have devices it did not wait for.
            let waits = |row: &RolloutRow| {
                let rules = |wave: &WaveRow| wave.rules.clone();
                let mut rules = row.waves.iter().filter_map(rules);
                row.undone == 0 && rules.any(|rules| rules.success_percent.is_some())
            };
            let open = |row: &RolloutRow| row.state != RolloutState::Succeeded || waits(row);
            unfinished.extend(
                rows.into_iter()
                    .map(|(_, row)| row.value)
                    .filter(open)
                    .map(|row| row.id),
            );
        }
    }
}

/// How many devices an action tells something.
fn tells(action: &Action) -> usize {
    match action {
        Action::Install { offers, .. } | Action::RollBack { offers, .. } => offers.len(),
        Action::Hold { things, .. } | Action::CancelQueued { things, .. } => things.len(),
        _ => 0,
    }
}

/// Whether the rollout is still what was planned for.
pub(super) fn same(rollout: &Rollout, row: &RolloutRow) -> bool {
    row.state == rollout.state && (row.undone == rollout.undone || row.undone == 0)
}

fn times(execution: &Execution) -> ShownTimes {
    let over = execution.status.is_terminal();
    ShownTimes {
        told_at: Some(execution.queued_at),
        began_at: execution.started_at,
        ended_at: over.then_some(execution.last_updated_at),
    }
}

/// The words of a device about how it stands.
fn said(execution: &Execution) -> Option<String> {
    execution.details.as_ref()?.get("reason").cloned()
}

pub(super) fn part(execution: Execution, to: &FirmwareVersion) -> Part {
    Part {
        status: execution.status,
        to: to.clone(),
        before: execution.before,
        offered_at: execution.queued_at,
        until: execution.until,
        attempt: u32::try_from(execution.number).unwrap_or(u32::MAX),
    }
}

/// What a rollout's job tells its devices to do.
struct Order<'a> {
    job: &'a JobId,
    version: &'a FirmwareVersion,
    back: bool,
    minutes: u32,
}

impl Order<'_> {
    /// Whether a job of this order's id was made for it.
    fn made(&self, rollout: &Rollout, job: &Job) -> bool {
        job.install.as_ref().is_some_and(|install| {
            install.rollout == rollout.id
                && install.back == self.back
                && install.name == rollout.spec.name
                && install.version == *self.version
        })
    }
}

/// A job was made under an id of a rollout's by an earlier release, which did not keep them.
fn not_ours(rollout: &Rollout, job: &Job) -> Error {
    Error::Foreign {
        job: job.id.to_string(),
        rollout: rollout.id.to_string(),
    }
}

fn install_job(
    changes: &mut Changes<'_>,
    rollout: &Rollout,
    order: &Order<'_>,
) -> Result<Job, Error> {
    let name = rollout.spec.name.clone();
    let version = order.version.clone();
    let document = InstallDocument::new(
        name.clone(),
        version.clone(),
        rollout.id.clone(),
        order.back,
    );
    let document = serde_json::to_string(&document).map_err(|error| Error::Malformed {
        what: "install job",
        why: error.to_string(),
    })?;
    let job = Job {
        id: order.job.clone(),
        targets: Vec::new(),
        document,
        document_source: None,
        description: Some(format!("rollout {}: {name} {version}", rollout.id)),
        status: JobStatus::InProgress,
        timeout_minutes: Some(order.minutes),
        created_at: changes.now.seconds,
        last_updated_at: changes.now.seconds,
        completed_at: None,
        reason_code: None,
        comment: None,
        force_canceled: false,
        continuous: false,
        namespace: None,
        packages: Vec::new(),
        config: Default::default(),
        parameters: Default::default(),
        template: None,
        ends: Default::default(),
        gathers: false,
        waiting: 0,
        notified: 0,
        recent: Vec::new(),
        open: 0,
        install: Some(Install {
            rollout: rollout.id.clone(),
            back: order.back,
            name,
            version,
        }),
    };
    changes.put_job(&job)?;
    Ok(job)
}
