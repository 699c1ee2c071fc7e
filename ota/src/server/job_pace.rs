//! Jobs that go out little by little: by rate, schedule and maintenance windows, and those that follow
//! their groups. Things that were not told yet wait in rows of their own; the room's thread takes them in
//! turn, so that a crash at any point is made good by looking again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tracing::error;

use super::executions::Changes;
use super::job_windows::Ready;
use super::jobs::invalid;
use super::records::{Execution, Job, JobRef, JobStatus, key};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::job::ExecutionStatus;
use crate::job::config::EndBehavior;
use crate::{Error, JobId};

/// Things told in one go.
const TELL_AT_ONCE: usize = 500;
/// Things that begin to wait in one go.
const WAIT_AT_ONCE: usize = if cfg!(test) { 50 } else { 5_000 };
/// How often a continuous job looks at who is in its groups, in seconds; and after how many times as long as that takes.
const LOOK_SECONDS: u64 = 5;
const LOOK_REST: u32 = 20;
/// How soon a job that could not go on is looked at again, in seconds.
const RETRY_SECONDS: u64 = 30;
/// Over so many seconds a rate is counted.
const MINUTE: u64 = 60;

impl Changes<'_> {
    /// Things that will be told when there is room.
    pub(super) fn wait<'a>(
        &mut self,
        job: &mut Job,
        things: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), Error> {
        let mark = JobRef {
            job: job.id.clone(),
        };
        for thing in things {
            let row = format!("{}{thing}", key::waiting(&job.id));
            if self.rows.get::<JobRef>(&row)?.is_none() {
                self.rows.put(row, &mark)?;
                job.waiting += 1;
            }
        }
        self.paces(&job.id)
    }

    /// The room's thread looks at this job, after a restart too.
    pub(super) fn paces(&mut self, job: &JobId) -> Result<(), Error> {
        self.rows.put(key::paced(job), &JobRef { job: job.clone() })
    }

    /// Some of the things that wait.
    fn waiting(&self, job: &JobId, limit: usize) -> Result<Vec<String>, Error> {
        let prefix = key::waiting(job);
        let keys = self.rows.keys(&prefix, limit)?;
        let thing = |key: &String| key.strip_prefix(&prefix).map(str::to_owned);
        Ok(keys.iter().filter_map(thing).collect())
    }

    /// Those of some things that wait still.
    fn waiting_of<'a>(
        &mut self,
        job: &JobId,
        things: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for thing in things {
            let row = format!("{}{thing}", key::waiting(job));
            if self.rows.get::<JobRef>(&row)?.is_some() {
                found.push(thing.to_owned());
            }
        }
        Ok(found)
    }

    /// A thing that is gone waits for nothing.
    pub(super) fn leave(&mut self, id: &JobId, thing: &str) -> Result<(), Error> {
        let waits: Option<JobRef> = self.rows.get(&format!("{}{thing}", key::waiting(id)))?;
        if let (Some(_), Some(mut job)) = (waits, self.job(id)?) {
            self.stop_waiting(&mut job, thing);
            self.put_job(&job)?;
        }
        Ok(())
    }

    fn stop_waiting(&mut self, job: &mut Job, thing: &str) {
        self.rows
            .delete(format!("{}{thing}", key::waiting(&job.id)));
        job.waiting = job.waiting.saturating_sub(1);
    }
}

/// What one look at a job came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There is more to do at once.
    More,
    /// Nothing before that time (seconds since 1970).
    At(u64),
    /// Nothing any more.
    Over,
}

