//! Jobs that go out little by little: by rate, schedule and maintenance windows, and those that follow
//! their groups. Things that were not told yet wait in rows of their own; the room's thread takes them in
//! turn, so that a crash at any point is made good by looking again.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::SystemTime;

use super::executions::Changes;
use super::jobs::invalid;
use super::records::{Execution, Job, JobRef, JobStatus, key};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::job::ExecutionStatus;
use crate::job::config::EndBehavior;
use crate::{Error, JobId};

/// Things told in one go.
const TELL_AT_ONCE: usize = 500;
/// How often a continuous job looks at who is in its groups, in seconds.
const LOOK_SECONDS: u64 = 5;
/// Over so many seconds a rate is counted.
const MINUTE: u64 = 60;

impl Changes<'_> {
    /// Things that will be told when there is room.
    pub(super) fn wait(&mut self, job: &mut Job, things: &BTreeSet<String>) -> Result<(), Error> {
        let mark = JobRef {
            job: job.id.clone(),
        };
        for thing in things {
            self.rows
                .put(format!("{}{thing}", key::waiting(&job.id)), &mark)?;
        }
        job.waiting += things.len() as u64;
        self.rows.put(key::paced(&job.id), &mark)
    }

    /// Some of the things that wait.
    fn waiting(&self, job: &JobId, limit: usize) -> Result<Vec<String>, Error> {
        let prefix = key::waiting(job);
        let keys = self.rows.keys(&prefix, limit)?;
        let thing = |key: &String| key.strip_prefix(&prefix).map(str::to_owned);
        Ok(keys.iter().filter_map(thing).collect())
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
enum Look {
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
            let next = match self.look(&id, at)? {
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

    fn look(&self, id: &JobId, at: SystemTime) -> Result<Look, Error> {
        let Ok(job) = self.job(id) else {
            return Ok(Look::Over);
        };
        let is_live = matches!(job.status, JobStatus::InProgress | JobStatus::Scheduled);
        let mut joined = Vec::new();
        let mut left = Vec::new();
        if job.continuous && is_live {
            let targets = self.resolve_those_there(&job.targets)?;
            let mut known = BTreeSet::new();
            self.each_execution(id, |execution| {
                if !targets.contains(&execution.thing) && !execution.status.is_terminal() {
                    left.push(execution.clone());
                }
                // One that had left and came back gets it again.
                if execution.status != ExecutionStatus::Removed {
                    known.insert(execution.thing);
                }
            })?;
            joined.extend(targets.difference(&known).cloned());
        }
        let look = self.change(at, |changes| look(changes, id, &joined, &left))?;
        self.finish_cancelling(at)?;
        Ok(look)
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

fn look(
    changes: &mut Changes<'_>,
    id: &JobId,
    joined: &[String],
    left: &[Execution],
) -> Result<Look, Error> {
    let now = changes.now.seconds;
    for execution in left {
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
        let more = job.waiting > 0;
        if !more {
            changes.rows.delete(key::paced(id));
        }
        changes.put_job(&job)?;
        return Ok(if more { Look::More } else { Look::Over });
    }
    if !joined.is_empty() {
        let known: BTreeSet<String> = changes.waiting(id, usize::MAX / 2)?.into_iter().collect();
        let joined: BTreeSet<String> = joined
            .iter()
            .filter(|thing| !known.contains(*thing))
            .cloned()
            .collect();
        if !joined.is_empty() {
            changes.wait(&mut job, &joined)?;
        }
    }
    job.recent.retain(|(at, _)| at + MINUTE > now && *at <= now);
    let (room, mut wake) = job
        .config
        .room(now, job.notified, job.ends.succeeded, &job.recent)?;
    let mut told = 0;
    // Its document goes out with the notifications.
    changes.put_job(&job)?;
    for thing in changes.waiting(id, room.min(TELL_AT_ONCE))? {
        changes.stop_waiting(&mut job, &thing);
        changes.tell(&mut job, &thing)?;
        told += 1;
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
        wake = job.continuous.then(|| now + LOOK_SECONDS);
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
