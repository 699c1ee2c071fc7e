//! Registration tasks: a file of parameters, one JSON object a line, each of which becomes a device by a template. Started,
//! stopped and asked for here; a thread works each (`working.rs`).

use super::working;
use crate::{Fleet, FleetError, Kind, Page, ThingName, keys, template::Template};
use ca::CertificateId;
use serde::{Deserialize, Serialize};
use std::{
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use store::Stored;

/// Where a task stands, in AWS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "AWS's words")]
pub enum TaskStatus {
    InProgress,
    Completed,
    Failed,
    Cancelled,
    Cancelling,
}

impl TaskStatus {
    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskStatus::InProgress => "InProgress",
            TaskStatus::Completed => "Completed",
            TaskStatus::Failed => "Failed",
            TaskStatus::Cancelled => "Cancelled",
            TaskStatus::Cancelling => "Cancelling",
        }
    }

    pub(super) fn is_over(self) -> bool {
        !matches!(self, TaskStatus::InProgress | TaskStatus::Cancelling)
    }
}

/// A registration task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationTask {
    /// Its id.
    pub id: String,
    /// What each line becomes.
    pub template_body: String,
    /// The directory the file is in, below that of all such files.
    pub bucket: String,
    /// The file, below that.
    pub key: String,
    /// What AWS's clients send and read back; nothing is decided by it.
    pub role_arn: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Why it failed.
    pub message: Option<String>,
    /// When it was started.
    pub created: SystemTime,
    /// When it last changed.
    pub modified: SystemTime,
    /// Lines that are done.
    pub lines: u64,
    /// Bytes that are done.
    pub offset: u64,
    /// Bytes of the file when it was started.
    pub size: u64,
    /// Lines that became devices.
    pub succeeded: u64,
    /// Lines that did not.
    pub failed: u64,
}

impl Stored for RegistrationTask {}

/// What became of one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskLine {
    /// A device.
    Device {
        /// The line, from 1.
        line: u64,
        /// The thing.
        thing: ThingName,
        /// Its certificate.
        certificate: CertificateId,
    },
    /// Nothing.
    Error {
        /// The line, from 1.
        line: u64,
        /// As in HTTP.
        status: u16,
        /// AWS's word.
        code: String,
        /// For people.
        message: String,
    },
}

impl Stored for TaskLine {}

/// Which lines of a task are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskReport {
    /// Those that became devices.
    Results,
    /// Those that did not.
    Errors,
}

impl TaskReport {
    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskReport::Results => "RESULTS",
            TaskReport::Errors => "ERRORS",
        }
    }
}

impl std::str::FromStr for TaskReport {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "RESULTS" => Ok(TaskReport::Results),
            "ERRORS" => Ok(TaskReport::Errors),
            _ => Err("a report is RESULTS or ERRORS".to_owned()),
        }
    }
}

/// A task to be started.
#[derive(Debug, Clone)]
pub struct NewTask<'a> {
    /// What each line becomes.
    pub template_body: &'a str,
    /// The directory the file is in.
    pub bucket: &'a str,
    /// The file.
    pub key: &'a str,
    /// What AWS's clients send.
    pub role_arn: &'a str,
}

/// Where tasks are started and asked for. Clones share it.
#[derive(Clone)]
pub struct RegistrationDesk {
    pub(super) fleet: Fleet,
    pub(super) directory: Arc<Path>,
}

impl RegistrationDesk {
    /// Opens the desk for files below `directory`, and goes on with a task that was cut short.
    ///
    /// # Errors
    /// When the store fails or the thread cannot be started.
    pub fn open(fleet: Fleet, directory: PathBuf) -> Result<Self, FleetError> {
        let desk = RegistrationDesk {
            fleet,
            directory: directory.into(),
        };
        let mut after = None;
        loop {
            let page = desk.tasks(after.as_deref(), crate::LIST_LIMIT_ITEMS)?;
            for task in page.items.iter().filter(|task| !task.status.is_over()) {
                desk.work(task.id.clone())?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(desk);
            }
        }
    }

