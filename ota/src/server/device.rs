//! What a device asks on `$aws/things/<thing>/jobs/…` and what it is answered (AWS IoT Jobs' MQTT API).

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Message;
use super::executions::{Changes, MAX_LISTED};
use super::queue::Queue;
use super::records::{Execution, is_downloading};
use crate::job::{
    DescribeRequest, ExecutionResponse, ExecutionStatus, GetPendingRequest, JobExecutionState,
    MAX_CLIENT_TOKEN_BYTES, MAX_TIMEOUT_MINUTES, Rejected, RejectedCode, StartNextRequest,
    StatusDetails, UpdateRequest, UpdateResponse, check_details,
};
use crate::rollout::HELD;
use crate::{Error, JobId};

/// Most bytes of a request that are read.
pub(super) const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Why a request is refused, before it is written out.
pub(super) struct Refusal {
    code: RejectedCode,
    message: String,
    state: Option<JobExecutionState>,
}

impl Refusal {
    pub(super) fn new(code: RejectedCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            state: None,
        }
    }
}

/// Refused, or failed for reasons of our own.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn refuse<T>(code: RejectedCode, message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Refused(Refusal {
        code,
        message: message.into(),
        state: None,
    }))
}

fn refuse_with<T>(code: RejectedCode, message: String, execution: &Execution) -> Result<T, Stop> {
    Err(Stop::Refused(Refusal {
        code,
        message,
        state: Some(execution.state()),
    }))
}

/// What was asked.
enum Request<'a> {
    GetPending,
    StartNext,
    /// The job, and the namespace that is spoken of.
    Describe(&'a str, Option<&'a str>),
    Update(&'a str, Option<&'a str>),
}

/// The thing and the rest of a jobs topic.
pub(super) fn split(topic: &str) -> Option<(&str, &str)> {
    topic.strip_prefix("$aws/things/")?.split_once("/jobs/")
}

