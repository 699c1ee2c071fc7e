//! What operators do to single executions, and to jobs that exist: AWS IoT's CancelJobExecution,
//! DeleteJobExecution, DeleteJob, UpdateJob and ListJobExecutionsForThing.

use std::time::SystemTime;

use super::create_job::TimeoutConfig;
use super::job_events::JobChange;
use super::jobs::{MAX_DESCRIPTION_CHARS, invalid, missing};
use super::records::{Execution, Job, JobRef, JobStatus, key};
use super::tags::Tagged;
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::job::config::JobConfig;
use crate::job::{ExecutionStatus, StatusDetails, check_details};
use crate::{Error, JobId};

/// Executions deleted in one go.
const DELETE_AT_ONCE: usize = 500;

fn no_execution(id: &JobId, thing: &str) -> Error {
    Error::NotFound {
        kind: "job execution",
        name: format!("{id} on {thing}"),
    }
}

fn not_a_rollouts(job: &Job) -> Result<(), Error> {
    if job.install.is_some() {
        return invalid(
            "jobId",
            "it belongs to a rollout: use `muster rollout abort` or `muster rollout rollback`",
        );
    }
    Ok(())
}

/// Which executions of a thing are asked for; all, where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhichExecutions {
    /// Those with this status.
    pub status: Option<ExecutionStatus>,
    /// That of this job.
    pub job: Option<JobId>,
    /// Those of this namespace.
    pub namespace: Option<String>,
}

impl WhichExecutions {
    /// Whether this is one of them.
    #[must_use]
    pub fn has(&self, execution: &Execution) -> bool {
        self.status.is_none_or(|status| status == execution.status)
            && self.job.as_ref().is_none_or(|job| *job == execution.job)
            && (self.namespace.is_none() || self.namespace == execution.namespace)
    }
}

impl Ota {
    /// Cancels one thing's execution; one in progress only by `force`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ExecutionState`], [`Error::Version`], [`Error::Invalid`].
    pub fn cancel_execution(
        &self,
        id: &JobId,
        thing: &str,
        force: bool,
        expected_version: Option<u64>,
        details: Option<StatusDetails>,
        at: SystemTime,
    ) -> Result<(), Error> {
        if let Some(Err(why)) = details.as_ref().map(check_details) {
            return invalid("statusDetails", why);
        }
        self.change(at, |changes| {
            let job = changes.job(id)?.ok_or_else(|| missing(id))?;
            not_a_rollouts(&job)?;
            let execution = changes
                .execution(id, thing)?
                .ok_or_else(|| no_execution(id, thing))?;
            if expected_version.is_some_and(|version| version != execution.version_number) {
                return Err(Error::Version {
                    what: format!("execution of job {id} on {thing}"),
                    version: execution.version_number,
                });
            }
            let in_progress = execution.status == ExecutionStatus::InProgress;
            if execution.status.is_terminal() || (in_progress && !force) {
                return Err(Error::ExecutionState {
                    job: id.to_string(),
                    thing: thing.to_owned(),
                    status: execution.status.to_string(),
                    verb: "cancelled",
                });
            }
            changes.update(&execution, |execution| {
                execution.status = ExecutionStatus::Canceled;
                execution.force_canceled = in_progress;
                execution.details = details.or(execution.details.take());
            })?;
            Ok(())
        })
    }

    /// Deletes one thing's execution: one that is over, by `force` any.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ExecutionState`].
    pub fn delete_execution(
        &self,
        id: &JobId,
        thing: &str,
        number: u64,
        force: bool,
        at: SystemTime,
    ) -> Result<(), Error> {
        self.change(at, |changes| {
            let job = changes.job(id)?.ok_or_else(|| missing(id))?;
            not_a_rollouts(&job)?;
            let newest = changes
                .execution(id, thing)?
                .ok_or_else(|| no_execution(id, thing))?;
            let execution = match newest.number == number {
                true => newest.clone(),
                false => changes
                    .earlier_try(id, thing, number)?
                    .ok_or_else(|| no_execution(id, thing))?,
            };
            if !execution.status.is_terminal() && !force {
                return Err(Error::ExecutionState {
                    job: id.to_string(),
                    thing: thing.to_owned(),
                    status: execution.status.to_string(),
                    verb: "deleted",
                });
            }
            if !execution.status.is_terminal() {
                changes.update(&execution, |execution| {
                    execution.status = ExecutionStatus::Removed
                })?;
            }
            changes.drop_try(&newest, number)?;
            if job.continuous {
                // What is deleted is the record: the thing is not told once more.
                let mark = JobRef { job: id.clone() };
                changes
                    .rows
                    .put(format!("{}{thing}", key::had(id)), &mark)?;
            }
            changes.tell_deleted(&execution);
            Ok(())
        })
    }