    /// Starts a task.
    ///
    /// # Errors
    /// [`FleetError::Template`]; [`FleetError::Invalid`] for a file that is not there and while another task runs.
    pub fn start(
        &self,
        id: String,
        new: &NewTask<'_>,
        now: SystemTime,
    ) -> Result<RegistrationTask, FleetError> {
        Template::parse(new.template_body)?;
        let path = self.path(new.bucket, new.key)?;
        let size = std::fs::metadata(&path).map(|found| found.len());
        let size = size.map_err(|error| {
            FleetError::Invalid(format!(
                "inputFileBucket {}, inputFileKey {}: the file is looked for below the directory `registration` of the \
                 server's data directory, and cannot be read there: {error}",
                new.bucket, new.key
            ))
        })?;
        let task = RegistrationTask {
            id,
            template_body: new.template_body.to_owned(),
            bucket: new.bucket.to_owned(),
            key: new.key.to_owned(),
            role_arn: new.role_arn.to_owned(),
            status: TaskStatus::InProgress,
            message: None,
            created: now,
            modified: now,
            lines: 0,
            offset: 0,
            size,
            succeeded: 0,
            failed: 0,
        };
        self.fleet.transact_alone(|t| {
            let mut after = None;
            loop {
                let page = self.tasks(after.as_deref(), crate::LIST_LIMIT_ITEMS)?;
                if let Some(other) = page.items.iter().find(|task| !task.status.is_over()) {
                    return Err(FleetError::Invalid(format!(
                        "task {} is under way, and there is one at a time: wait for it, or stop it (StopThingRegistrationTask)",
                        other.id
                    )));
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            t.put(keys::task(&task.id), &task)
        })?;
        self.work(task.id.clone())?;
        Ok(task)
    }

    /// Reads a task.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn task(&self, id: &str) -> Result<RegistrationTask, FleetError> {
        self.fleet
            .read(&keys::task(id))?
            .ok_or_else(|| FleetError::not_found(Kind::Task, id))
    }

    /// Tasks in order of id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tasks(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<RegistrationTask>, FleetError> {
        self.fleet.page_of_values(keys::TASK, after, limit)
    }

    /// Stops a task; what it has made stays.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::Invalid`] for one that is over.
    pub fn stop(&self, id: &str, now: SystemTime) -> Result<(), FleetError> {
        self.fleet.transact(|t| {
            let mut task: RegistrationTask = t
                .get(&keys::task(id))?
                .ok_or_else(|| FleetError::not_found(Kind::Task, id))?;
            if task.status.is_over() {
                return Err(FleetError::Invalid(format!(
                    "task {id} is {} already",
                    task.status.as_str()
                )));
            }
            task.status = TaskStatus::Cancelling;
            task.modified = now;
            t.put(keys::task(id), &task)
        })
    }

    /// One page of what became of a task's lines, in their order.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn report(
        &self,
        id: &str,
        report: TaskReport,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<TaskLine>, FleetError> {
        self.task(id)?;
        let place = keys::task_lines(id, report.as_str());
        self.fleet.page_of_values(&place, after, limit)
    }

    /// The file, which is below the directory of all such files whatever its name says.
    pub(super) fn path(&self, bucket: &str, key: &str) -> Result<PathBuf, FleetError> {
        let relative = Path::new(bucket).join(key);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if bucket.is_empty() || key.is_empty() || !relative.components().all(plain) {
            return Err(FleetError::Invalid(
                "inputFileBucket is a directory and inputFileKey a file below it, without `..`"
                    .into(),
            ));
        }
        Ok(self.directory.join(relative))
    }

    fn work(&self, id: String) -> Result<(), FleetError> {
        let (weak, directory) = (
            Arc::downgrade(&self.fleet.inner),
            Arc::clone(&self.directory),
        );
        std::thread::Builder::new()
            .name("registration".into())
            .spawn(move || working::run(&weak, directory, &id))
            .map(drop)
            .map_err(FleetError::Thread)
    }

    pub(super) fn end(
        &self,
        task: &mut RegistrationTask,
        status: TaskStatus,
        message: Option<String>,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        *task = self.fleet.transact(|t| {
            let mut next: RegistrationTask = t
                .get(&keys::task(&task.id))?
                .ok_or_else(|| FleetError::not_found(Kind::Task, &task.id))?;
            next.status = status;
            next.message.clone_from(&message);
            next.modified = now;
            t.put(keys::task(&task.id), &next)?;
            Ok(next)
        })?;
        tracing::info!(
            task = task.id,
            status = status.as_str(),
            succeeded = task.succeeded,
            failed = task.failed,
            "a registration task is over"
        );
        Ok(())
    }
}
