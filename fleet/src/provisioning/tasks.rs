//! Registration tasks: a file of parameters, one JSON object a line, each of which becomes a device by a template. One
//! thread works a task line by line; the line's device and the count of lines done are one batch, so that a task that
//! was cut short goes on at the very next line.

use super::{Rejection, by_template::ByTemplate};
use crate::{
    EnrolmentWay, Fleet, FleetError, Kind, Page, ThingName, keys,
    registry::{Inner, Transaction},
    template::Template,
};
use ca::CertificateId;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Component, Path, PathBuf},
    sync::{Arc, Weak},
    time::SystemTime,
};
use store::Stored;

/// Longest line.
const LINE_LIMIT_BYTES: usize = 64 * 1024;

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

    fn is_over(self) -> bool {
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
    fleet: Fleet,
    directory: Arc<Path>,
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
    fn path(&self, bucket: &str, key: &str) -> Result<PathBuf, FleetError> {
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
            .spawn(move || run(&weak, directory, &id))
            .map(drop)
            .map_err(FleetError::Thread)
    }

    /// The next line of a task; `false` when it is over.
    fn step(
        &self,
        task: &mut RegistrationTask,
        reader: &mut Lines,
        template: &Template,
    ) -> Result<bool, FleetError> {
        let now = SystemTime::now();
        let read = match reader.next() {
            Ok(read) => read,
            Err(error) => {
                let message = format!("the file cannot be read on: {error}");
                self.end(task, TaskStatus::Failed, Some(message), now)?;
                return Ok(false);
            }
        };
        let Some((content, bytes)) = read else {
            self.end(task, TaskStatus::Completed, None, now)?;
            return Ok(false);
        };
        let line = task.lines + 1;
        let parameters = match content {
            Content::Blank => None,
            Content::TooLong => Some(Err(Rejection::invalid(format!(
                "the line has more than {LINE_LIMIT_BYTES} bytes"
            )))),
            Content::Text(text) => Some(
                serde_json::from_slice::<BTreeMap<String, String>>(&text).map_err(|error| {
                    Rejection::invalid(format!(
                        "the line is no JSON object of texts, as {{\"SerialNumber\": \"1\"}}: {error}"
                    ))
                }),
            ),
        };
        let fleet = &self.fleet;
        let made = parameters.map(|parameters| {
            parameters.and_then(|parameters| {
                fleet.plan_by_template(Some(EnrolmentWay::Bulk), template, &parameters, now)
            })
        });
        let counted = |t: &mut Transaction<'_>, done: Option<&TaskLine>| {
            let mut next: RegistrationTask = t
                .get(&keys::task(&task.id))?
                .ok_or_else(|| FleetError::not_found(Kind::Task, &task.id))?;
            next.lines = line;
            next.offset = task.offset + bytes;
            next.modified = now;
            let report = match done {
                None => None,
                Some(TaskLine::Device { .. }) => {
                    next.succeeded += 1;
                    Some(TaskReport::Results)
                }
                Some(TaskLine::Error { .. }) => {
                    next.failed += 1;
                    Some(TaskReport::Errors)
                }
            };
            if let (Some(report), Some(done)) = (report, done) {
                let place = keys::task_lines(&task.id, report.as_str());
                t.put(format!("{place}{line:016x}"), done)?;
            }
            t.put(keys::task(&task.id), &next)?;
            Ok(next)
        };
        let registered = match made {
            None => Ok(fleet.transact(|t| counted(t, None))?),
            Some(made) => made.and_then(|made| {
                fleet.transact_or_reject(|t| {
                    let done = match fleet.put_by_template(t, &made, now)? {
                        Ok(done) => done,
                        Err(rejection) => return Ok(Err(rejection)),
                    };
                    let ByTemplate {
                        thing, certificate, ..
                    } = done;
                    let done = TaskLine::Device {
                        line,
                        thing,
                        certificate,
                    };
                    counted(t, Some(&done)).map(Ok)
                })
            }),
        };
        let next = match registered {
            Ok(next) => next,
            // What failed within the server may succeed later: the task stays where it is.
            Err(rejection) if rejection.status >= 500 => {
                fleet.writable()?;
                return Err(FleetError::Invalid(rejection.message));
            }
            Err(rejection) => {
                let done = TaskLine::Error {
                    line,
                    status: rejection.status,
                    code: rejection.code.to_owned(),
                    message: rejection.message,
                };
                fleet.transact(|t| counted(t, Some(&done)))?
            }
        };
        *task = next;
        if task.status == TaskStatus::Cancelling {
            self.end(task, TaskStatus::Cancelled, None, now)?;
        }
        Ok(!task.status.is_over())
    }

    fn end(
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

/// Works a task to its end; lets go of the registry between lines, so that a server that stops need not wait.
fn run(weak: &Weak<Inner>, directory: Arc<Path>, id: &str) {
    let desk = || {
        let fleet = Fleet {
            inner: weak.upgrade()?,
        };
        Some(RegistrationDesk {
            fleet,
            directory: Arc::clone(&directory),
        })
    };
    let Some((mut task, mut reader, template)) = desk().and_then(|desk| desk.begin(id)) else {
        return;
    };
    while let Some(desk) = desk() {
        match desk.step(&mut task, &mut reader, &template) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(task = id, %error, "a registration task rests; the next start of the server goes on with it");
                return;
            }
        }
    }
}

