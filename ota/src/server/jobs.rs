//! Jobs as AWS IoT's API has them: looking at them and cancelling them.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::create_job::MANY;
use super::executions::{Changes, Now};
use super::job_events::JobChange;
use super::pictures::News;
use super::records::{Execution, Job, JobStatus, key};
use super::transaction::Transaction;
use super::vitals::Sign;
use super::{Ota, now};
use crate::job::ExecutionStatus;
use crate::{Error, JobId};

/// Longest description (AWS IoT: 2028 characters).
pub const MAX_DESCRIPTION_CHARS: usize = 2028;
/// Longest comment (AWS IoT: 2028 characters) and reason code (128).
pub const MAX_REASON_CODE_CHARS: usize = 128;
/// Executions cancelled in one go.
const CANCEL_AT_ONCE: usize = 500;

/// Executions of a job by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Not begun.
    pub queued: u64,
    /// Begun.
    pub in_progress: u64,
    /// Done.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
    /// Not done in time.
    pub timed_out: u64,
    /// Refused by the device.
    pub rejected: u64,
    /// No longer targets.
    pub removed: u64,
    /// Cancelled.
    pub canceled: u64,
}

/// A page of a job's executions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionPage {
    /// In their order.
    pub executions: Vec<Execution>,
    /// The `after` of the next page, where there is one.
    pub next: Option<String>,
}

pub(super) fn invalid<T>(field: &str, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid {
        field: field.to_owned(),
        why: why.into(),
    })
}

pub(super) fn missing(id: &JobId) -> Error {
    Error::NotFound {
        kind: "job",
        name: id.to_string(),
    }
}

