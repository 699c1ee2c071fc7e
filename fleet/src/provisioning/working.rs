//! A registration task at work: some lines at a time. Their devices, what became of each line and the count of lines done
//! are one batch, so that a task that was cut short goes on at the very next line.

use super::{
    RegistrationDesk, RegistrationTask, Rejection, TaskLine, TaskReport, TaskStatus,
    by_template::{ByTemplate, Made},
    lines::{Content, LINE_LIMIT_BYTES, Lines},
};
use crate::{
    Acting, Doer, EnrolmentWay, Fleet, FleetError, Kind, keys,
    registry::{Inner, Transaction},
    template::Template,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Weak},
    time::SystemTime,
};

/// Lines whose devices are written together: what is durable costs one flush for all of them, and a server that stops waits
/// for no more than these.
const LINES_AT_ONCE_ITEMS: usize = 64;

/// A task under way.
struct Work {
    /// As it is written.
    task: RegistrationTask,
    reader: Lines,
    template: Template,
    /// Lines that were read, and their bytes.
    line: u64,
    offset: u64,
    /// One that was read and waits until those before it are written.
    held: Option<Line>,
}

/// A line that was read.
struct Line {
    number: u64,
    /// The bytes of the file up to its end.
    end: u64,
    planned: Planned,
}

enum Planned {
    Blank,
    Refused(Rejection),
    Device(Box<Made>),
}

/// Why there is no next line.
enum Unread {
    File(std::io::Error),
    /// The server could not make its device.
    Within(Rejection),
}