fn request(rest: &str) -> Option<Request<'_>> {
    let parts: Vec<&str> = rest.split('/').collect();
    match parts[..] {
        ["get"] => Some(Request::GetPending),
        ["start-next"] => Some(Request::StartNext),
        [job, "get"] => Some(Request::Describe(job, None)),
        [job, "update"] => Some(Request::Update(job, None)),
        [job, namespace, verb] => {
            let namespace = namespace.strip_prefix("namespace-");
            match verb {
                "get" => namespace.map(|_| Request::Describe(job, namespace)),
                "update" => namespace.map(|_| Request::Update(job, namespace)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Answers one request by the device that is `thing`. Its answer must be sent only once `changes` is
/// durable.
///
/// # Errors
/// Only where the store fails; whatever is wrong with the request is an answer.
pub(super) fn handle(
    changes: &mut Changes<'_>,
    thing: Option<&str>,
    topic: &str,
    payload: &[u8],
) -> Result<Message, Error> {
    let value = read(payload);
    let token = value
        .as_ref()
        .ok()
        .and_then(|value| value.get("clientToken")?.as_str())
        .map(str::to_owned);
    let answer = value
        .map_err(Stop::Refused)
        .and_then(|value| answer(changes, thing, topic, value));
    let refusal = match answer {
        Ok(payload) => {
            return Ok(Message {
                topic: format!("{topic}/accepted"),
                payload,
            });
        }
        Err(Stop::Failed(error)) => return Err(error),
        Err(Stop::Refused(refusal)) => refusal,
    };
    rejected(topic, refusal, token, changes.now.seconds)
}

/// The answer to a request that could not be looked at.
pub(super) fn turned_away(topic: &str, refusal: Refusal, now: u64) -> Result<Message, Error> {
    rejected(topic, refusal, None, now)
}

fn rejected(
    topic: &str,
    refusal: Refusal,
    token: Option<String>,
    now: u64,
) -> Result<Message, Error> {
    let rejected = Rejected {
        code: refusal.code,
        message: refusal.message,
        client_token: token.filter(|token| token.len() <= MAX_CLIENT_TOKEN_BYTES),
        timestamp: now,
        execution_state: refusal.state,
    };
    Ok(Message {
        topic: format!("{topic}/rejected"),
        payload: written(&rejected)?,
    })
}

fn written(answer: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(answer).map_err(|error| Error::Malformed {
        what: "answer",
        why: error.to_string(),
    })
}

/// What is longer is not even queued.
pub(super) fn check_length(payload: &[u8]) -> Result<(), Refusal> {
    if payload.len() <= MAX_REQUEST_BYTES {
        return Ok(());
    }
    let message = format!(
        "the request has {} bytes; at most {MAX_REQUEST_BYTES} are read",
        payload.len()
    );
    Err(Refusal::new(RejectedCode::InvalidRequest, message))
}

/// No payload at all counts as `{}`: devices that have nothing to say often say nothing.
fn read(payload: &[u8]) -> Result<Value, Refusal> {
    check_length(payload)?;
    let payload = if payload.is_empty() { b"{}" } else { payload };
    serde_json::from_slice(payload).map_err(|error| {
        Refusal::new(
            RejectedCode::InvalidJson,
            format!("the request is not JSON: {error}"),
        )
    })
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, Stop> {
    if !value.is_object() {
        return refuse(
            RejectedCode::InvalidRequest,
            "the request is not a JSON object",
        );
    }
    serde_json::from_value(value)
        .or_else(|error| refuse(RejectedCode::InvalidRequest, error.to_string()))
}

fn checked(
    token: Option<&String>,
    details: Option<&StatusDetails>,
    timeout: Option<i64>,
) -> Result<(), Stop> {
    if token.is_some_and(|token| token.len() > MAX_CLIENT_TOKEN_BYTES) {
        let message = format!("clientToken has more than {MAX_CLIENT_TOKEN_BYTES} bytes");
        return refuse(RejectedCode::InvalidRequest, message);
    }
    if let Some(message) = details.and_then(|details| check_details(details).err()) {
        return refuse(RejectedCode::InvalidRequest, message);
    }
    if timeout.is_some_and(|minutes| minutes != -1 && !(1..=MAX_TIMEOUT_MINUTES).contains(&minutes))
    {
        let message = format!("stepTimeoutInMinutes is 1 to {MAX_TIMEOUT_MINUTES}, or -1 for none");
        return refuse(RejectedCode::InvalidRequest, message);
    }
    Ok(())
}

/// The step timer after a request that asked for `minutes`.
fn step(execution: &mut Execution, minutes: Option<i64>, now: u64) {
    match minutes.map(u64::try_from) {
        None => {}
        Some(Err(_)) => execution.step_deadline = None,
        Some(Ok(minutes)) => execution.step_deadline = Some(now.saturating_add(minutes * 60)),
    }
}

fn answer(
    changes: &mut Changes<'_>,
    thing: Option<&str>,
    topic: &str,
    value: Value,
) -> Result<Vec<u8>, Stop> {
    let Some((named, rest)) = split(topic) else {
        return refuse(RejectedCode::InvalidTopic, "not a jobs topic");
    };
    // Whatever the policy says, a device's jobs are its own: the thing is the certificate's, not the topic's.
    let Some(thing) = thing.filter(|thing| *thing == named) else {
        return refuse(
            RejectedCode::ResourceNotFound,
            "this certificate is not that thing's",
        );
    };
    match request(rest) {
        Some(Request::GetPending) => get_pending(changes, thing, parse(value)?),
        Some(Request::StartNext) => start_next(changes, thing, parse(value)?),
        Some(Request::Describe(job, namespace)) => {
            let queue = list_of(thing, namespace);
            describe(changes, &queue, job, parse(value)?)
        }
        Some(Request::Update(job, namespace)) => {
            let queue = list_of(thing, namespace);
            update(changes, &queue, job, parse(value)?)
        }
        None => refuse(RejectedCode::InvalidTopic, "no operation has this topic"),
    }
}

fn list_of(thing: &str, namespace: Option<&str>) -> Queue {
    Queue {
        thing: thing.to_owned(),
        namespace: namespace.map(str::to_owned),
    }
}

fn get_pending(
    changes: &mut Changes<'_>,
    thing: &str,
    request: GetPendingRequest,
) -> Result<Vec<u8>, Stop> {
    checked(request.client_token.as_ref(), None, None)?;
    let queue = list_of(thing, None);
    changes.take_back(&queue)?;
    let mut list = changes.list(&queue, MAX_LISTED)?;
    list.client_token = request.client_token;
    Ok(written(&list)?)
}

fn start_next(
    changes: &mut Changes<'_>,
    thing: &str,
    request: StartNextRequest,
) -> Result<Vec<u8>, Stop> {
    let timeout = request.step_timeout_in_minutes;
    checked(
        request.client_token.as_ref(),
        request.status_details.as_ref(),
        timeout,
    )?;
    let now = changes.now.seconds;
    changes.said_to_run(thing, request.status_details.as_ref())?;
    changes.said_to_refuse(thing, request.status_details.as_ref())?;
    let queue = list_of(thing, None);
    changes.take_back(&queue)?;
    let execution = match changes.head(&queue)? {
        None => None,
        // One in progress is given again as it is: starting twice changes nothing.
        Some(head) if head.status == ExecutionStatus::InProgress => Some(head),
        Some(head) => Some(changes.update(&head, |execution| {
            execution.status = ExecutionStatus::InProgress;
            execution.details = request.status_details.or(execution.details.take());
            step(execution, timeout, now);
        })?),
    };
    let execution = execution
        .map(|execution| changes.shown(&execution, true))
        .transpose()?;
    Ok(written(&ExecutionResponse {
        execution,
        timestamp: now,
        client_token: request.client_token,
    })?)
}

fn describe(
    changes: &mut Changes<'_>,
    queue: &Queue,
    job: &str,
    request: DescribeRequest,
) -> Result<Vec<u8>, Stop> {
    checked(request.client_token.as_ref(), None, None)?;
    let with_document = request.include_job_document.unwrap_or(true);
    let execution = if job == "$next" {
        changes.take_back(queue)?;
        changes.head(queue)?
    } else {
        let execution = find(changes, queue, job, request.execution_number)?;
        if execution.status.is_terminal() {
            let message = format!("the execution of job {job} is {}", execution.status);
            return refuse(RejectedCode::TerminalStateReached, message);
        }
        open_now(&execution, changes.now.seconds)?;
        Some(execution)
    };
    let execution = execution
        .map(|execution| changes.shown(&execution, with_document))
        .transpose()?;
    let timestamp = changes.now.seconds;
    Ok(written(&ExecutionResponse {
        execution,
        timestamp,
        client_token: request.client_token,
    })?)
}

/// A job of a namespace is found under its own topics and, as over HTTPS there are no others, under those of the
/// thing; under another namespace's it is not there.
fn find(
    changes: &mut Changes<'_>,
    queue: &Queue,
    job: &str,
    number: Option<u64>,
) -> Result<Execution, Stop> {
    let Ok(id) = job.parse::<JobId>() else {
        return refuse(RejectedCode::InvalidTopic, "not a job id");
    };
    let known = |execution: &Execution| {
        number.is_none_or(|number| number == execution.number)
            && (queue.namespace.is_none() || queue.namespace == execution.namespace)
    };
    changes.take_back_job(&id, &queue.thing)?;
    let mut found = changes.execution(&id, &queue.thing)?;
    if let (Some(number), Some(newest)) = (number, &found)
        && number < newest.number
    {
        found = changes.earlier_try(&id, &queue.thing, number)?;
    }
    match found.filter(known) {
        Some(execution) => Ok(execution),
        None => refuse(
            RejectedCode::ResourceNotFound,
            format!("this thing has no execution of job {id}"),
        ),
    }
}

/// Refuses an execution whose window has closed or whose rollout is paused: to the device it is not there
/// until it is offered again.
fn open_now(execution: &Execution, now: u64) -> Result<(), Stop> {
    if execution.is_shut(now) {
        let why = if execution.until == Some(HELD) {
            "held now: its rollout is paused"
        } else {
            "outside its window now"
        };
        let message = format!("job {} is {why}", execution.job);
        return refuse(RejectedCode::ResourceNotFound, message);
    }
    Ok(())
}

fn update(
    changes: &mut Changes<'_>,
    queue: &Queue,
    job: &str,
    request: UpdateRequest,
) -> Result<Vec<u8>, Stop> {
    let timeout = request.step_timeout_in_minutes;
    checked(
        request.client_token.as_ref(),
        request.status_details.as_ref(),
        timeout,
    )?;
    let execution = find(changes, queue, job, request.execution_number)?;
    if let Some(expected) = request
        .expected_version
        .filter(|expected| *expected != execution.version_number)
    {
        let message = format!(
            "the execution has version {}, not {expected}",
            execution.version_number
        );
        return refuse_with(RejectedCode::VersionMismatch, message, &execution);
    }
    // What began in its window is heard after it too, once it can no more be put off.
    let said = request.status_details.as_ref();
    let put_off = request.status == ExecutionStatus::InProgress
        && said.is_none_or(|said| is_downloading(Some(said)));
    if execution.started_at.is_none() || put_off {
        open_now(&execution, changes.now.seconds)?;
    }
    let by_device = matches!(
        request.status,
        ExecutionStatus::InProgress
            | ExecutionStatus::Succeeded
            | ExecutionStatus::Failed
            | ExecutionStatus::Rejected
    );
    let given_up = matches!(
        execution.status,
        ExecutionStatus::TimedOut | ExecutionStatus::Canceled
    );
    if given_up && request.status == ExecutionStatus::Succeeded {
        changes.learn(&execution)?;
    }
    if execution.status.is_terminal() || !by_device {
        let message = format!(
            "an execution that is {} cannot become {}",
            execution.status, request.status
        );
        return refuse_with(RejectedCode::InvalidStateTransition, message, &execution);
    }
    let now = changes.now.seconds;
    let said = request.status_details.clone();
    let execution = changes.update(&execution, |execution| {
        execution.status = request.status;
        execution.details = request.status_details.or(execution.details.take());
        step(execution, timeout, now);
    })?;
    // After it: an install that succeeded says what it brought.
    changes.said_to_run(&queue.thing, said.as_ref())?;
    let with_document = request.include_job_document == Some(true);
    let answer = UpdateResponse {
        execution_state: (request.include_job_execution_state == Some(true))
            .then(|| execution.state()),
        job_document: if with_document {
            changes.document(&execution)?
        } else {
            None
        },
        timestamp: now,
        client_token: request.client_token,
    };
    Ok(written(&answer)?)
}