impl Ota {
    /// A job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job(&self, id: &JobId) -> Result<Job, Error> {
        let row = self.inner.table.get_as::<Job>(&key::job(id))?;
        row.map(|row| row.value).ok_or_else(|| missing(id))
    }

    /// Jobs in the order of their ids, at most `limit` after the one named `after`.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn jobs(&self, after: Option<&str>, limit: usize) -> Result<Vec<Job>, Error> {
        let after = after.map(|after| format!("{}{after}", key::JOBS));
        let rows = self
            .inner
            .table
            .scan_as::<Job>(key::JOBS, after.as_deref(), limit)?;
        Ok(rows.into_iter().map(|(_, row)| row.value).collect())
    }

    /// A job's executions by status.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job_counts(&self, id: &JobId) -> Result<JobCounts, Error> {
        self.job(id)?;
        let mut counts = JobCounts::default();
        self.each_execution(id, |execution| {
            *match execution.status {
                ExecutionStatus::Queued => &mut counts.queued,
                ExecutionStatus::InProgress => &mut counts.in_progress,
                ExecutionStatus::Succeeded => &mut counts.succeeded,
                ExecutionStatus::Failed => &mut counts.failed,
                ExecutionStatus::TimedOut => &mut counts.timed_out,
                ExecutionStatus::Rejected => &mut counts.rejected,
                ExecutionStatus::Removed => &mut counts.removed,
                ExecutionStatus::Canceled => &mut counts.canceled,
            } += 1;
        })?;
        Ok(counts)
    }

    pub(super) fn each_execution(
        &self,
        id: &JobId,
        mut take: impl FnMut(Execution),
    ) -> Result<(), Error> {
        let prefix = key::executions(id);
        let mut after: Option<String> = None;
        loop {
            let rows = self
                .inner
                .table
                .scan_as::<Execution>(&prefix, after.as_deref(), 1000)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            rows.into_iter().for_each(|(_, row)| take(row.value));
        }
    }

    /// One thing's execution of a job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job_execution(&self, id: &JobId, thing: &str) -> Result<Execution, Error> {
        let row = self
            .inner
            .table
            .get_as::<Execution>(&key::execution(id, thing))?;
        row.map(|row| row.value).ok_or_else(|| Error::NotFound {
            kind: "job execution",
            name: format!("{id} on {thing}"),
        })
    }

    /// Cancels a job: what is queued ends as cancelled, what is in progress goes on unless `force`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::JobState`] where it is over already.
    pub fn cancel_job(
        &self,
        id: &JobId,
        force: bool,
        reason_code: Option<String>,
        comment: Option<String>,
        at: SystemTime,
    ) -> Result<Job, Error> {
        let is_code = |code: &String| {
            (1..=MAX_REASON_CODE_CHARS).contains(&code.len())
                && (code.bytes())
                    .all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == b'_')
        };
        if !reason_code.as_ref().is_none_or(is_code) {
            return invalid(
                "reasonCode",
                format!(
                    "1 to {MAX_REASON_CODE_CHARS} capital letters, digits and `_` are possible"
                ),
            );
        }
        if comment
            .as_ref()
            .is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS)
        {
            return invalid(
                "comment",
                format!("at most {MAX_DESCRIPTION_CHARS} characters are possible"),
            );
        }
        self.change(at, |changes| {
            let mut job = changes
                .job(id)?
                .ok_or_else(|| missing(id))?;
            if job.install.is_some() {
                return invalid("jobId", "it belongs to a rollout: use `muster rollout abort` or `muster rollout rollback`");
            }
            let over = match job.status {
                JobStatus::Completed | JobStatus::DeletionInProgress => true,
                JobStatus::Canceled => !force,
                JobStatus::Scheduled | JobStatus::InProgress => false,
            };
            if over {
                return Err(Error::JobState { job: id.to_string(), status: job.status.as_str(), verb: "cancelled" });
            }
            job.status = JobStatus::Canceled;
            job.force_canceled |= force;
            job.reason_code = reason_code;
            job.comment = comment;
            job.last_updated_at = changes.now.seconds;
            job.completed_at.get_or_insert(changes.now.seconds);
            changes.give_up(&job)?;
            changes.put_job(&job)
        })?;
        self.finish_cancelling(at)?;
        self.look_at_job(id);
        self.job(id)
    }

    /// Carries out what cancelled jobs still have to; a crash in the middle is made good at the next start.
    pub(super) fn finish_cancelling(&self, at: SystemTime) -> Result<(), Error> {
        let keys = Transaction::new(&self.inner.table).keys(key::CANCELLING, 1000)?;
        for cancelling in keys {
            let Some(id) = cancelling
                .strip_prefix(key::CANCELLING)
                .and_then(|id| id.parse::<JobId>().ok())
            else {
                continue;
            };
            let force = self.job(&id)?.force_canceled;
            let mut open = Vec::new();
            self.each_execution(&id, |execution| {
                let ends = execution.status == ExecutionStatus::Queued
                    || (force && execution.status == ExecutionStatus::InProgress);
                if ends {
                    open.push(execution.thing);
                }
            })?;
            for things in open.chunks(CANCEL_AT_ONCE) {
                self.change(at, |changes| cancel(changes, &id, things, force))?;
            }
            self.change(at, |changes| {
                changes.rows.delete(cancelling.clone());
                if let Some(job) = changes.job(&id)? {
                    changes.tell_job(JobChange::Canceled, &job);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A thing is gone from the registry: whatever it still had to do is over.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn forget_thing(&self, thing: &str, at: SystemTime) -> Result<(), Error> {
        let paced = self.paced()?;
        self.change(at, |changes| {
            for id in &paced {
                changes.leave(id, thing)?;
            }
            let lists = [
                key::pending_of(thing, None),
                key::pending_in_namespaces(thing),
            ];
            for list in lists {
                for pending in changes.rows.keys(&list, MANY)? {
                    let Some((_, job)) = key::of_pending(&pending) else {
                        continue;
                    };
                    if let Some(execution) = changes.execution(&job, thing)? {
                        changes.update(&execution, |execution| {
                            execution.status = ExecutionStatus::Removed;
                        })?;
                    }
                }
            }
            changes.news.push(News::Forgotten {
                thing: thing.to_owned(),
            });
            // Another thing of that name later on is another thing.
            for prefix in [
                key::runs_of(thing),
                key::fetches_of(thing),
                key::handed_to(thing),
                key::refused(thing),
                key::newest_of(thing),
                key::to_tell(thing),
            ] {
                for key in changes.rows.keys(&prefix, MANY)? {
                    changes.rows.delete(key);
                }
            }
            Ok(())
        })
    }

    /// Runs `work` alone, makes its changes durable, then tells the things and the planner of them.
    pub(super) fn change<T>(
        &self,
        at: SystemTime,
        work: impl FnOnce(&mut Changes<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let now: Now = now(at);
        let _turn = self.turn();
        let mut changes = self.changes(now);
        let done = work(&mut changes)?;
        self.settle(changes, || {})?;
        Ok(done)
    }

    pub(super) fn changes(&self, now: Now) -> Changes<'_> {
        let address = self.inner.address.get().map_or("", String::as_str);
        let rows = Transaction::new(&self.inner.table);
        Changes::new(rows, now, self.tells(), address)
    }

    /// Commits, then answers, then notifies. The caller holds the turn.
    pub(super) fn settle(
        &self,
        mut changes: Changes<'_>,
        answer: impl FnOnce(),
    ) -> Result<(), Error> {
        let messages = changes.notifications()?;
        self.forget_told(&mut changes);
        let rollouts = std::mem::take(&mut changes.rollouts);
        let news = std::mem::take(&mut changes.news);
        let unfinished = changes.unfinished;
        let telling = std::mem::take(&mut changes.telling);
        let events = std::mem::take(&mut changes.events);
        let unwell = std::mem::take(&mut changes.unwell);
        changes.rows.commit()?;
        self.tell_registry(telling);
        for thing in &unwell {
            self.inner
                .vitals
                .saw(thing, Sign::Unwell, SystemTime::now());
        }
        if unfinished {
            self.inner.unfinished.store(true, Ordering::Release);
            self.inner.inbox.wake();
        }
        self.inner
            .news
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(news);
        answer();
        for message in messages {
            (self.inner.publish)(message);
        }
        self.send_events(events);
        self.wake(rollouts);
        Ok(())
    }
}

/// Ends the queued executions of `things`, and with `force` those in progress.
pub(super) fn cancel(
    changes: &mut Changes<'_>,
    id: &JobId,
    things: &[String],
    force: bool,
) -> Result<(), Error> {
    for thing in things {
        let Some(execution) = changes.execution(id, thing)? else {
            continue;
        };
        let in_progress = execution.status == ExecutionStatus::InProgress;
        if execution.status == ExecutionStatus::Queued || (force && in_progress) {
            let of_rollout = changes.job(id)?.is_some_and(|job| job.install.is_some());
            let stopped = changes.update(&execution, |execution| {
                execution.status = ExecutionStatus::Canceled;
                execution.force_canceled = in_progress;
                if of_rollout {
                    let why = "the rollout was stopped before it began".to_owned();
                    execution.details = Some([("reason".to_owned(), why)].into());
                }
            })?;
            changes.reinstate(&stopped)?;
        }
    }
    Ok(())
}