/// Works a task to its end; lets go of the registry now and then, so that a server that stops need not wait.
pub(super) fn run(weak: &Weak<Inner>, directory: Arc<Path>, id: &str) {
    let acting = Acting::new(
        Doer::Server,
        None,
        "ThingRegistrationTask",
        SystemTime::now(),
    );
    let acting = Arc::new(acting.about(BTreeMap::from([("taskId".to_owned(), id.to_owned())])));
    let desk = || {
        let fleet = Fleet {
            inner: weak.upgrade()?,
            acting: Some(Arc::clone(&acting)),
        };
        Some(RegistrationDesk {
            fleet,
            directory: Arc::clone(&directory),
        })
    };
    let Some(mut work) = desk().and_then(|desk| desk.begin(id)) else {
        return;
    };
    while let Some(desk) = desk() {
        match desk.step(&mut work) {
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
    /// The next lines of a task; `false` when it is over.
    fn step(&self, work: &mut Work) -> Result<bool, FleetError> {
        let now = SystemTime::now();
        let lines = match self.gather(work, now) {
            Ok(lines) => lines,
            Err(Unread::File(error)) => {
                let message = format!("the file cannot be read on: {error}");
                self.end(&mut work.task, TaskStatus::Failed, Some(message), now)?;
                return Ok(false);
            }
            Err(Unread::Within(rejection)) => return Err(self.rest(rejection)),
        };
        if lines.is_empty() {
            self.end(&mut work.task, TaskStatus::Completed, None, now)?;
            return Ok(false);
        }
        let mut failed = None;
        let done = self.fleet.transact(|t| {
            failed = None;
            self.put_lines(t, &work.task.id, &lines, &mut failed, now)
        });
        work.task = match (done, failed) {
            (Ok(task), _) => task,
            (Err(_), Some(rejection)) => return Err(self.rest(rejection)),
            (Err(error), None) => return Err(self.rest(error.into())),
        };
        if work.task.status == TaskStatus::Cancelling {
            self.end(&mut work.task, TaskStatus::Cancelled, None, now)?;
        }
        Ok(!work.task.status.is_over())
    }

    /// What failed within the server may succeed later: the task stays where it is.
    fn rest(&self, rejection: Rejection) -> FleetError {
        match self.fleet.writable() {
            Ok(()) => FleetError::Invalid(rejection.message),
            Err(error) => error,
        }
    }

    /// Reads lines and makes all of their devices that can be made before anything is written: signatures are the costly
    /// part. Two lines that would see of each other what is not written yet do not come together.
    fn gather(&self, work: &mut Work, now: SystemTime) -> Result<Vec<Line>, Unread> {
        let mut lines: Vec<Line> = Vec::new();
        let mut marks = BTreeSet::new();
        while lines.len() < LINES_AT_ONCE_ITEMS {
            let line = match work.held.take() {
                Some(line) => line,
                None => match self.read_line(work, now) {
                    Ok(Some(line)) => line,
                    Ok(None) => break,
                    // Told again at the next step, behind those that were read.
                    Err(Unread::File(_)) if !lines.is_empty() => break,
                    Err(unread) => return Err(unread),
                },
            };
            let own = match &line.planned {
                Planned::Device(made) => made.marks(),
                Planned::Blank | Planned::Refused(_) => Some(Vec::new()),
            };
            let alone = own.is_none();
            let own = own.unwrap_or_default();
            if !lines.is_empty() && (alone || own.iter().any(|mark| marks.contains(mark))) {
                work.held = Some(line);
                break;
            }
            marks.extend(own);
            lines.push(line);
            if alone {
                break;
            }
        }
        Ok(lines)
    }

    fn read_line(&self, work: &mut Work, now: SystemTime) -> Result<Option<Line>, Unread> {
        let Some((content, bytes)) = work.reader.next().map_err(Unread::File)? else {
            return Ok(None);
        };
        work.line += 1;
        work.offset += bytes;
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
        let way = Some(EnrolmentWay::Bulk);
        let planned = parameters.map(|parameters| {
            parameters.and_then(|parameters| {
                (self.fleet).plan_by_template(way, &work.template, &parameters, now)
            })
        });
        let planned = match planned {
            None => Planned::Blank,
            Some(Ok(made)) => Planned::Device(Box::new(made)),
            Some(Err(rejection)) if rejection.status >= 500 => {
                return Err(Unread::Within(rejection));
            }
            Some(Err(rejection)) => Planned::Refused(rejection),
        };
        Ok(Some(Line {
            number: work.line,
            end: work.offset,
            planned,
        }))
    }

    /// Writes the devices of lines, what became of each line, and how far the task has come, in one batch. `failed` is why
    /// nothing could be written.
    fn put_lines(
        &self,
        t: &mut Transaction<'_>,
        id: &str,
        lines: &[Line],
        failed: &mut Option<Rejection>,
        now: SystemTime,
    ) -> Result<RegistrationTask, FleetError> {
        let mut task: RegistrationTask = t
            .get(&keys::task(id))?
            .ok_or_else(|| FleetError::not_found(Kind::Task, id))?;
        for line in lines {
            task.lines = line.number;
            task.offset = line.end;
            let done = match &line.planned {
                Planned::Blank => continue,
                Planned::Refused(rejection) => Err(rejection.clone()),
                Planned::Device(made) => t.attempt(|t| self.fleet.put_by_template(t, made, now)),
            };
            let (report, done) = match done {
                Ok(ByTemplate {
                    thing, certificate, ..
                }) => {
                    task.succeeded += 1;
                    let done = TaskLine::Device {
                        line: line.number,
                        thing,
                        certificate,
                    };
                    (TaskReport::Results, done)
                }
                Err(rejection) if rejection.status >= 500 => {
                    let message = rejection.message.clone();
                    *failed = Some(rejection);
                    return Err(FleetError::Invalid(message));
                }
                Err(rejection) => {
                    task.failed += 1;
                    let done = TaskLine::Error {
                        line: line.number,
                        status: rejection.status,
                        code: rejection.code.to_owned(),
                        message: rejection.message,
                    };
                    (TaskReport::Errors, done)
                }
            };
            let place = keys::task_lines(id, report.as_str());
            t.put(format!("{place}{:016x}", line.number), &done)?;
        }
        task.modified = now;
        t.put(keys::task(id), &task)?;
        Ok(task)
    }

    fn begin(&self, id: &str) -> Option<Work> {
        let opened = || {
            let mut task = self.task(id)?;
            let template = Template::parse(&task.template_body)?;
            let path = self.path(&task.bucket, &task.key)?;
            match Lines::open(&path, task.offset) {
                Ok(reader) => Ok(Some(Work {
                    line: task.lines,
                    offset: task.offset,
                    held: None,
                    task,
                    reader,
                    template,
                })),
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