impl Ota {
    /// Has the room's thread look at a job.
    pub(super) fn look_at_job(&self, id: &JobId) {
        self.inner
            .jobs_due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), 0);
        self.inner.inbox.wake();
    }

    /// Jobs that time or their groups may bring something for.
    pub(super) fn paced(&self) -> Result<Vec<JobId>, Error> {
        let keys = Transaction::new(&self.inner.table).keys(key::PACED, usize::MAX / 2)?;
        let id = |key: &String| key.strip_prefix(key::PACED)?.parse().ok();
        Ok(keys.iter().filter_map(id).collect())
    }

    /// Lets the jobs go on whose time has come; when the next one's comes (seconds since 1970).
    pub(super) fn go_on_with_jobs(&self, at: SystemTime) -> Result<Option<u64>, Error> {
        let due = || {
            self.inner
                .jobs_due
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let now = seconds(at);
        let ready: Vec<JobId> = due()
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in ready {
            // Before the look: whoever wants another one meanwhile gets it.
            due().remove(&id);
            // One that cannot go on holds up no other.
            let look = self.look(&id, at).unwrap_or_else(|error| {
                error!(%error, job = %id, "a job cannot go on; trying again");
                Look::At(now + RETRY_SECONDS)
            });
            let next = match look {
                Look::More => now,
                Look::At(next) => next.max(now + 1),
                Look::Over => continue,
            };
            due()
                .entry(id)
                .and_modify(|known| *known = next.min(*known))
                .or_insert(next);
        }
        let next = due().values().min().copied();
        Ok(next)
    }

    pub(super) fn look(&self, id: &JobId, at: SystemTime) -> Result<Look, Error> {
        // Whatever becomes of the job: what is gathered for one that is gone is nobody's.
        let gathered = self.gathering().remove(id);
        let Ok(job) = self.job(id) else {
            self.kept_ready(id);
            return Ok(Look::Over);
        };
        let of = Identity::of(&job);
        let is_live = matches!(job.status, JobStatus::InProgress | JobStatus::Scheduled);
        let began = Instant::now();
        let mut left = Vec::new();
        let mut joined = gathered
            .filter(|gathered| gathered.of == of)
            .map_or_else(Vec::new, |gathered| gathered.things);
        if joined.is_empty() && (job.continuous || job.gathers) && is_live {
            joined = self.joined(&job, &mut left)?;
        }
        let rest = joined.split_off(joined.len().min(WAIT_AT_ONCE));
        let now = seconds(at);
        let starts = job.config.times()?.0.is_none_or(|start| start <= now);
        let ready = match is_live && starts {
            true => self.ready(&job, now)?,
            false => None,
        };
        let seen = Seen {
            of,
            ready,
            joined,
            left,
            more: is_live && !rest.is_empty(),
            again: LOOK_SECONDS.max((began.elapsed() * LOOK_REST).as_secs()),
        };
        let look = self.change(at, |changes| look(changes, id, &seen))?;
        // Those that came to wait just now were not looked through.
        let ready = (seen.ready).filter(|_| look != Look::Over && seen.joined.is_empty());
        if let Some(ready) = ready {
            self.put_back(id, ready);
        }
        if seen.more {
            let (of, things) = (seen.of, rest);
            self.gathering().insert(id.clone(), Gathered { of, things });
        }
        self.finish_cancelling(at)?;
        Ok(look)
    }

    pub(super) fn gathering(&self) -> MutexGuard<'_, BTreeMap<JobId, Gathered>> {
        self.inner
            .gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The things of a job's targets that it has yet to be made known to; and what is open on those that have left them.
    fn joined(&self, job: &Job, left: &mut Vec<Execution>) -> Result<Vec<String>, Error> {
        let targets = self.resolve_those_there(&job.targets)?;
        let rows = Transaction::new(&self.inner.table);
        let mut known = BTreeSet::new();
        for prefix in [key::waiting(&job.id), key::had(&job.id)] {
            let things = rows.keys(&prefix, usize::MAX / 2)?;
            let thing = |key: &String| key.strip_prefix(&prefix).map(str::to_owned);
            known.extend(things.iter().filter_map(thing));
        }
        self.each_execution(&job.id, |execution| {
            let has_left = job.continuous && !targets.contains(&execution.thing);
            if has_left && !execution.status.is_terminal() {
                left.push(execution.clone());
            }
            // One that had left and came back gets it again.
            if execution.status != ExecutionStatus::Removed {
                known.insert(execution.thing);
            }
        })?;
        Ok(targets.difference(&known).cloned().collect())
    }

    /// Adds targets to a continuous job.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::JobState`] where it is over; [`Error::Invalid`] for a snapshot.
    pub fn associate_targets(
        &self,
        id: &JobId,
        targets: &[String],
        comment: Option<String>,
        at: SystemTime,
    ) -> Result<Job, Error> {
        if targets.is_empty() || targets.len() > super::MAX_TARGETS {
            return invalid(
                "targets",
                format!("1 to {} are possible", super::MAX_TARGETS),
            );
        }
        self.resolve(targets)?;
        let job = self.change(at, |changes| {
            let mut job = changes.job(id)?.ok_or_else(|| super::jobs::missing(id))?;
            if !job.continuous {
                return invalid(
                    "jobId",
                    "its targets were fixed when it was made (SNAPSHOT); only a CONTINUOUS job takes more",
                );
            }
            if !matches!(job.status, JobStatus::InProgress | JobStatus::Scheduled) {
                return Err(Error::JobState {
                    job: id.to_string(),
                    status: job.status.as_str(),
                    verb: "given more targets",
                });
            }
            let new = targets.iter().filter(|target| !job.targets.contains(target));
            let new: Vec<String> = new.cloned().collect();
            job.targets.extend(new);
            if job.targets.len() > super::MAX_TARGETS {
                return invalid("targets", format!("with those it has they are more than {}", super::MAX_TARGETS));
            }
            job.comment = comment.or(job.comment.take());
            job.last_updated_at = changes.now.seconds;
            changes.put_job(&job)?;
            Ok(job)
        })?;
        self.look_at_job(id);
        Ok(job)
    }

    /// What targets mean now; one that is gone means nothing.
    fn resolve_those_there(&self, targets: &[String]) -> Result<BTreeSet<String>, Error> {
        let mut things = BTreeSet::new();
        for target in targets {
            match self.resolve(std::slice::from_ref(target)) {
                Ok(found) => things.extend(found),
                Err(Error::Fleet(fleet::FleetError::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(things)
    }
}

/// What tells a job from another one under the same id, and from itself with other targets.
#[derive(PartialEq, Eq)]
pub(super) struct Identity {
    created_at: u64,
    targets: Vec<String>,
}

impl Identity {
    pub(super) fn of(job: &Job) -> Self {
        Self {
            created_at: job.created_at,
            targets: job.targets.clone(),
        }
    }
}

/// Things that are to wait for a job and do not yet. What is lost of it is found again by looking.
pub(super) struct Gathered {
    /// The job whose targets they are of.
    pub(super) of: Identity,
    pub(super) things: Vec<String>,
}

/// What was seen of a job's targets.
pub(super) struct Seen {
    /// The job that it was seen of.
    pub(super) of: Identity,
    /// Those that wait and whose window is open, where it has windows.
    pub(super) ready: Option<Ready>,
    /// Things that have yet to wait.
    pub(super) joined: Vec<String>,
    /// What is open on things that are targets no more.
    pub(super) left: Vec<Execution>,
    /// Whether there are more of the first.
    pub(super) more: bool,
    /// In how many seconds to look again.
    pub(super) again: u64,
}

pub(super) fn look(changes: &mut Changes<'_>, id: &JobId, seen: &Seen) -> Result<Look, Error> {
    let now = changes.now.seconds;
    let found = changes.job(id)?;
    if found.is_some_and(|job| Identity::of(&job) != seen.of) {
        return Ok(Look::More);
    }
    for execution in &seen.left {
        // As it stands now, which may be later than it was looked at.
        let execution = changes.execution(id, &execution.thing)?;
        if let Some(execution) = execution.filter(|execution| !execution.status.is_terminal()) {
            changes.update(&execution, |execution| {
                execution.status = ExecutionStatus::Removed
            })?;
        }
    }
    let Some(mut job) = changes.job(id)? else {
        changes.rows.delete(key::paced(id));
        return Ok(Look::Over);
    };
    let (start, end) = job.config.times()?;
    if matches!(job.status, JobStatus::InProgress | JobStatus::Scheduled) {
        changes.wait(&mut job, &seen.joined)?;
        job.gathers &= seen.more;
        changes.put_job(&job)?;
        // The others first: when one is told all are in their places.
        if seen.more {
            return Ok(Look::More);
        }
    }
    if job.status == JobStatus::Scheduled {
        match start.filter(|start| *start > now) {
            Some(start) => return Ok(Look::At(start)),
            None => job.status = JobStatus::InProgress,
        }
    }
    if end.is_some_and(|end| end <= now) && job.status == JobStatus::InProgress {
        over(changes, &mut job)?;
    }
    if job.status != JobStatus::InProgress {
        for thing in changes.waiting(id, TELL_AT_ONCE)? {
            changes.stop_waiting(&mut job, &thing);
        }
        job.gathers = false;
        let more = job.waiting > 0;
        if !more {
            changes.rows.delete(key::paced(id));
        }
        changes.put_job(&job)?;
        return Ok(if more { Look::More } else { Look::Over });
    }
    job.recent.retain(|(at, _)| at + MINUTE > now && *at <= now);
    let (room, mut wake) = job
        .config
        .room(now, job.notified, job.ends.succeeded, &job.recent);
    let mut told = 0;
    // Its document goes out with the notifications.
    changes.put_job(&job)?;
    let most = room.min(TELL_AT_ONCE);
    let now_told = match &seen.ready {
        // It had none when it was looked at.
        None if job.config.has_windows() => Vec::new(),
        None => changes.waiting(id, most)?,
        Some(ready) => changes.waiting_of(id, ready.first(most))?,
    };
    for thing in now_told {
        changes.stop_waiting(&mut job, &thing);
        changes.tell(&mut job, &thing)?;
        told += 1;
    }
    if let Some(ready) = &seen.ready {
        ready.told.set(most.min(ready.len()));
        if ready.len() <= most && seen.joined.is_empty() && ready.again > now {
            // The others' windows are closed.
            wake = Some(ready.again);
        }
    }
    if told > 0 {
        job.notified += u64::from(told);
        job.recent.push((now, told));
    }
    if job.is_used_up() {
        job.status = JobStatus::Completed;
        job.completed_at = Some(now);
    }
    changes.put_job(&job)?;
    if job.waiting > 0 && wake.is_none() {
        return Ok(Look::More);
    }
    if job.waiting == 0 {
        wake = job.continuous.then(|| now + seen.again);
        if !job.continuous && (end.is_none() || job.status == JobStatus::Completed) {
            changes.rows.delete(key::paced(id));
            return Ok(Look::Over);
        }
    }
    Ok(wake
        .into_iter()
        .chain(end)
        .min()
        .map_or(Look::Over, Look::At))
}

/// The job's time is up.
fn over(changes: &mut Changes<'_>, job: &mut Job) -> Result<(), Error> {
    let behavior = job.config.end_behavior();
    job.continuous = false;
    if behavior == EndBehavior::StopRollout {
        for thing in changes.waiting(&job.id, usize::MAX / 2)? {
            changes.stop_waiting(job, &thing);
        }
        return Ok(());
    }
    job.status = JobStatus::Canceled;
    job.force_canceled = behavior == EndBehavior::ForceCancel;
    job.reason_code = Some("EndTimeReached".into());
    job.completed_at = Some(changes.now.seconds);
    changes.give_up(job)
}