    /// Deletes a job and its executions: one that is over, by `force` any.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::JobState`] where it is not over.
    pub fn delete_job(&self, id: &JobId, force: bool, at: SystemTime) -> Result<(), Error> {
        self.change(at, |changes| {
            let mut job = changes.job(id)?.ok_or_else(|| missing(id))?;
            not_a_rollouts(&job)?;
            let is_over =
                matches!(job.status, JobStatus::Completed | JobStatus::Canceled) && job.open == 0;
            if !is_over && !force {
                return Err(Error::JobState {
                    job: id.to_string(),
                    status: job.status.as_str(),
                    verb: "deleted before it is over (cancel it, or use force)",
                });
            }
            job.status = JobStatus::DeletionInProgress;
            changes
                .rows
                .put(key::deleting(id), &JobRef { job: id.clone() })?;
            changes.tell_job(JobChange::DeletionInProgress, &job);
            changes.put_job(&job)
        })?;
        self.finish_deleting(at)
    }

    /// Carries out what deleted jobs still have to; a crash in the middle is made good at the next start.
    pub(super) fn finish_deleting(&self, at: SystemTime) -> Result<(), Error> {
        let keys = Transaction::new(&self.inner.table).keys(key::DELETING, 1000)?;
        for deleting in keys {
            let Some(id) = deleting
                .strip_prefix(key::DELETING)
                .and_then(|id| id.parse::<JobId>().ok())
            else {
                continue;
            };
            loop {
                let prefixes = [
                    key::executions(&id),
                    key::waiting(&id),
                    key::had(&id),
                    key::tries(&id),
                ];
                let more = self.change(at, |changes| {
                    let executions = changes.rows.keys(&prefixes[0], DELETE_AT_ONCE)?;
                    for row in &executions {
                        let thing = row.strip_prefix(&prefixes[0]).unwrap_or_default();
                        let execution = changes.execution(&id, thing)?;
                        if let Some(open) = execution.filter(|open| !open.status.is_terminal()) {
                            changes.update(&open, |open| open.status = ExecutionStatus::Removed)?;
                        }
                        changes.rows.delete(row.clone());
                    }
                    let mut more = !executions.is_empty();
                    for prefix in &prefixes[1..] {
                        let rows = changes.rows.keys(prefix, DELETE_AT_ONCE)?;
                        more |= !rows.is_empty();
                        rows.into_iter().for_each(|row| changes.rows.delete(row));
                    }
                    Ok(more)
                })?;
                if !more {
                    break;
                }
            }
            self.change(at, |changes| {
                if let Some(job) = changes.job(&id)? {
                    changes.tell_job(JobChange::Deleted, &job);
                }
                changes.rows.delete(key::paced(&id));
                changes.rows.delete(key::cancelling(&id));
                changes.rows.delete(key::job(&id));
                changes.drop_tags(&Tagged::Job(id.clone()));
                changes.rows.delete(deleting.clone());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Changes what can be changed of a job that is not over.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::JobState`], [`Error::Invalid`].
    pub fn update_job(
        &self,
        id: &JobId,
        description: Option<String>,
        timeout: Option<&TimeoutConfig>,
        config: JobConfig,
        at: SystemTime,
    ) -> Result<(), Error> {
        if description
            .as_ref()
            .is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS)
        {
            return invalid(
                "description",
                format!("at most {MAX_DESCRIPTION_CHARS} characters are possible"),
            );
        }
        let minutes = timeout.map(TimeoutConfig::minutes).transpose()?.flatten();
        config.check(seconds(at))?;
        self.change(at, |changes| {
            let mut job = changes.job(id)?.ok_or_else(|| missing(id))?;
            not_a_rollouts(&job)?;
            if !matches!(job.status, JobStatus::InProgress | JobStatus::Scheduled) {
                return Err(Error::JobState {
                    job: id.to_string(),
                    status: job.status.as_str(),
                    verb: "changed",
                });
            }
            job.description = description.or(job.description.take());
            job.timeout_minutes = minutes.or(job.timeout_minutes);
            job.config.replace(config);
            job.last_updated_at = changes.now.seconds;
            changes.put_job(&job)
        })?;
        // Its pace may be another now.
        self.look_at_job(id);
        Ok(())
    }
}
