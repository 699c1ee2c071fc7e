//! What jobs tell of themselves, as AWS IoT does on `$aws/events/job/…` and `$aws/events/jobExecution/…`: off
//! until it is switched on (UpdateEventConfigurations), and sent after the change is durable.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fleet::events::EventType;
use serde_json::{Value, json};

use super::Ota;
use super::executions::Changes;
use super::records::{Execution, Job, JobRef, JobStatus, key};
use crate::job::StatusDetails;
use crate::{Error, JobId};

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobChange {
    /// All its executions are over.
    Completed,
    /// It was given up; its executions follow.
    CancellationInProgress,
    /// They have followed.
    Canceled,
    /// It is to be deleted; its executions go first.
    DeletionInProgress,
    /// It is gone.
    Deleted,
}

/// One event of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEvent {
    /// Of the job itself, as it is now or was last.
    Job(JobChange, Box<Job>),
    /// Of one thing's execution, which has come to an end.
    Execution {
        /// The job.
        job: JobId,
        /// The thing.
        thing: String,
        /// AWS's word for how it stands.
        status: String,
        /// What the device said last.
        details: Option<StatusDetails>,
    },
}

/// Where events go; must not block.
pub type JobEventSink = Arc<dyn Fn(JobEvent) + Send + Sync>;

/// Which events are on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tells {
    jobs: bool,
    executions: bool,
}

impl JobChange {
    const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CancellationInProgress => "cancellation_in_progress",
            Self::Canceled => "canceled",
            Self::DeletionInProgress => "deletion_in_progress",
            Self::Deleted => "deleted",
        }
    }
}

impl JobEvent {
    /// The topic and the message.
    #[must_use]
    pub fn message(&self, account: &str, region: &str, at: SystemTime) -> (String, Value) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |seconds: u64| seconds.saturating_mul(1000);
        let (topic, mut fields) = match self {
            Self::Job(change, job) => {
                let mut fields = json!({
                    "eventType": "JOB",
                    "operation": change.word(),
                    "jobId": job.id,
                    "status": change.word().to_ascii_uppercase(),
                    "targetSelection": if job.continuous { "CONTINUOUS" } else { "SNAPSHOT" },
                    "targets": job.targets,
                    "createdAt": millis(job.created_at),
                    "lastUpdatedAt": millis(job.last_updated_at),
                });
                let mut add = |name: &str, value: Option<Value>| {
                    if let (Some(fields), Some(value)) = (fields.as_object_mut(), value) {
                        fields.insert(name.to_owned(), value);
                    }
                };
                add("description", job.description.clone().map(Value::from));
                add("comment", job.comment.clone().map(Value::from));
                add("reasonCode", job.reason_code.clone().map(Value::from));
                if *change == JobChange::Completed {
                    add("completedAt", job.completed_at.map(|at| millis(at).into()));
                    let ends = &job.ends;
                    let counts = json!({
                        "numberOfCanceledThings": ends.canceled,
                        "numberOfRejectedThings": ends.rejected,
                        "numberOfFailedThings": ends.failed,
                        "numberOfRemovedThings": ends.removed,
                        "numberOfSucceededThings": ends.succeeded,
                        "numberOfTimedOutThings": ends.timed_out,
                    });
                    add("jobProcessDetails", Some(counts));
                }
                (format!("job/{}/{}", job.id, change.word()), fields)
            }
            Self::Execution {
                job,
                thing,
                status,
                details,
            } => {
                let operation = status.to_ascii_lowercase();
                let mut fields = json!({
                    "eventType": "JOB_EXECUTION",
                    "operation": operation,
                    "jobId": job,
                    "thingArn": format!("arn:aws:iot:{region}:{account}:thing/{thing}"),
                    "status": status,
                });
                if let (Some(fields), Some(details)) = (fields.as_object_mut(), details) {
                    fields.insert("statusDetails".to_owned(), json!(details));
                }
                (format!("jobExecution/{job}/{operation}"), fields)
            }
        };
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("timestamp".to_owned(), since.as_secs().into());
            fields.insert("eventId".to_owned(), fleet::events::event_id().into());
        }
        (format!("$aws/events/{topic}"), fields)
    }
}

impl Changes<'_> {
    /// Writes a job down.
    pub(super) fn put_job(&mut self, job: &Job) -> Result<(), Error> {
        if self.tells.jobs && job.status == JobStatus::Completed {
            let before = self.job(&job.id)?;
            // One that was made without anybody to do it is complete at once.
            if before.is_none_or(|before| before.status != JobStatus::Completed) {
                self.tell_job(JobChange::Completed, job);
            }
        }
        self.rows.put(key::job(&job.id), job)
    }

    pub(super) fn tell_job(&mut self, change: JobChange, job: &Job) {
        if self.tells.jobs {
            self.events
                .push(JobEvent::Job(change, Box::new(job.clone())));
        }
    }

    /// A job is given up: its executions follow.
    pub(super) fn give_up(&mut self, job: &Job) -> Result<(), Error> {
        self.tell_job(JobChange::CancellationInProgress, job);
        let row = JobRef {
            job: job.id.clone(),
        };
        self.rows.put(key::cancelling(&job.id), &row)
    }

    /// An execution has come to its end.
    pub(super) fn tell_end(&mut self, execution: &Execution) {
        self.tell_execution(execution, execution.status.to_string());
    }

    /// An execution is gone.
    pub(super) fn tell_deleted(&mut self, execution: &Execution) {
        self.tell_execution(execution, "DELETED".to_owned());
    }

    fn tell_execution(&mut self, execution: &Execution, status: String) {
        if self.tells.executions {
            self.events.push(JobEvent::Execution {
                job: execution.job.clone(),
                thing: execution.thing.clone(),
                status,
                details: execution.details.clone(),
            });
        }
    }
}

impl Ota {
    /// Where events of jobs go from now on; set once.
    pub fn send_events_to(&self, sink: JobEventSink) {
        if self.inner.events.set(sink).is_err() {
            tracing::error!("events of jobs have a way to go already");
        }
    }

    pub(super) fn tells(&self) -> Tells {
        if self.inner.events.get().is_none() {
            return Tells::default();
        }
        let on = |kind| self.inner.fleet.event_is_on(kind);
        Tells {
            jobs: on(EventType::Job),
            executions: on(EventType::JobExecution),
        }
    }

    /// After a commit.
    pub(super) fn send_events(&self, events: Vec<JobEvent>) {
        if let Some(sink) = self.inner.events.get() {
            events.into_iter().for_each(|event| sink(event));
        }
    }
}