impl RegistrationDesk {
    fn begin(&self, id: &str) -> Option<(RegistrationTask, Lines, Template)> {
        let opened = || {
            let mut task = self.task(id)?;
            let template = Template::parse(&task.template_body)?;
            let path = self.path(&task.bucket, &task.key)?;
            match Lines::open(&path, task.offset) {
                Ok(lines) => Ok(Some((task, lines, template))),
                Err(error) => {
                    let message = Some(format!("the file cannot be read: {error}"));
                    self.end(&mut task, TaskStatus::Failed, message, SystemTime::now())?;
                    Ok(None)
                }
            }
        };
        opened().unwrap_or_else(|error: FleetError| {
            tracing::error!(task = id, %error, "a registration task cannot be gone on with");
            None
        })
    }
}

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text(Vec<u8>),
    Blank,
    TooLong,
}

/// Lines one after the other, none of them held longer than it may be.
struct Lines(BufReader<File>);

impl Lines {
    fn open(path: &Path, offset: u64) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Lines(BufReader::new(file)))
    }

    /// The next line and how many bytes it has, with its end.
    fn next(&mut self) -> std::io::Result<Option<(Content, u64)>> {
        let mut text = Vec::new();
        let mut part = (&mut self.0).take(LINE_LIMIT_BYTES as u64);
        let mut bytes = part.read_until(b'\n', &mut text)? as u64;
        if bytes == 0 {
            return Ok(None);
        }
        if text.last() != Some(&b'\n') && bytes == LINE_LIMIT_BYTES as u64 {
            loop {
                let held = self.0.fill_buf()?;
                let end = held.iter().position(|octet| *octet == b'\n');
                let used = end.map_or(held.len(), |end| end + 1);
                self.0.consume(used);
                bytes += used as u64;
                if end.is_some() || used == 0 {
                    return Ok(Some((Content::TooLong, bytes)));
                }
            }
        }
        let blank = text.iter().all(u8::is_ascii_whitespace);
        let content = if blank {
            Content::Blank
        } else {
            Content::Text(text)
        };
        Ok(Some((content, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], offset: u64) -> Vec<(Content, u64)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, text).unwrap();
        let mut lines = Lines::open(&path, offset).unwrap();
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn each_line_is_counted_to_its_last_byte() {
        let text = b"{}\n\n \r\nlast";
        let read = lines(text, 0);
        assert_eq!(read[0], (Content::Text(b"{}\n".to_vec()), 3));
        assert_eq!(
            (&read[1], &read[2]),
            (&(Content::Blank, 1), &(Content::Blank, 3))
        );
        assert_eq!(read[3], (Content::Text(b"last".to_vec()), 4));
        assert_eq!(lines(text, 7), [(Content::Text(b"last".to_vec()), 4)]);
        assert!(lines(text, 11).is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_not_held() {
        let mut text = vec![b'x'; 3 * LINE_LIMIT_BYTES];
        text.extend(b"\n{}\n");
        let read = lines(&text, 0);
        assert_eq!(read[0], (Content::TooLong, 3 * LINE_LIMIT_BYTES as u64 + 1));
        assert_eq!(read[1].0, Content::Text(b"{}\n".to_vec()));
        assert_eq!(
            lines(&vec![b'x'; LINE_LIMIT_BYTES], 0)[0].0,
            Content::TooLong
        );
    }
}
