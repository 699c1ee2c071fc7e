//! AWS IoT Jobs as a device speaks them: topics, requests, and what comes back.
//!
//! Whatever arrives is the server's word only: nothing here is believed about an image.

use ota::JobId;
use ota::job::{INSTALL_OPERATION, MAX_DETAIL_VALUE_BYTES, is_unprintable};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::update::{Ending, Finished, Installed, JobKey, Order, Report};

/// The largest message that is looked at; a job document may have 32 KiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// The filters a device listens on. The server answers the asker whether or not it listens.
#[must_use]
pub(crate) fn filters(thing: &str) -> [String; 4] {
    ["notify-next", "start-next/+", "+/get/+", "+/update/+"]
        .map(|filter| format!("$aws/things/{thing}/jobs/{filter}"))
}

/// A job execution as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Execution {
    /// Which.
    pub job: JobKey,
    /// AWS's status name.
    pub status: String,
    /// What it asks for, or why that cannot be followed.
    pub order: Result<Order, String>,
    /// When the server said so, by its own clock (seconds since 1970).
    pub said_at: Option<u64>,
}

impl Execution {
    /// Whether it still waits for this device.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "QUEUED" | "IN_PROGRESS")
    }
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The head of the device's queue changed (`notify-next`).
    Next(Option<JobKey>),
    /// The answer to [`ask`]: a job begun, or none.
    Started(Option<Execution>),
    /// The answer to [`describe`].
    Described(Execution),
    /// A job asked about does not exist (any more).
    Gone(String),
    /// A report was taken.
    Taken {
        /// About which execution.
        job: JobKey,
        /// Whether it was the final one.
        last: bool,
    },
    /// A report was refused.
    Refused {
        /// About which execution.
        job: JobKey,
        /// Whether it was the final one.
        last: bool,
        /// AWS's error code.
        code: String,
        /// In words.
        message: String,
    },
    /// A request other than a report was refused.
    AskRefused {
        /// AWS's error code.
        code: String,
        /// In words.
        message: String,
    },
}

/// Codes after which the same report would be refused for ever.
#[must_use]
pub(crate) fn is_final_refusal(code: &str) -> bool {
    !matches!(code, "RequestThrottled" | "InternalError")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecutionBody {
    job_id: String,
    #[serde(default)]
    status: String,
    #[serde(default = "one")]
    execution_number: u64,
    #[serde(default)]
    job_document: Value,
}

fn one() -> u64 {
    1
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    execution: Option<ExecutionBody>,
    #[serde(default)]
    timestamp: Option<u64>,
    #[serde(default)]
    client_token: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl ExecutionBody {
    fn key(&self) -> Option<JobKey> {
        is_job_id(&self.job_id).then(|| JobKey {
            id: self.job_id.clone(),
            execution: self.execution_number,
        })
    }

    fn read(self, said_at: Option<u64>) -> Option<Execution> {
        let job = self.key()?;
        Some(Execution {
            job,
            status: self.status,
            order: read_order(&self.job_document),
            said_at,
        })
    }
}

/// Nothing but a job id becomes part of a topic.
fn is_job_id(id: &str) -> bool {
    id.parse::<JobId>().is_ok()
}

/// Reads a message; `None` for what is not for this device or not understood.
#[must_use]
pub(crate) fn read(thing: &str, topic: &str, payload: &[u8]) -> Option<Incoming> {
    let rest = topic
        .strip_prefix("$aws/things/")?
        .strip_prefix(thing)?
        .strip_prefix("/jobs/")?;
    if payload.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let body: Body = serde_json::from_slice(payload).ok()?;
    let mut levels = rest.split('/');
    match (levels.next()?, levels.next(), levels.next(), levels.next()) {
        ("notify-next", None, ..) => Some(Incoming::Next(body.execution.and_then(|e| e.key()))),
        ("start-next", Some("accepted"), None, _) => Some(Incoming::Started(
            body.execution.and_then(|begun| begun.read(body.timestamp)),
        )),
        ("start-next", Some("rejected"), None, _)
        | ("$next", Some("get"), Some("rejected"), None) => Some(Incoming::AskRefused {
            code: body.code,
            message: body.message,
        }),
        (_, Some("get"), Some("accepted"), None) => body
            .execution
            .and_then(|found| found.read(body.timestamp))
            .map(Incoming::Described),
        (id, Some("get"), Some("rejected"), None) => Some(match body.code.as_str() {
            "ResourceNotFound" | "TerminalStateReached" => Incoming::Gone(id.to_string()),
            _ => Incoming::AskRefused {
                code: body.code,
                message: body.message,
            },
        }),
        (id, Some("update"), Some(answer @ ("accepted" | "rejected")), None) => {
            let (last, execution) = read_token(&body.client_token)?;
            let job = JobKey {
                id: id.to_string(),
                execution,
            };
            Some(if answer == "accepted" {
                Incoming::Taken { job, last }
            } else {
                Incoming::Refused {
                    job,
                    last,
                    code: body.code,
                    message: body.message,
                }
            })
        }
        _ => None,
    }
}

/// Reads a job document; `Err` says in words why this agent cannot follow it.
///
/// # Errors
/// The words for the server's report.
pub(crate) fn read_order(document: &Value) -> Result<Order, String> {
    match Order::read(document) {
        Ok(Some(order)) => Ok(order),
        Ok(None) => {
            let operation = document
                .get("operation")
                .and_then(Value::as_str)
                .unwrap_or_default();
            Err(format!(
                "operation {:?} is not known here; this agent carries out {INSTALL_OPERATION:?}",
                bounded(operation, 64)
            ))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A request: topic and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
}

fn request(thing: &str, rest: &str, payload: &Value) -> Request {
    Request {
        topic: format!("$aws/things/{thing}/jobs/{rest}"),
        payload: payload.to_string().into_bytes(),
    }
}

/// Most refusals that are told with a question, and how long their words are.
const REFUSALS_TOLD: usize = 3;
const REFUSAL_BYTES_MAX: usize = 160;

/// What was not installed here lately, the newest first, whoever ordered it and whoever took the report: a server that was
/// stolen, or another in its place, keeps such reports to itself.
fn refusals<'f>(finished: impl DoubleEndedIterator<Item = &'f Finished>) -> Option<String> {
    let refused = finished.rev().filter(|job| job.outcome.is_refusal());
    let mut told: Vec<Value> = refused
        .take(REFUSALS_TOLD)
        .map(|job| {
            let reason = printable(&job.outcome.reason);
            json!({"job": job.job.id, "execution": job.job.execution, "reason": bounded(&reason, REFUSAL_BYTES_MAX)})
        })
        .collect();
    // Words full of quotes are longer as JSON.
    while !told.is_empty() {
        let said = Value::from(told.clone()).to_string();
        if said.len() <= MAX_DETAIL_VALUE_BYTES {
            return Some(said);
        }
        told.pop();
    }
    None
}

/// Asks for the next job and begins it; says what runs here and how it is, and what was refused.
#[must_use]
pub(crate) fn ask<'f>(
    thing: &str,
    runs: Option<&Installed>,
    health: Option<&str>,
    finished: impl DoubleEndedIterator<Item = &'f Finished>,
) -> Request {
    let mut details = json!({"step": "downloading"});
    if let (Some(details), Some(refused)) = (details.as_object_mut(), refusals(finished)) {
        details.insert("refused".into(), refused.into());
    }
    if let (Some(details), Some(runs)) = (details.as_object_mut(), runs) {
        details.insert("firmwareName".into(), runs.name.as_str().into());
        details.insert("firmwareVersion".into(), runs.version.as_str().into());
        if let Some(health) = health {
            details.insert("health".into(), printable(health).into());
        }
    }
    let body = json!({"clientToken": "next", "statusDetails": details});
    request(thing, "start-next", &body)
}

/// Asks how an execution stands.
#[must_use]
pub(crate) fn describe(thing: &str, job: &JobKey) -> Request {
    let body = json!({"clientToken": "how", "includeJobDocument": false});
    request(thing, &format!("{}/get", job.id), &body)
}

/// Tells how an execution stands.
#[must_use]
pub(crate) fn report(thing: &str, report: &Report) -> Request {
    let status = match report.ending {
        None => "IN_PROGRESS",
        Some(Ending::Succeeded) => "SUCCEEDED",
        Some(Ending::Failed) => "FAILED",
        Some(Ending::Rejected) => "REJECTED",
    };
    let mut details = json!({"step": report.step.as_str()});
    let reason = printable(&report.reason);
    if let Some(details) = details.as_object_mut()
        && !reason.is_empty()
    {
        details.insert("reason".into(), reason.into());
    }
    let body = json!({
        "status": status,
        "statusDetails": details,
        "executionNumber": report.job.execution,
        "clientToken": token(report),
    });
    request(thing, &format!("{}/update", report.job.id), &body)
}

/// The token by which the answer to a report is known: whether it was the final one, and of
/// which execution.
fn token(report: &Report) -> String {
    let kind = if report.ending.is_some() {
        "final"
    } else {
        "progress"
    };
    format!("{kind}-{}", report.job.execution)
}

fn read_token(token: &str) -> Option<(bool, u64)> {
    let (kind, execution) = token.split_once('-')?;
    let last = match kind {
        "final" => true,
        "progress" => false,
        _ => return None,
    };
    Some((last, execution.parse().ok()?))
}

/// What AWS takes as a `statusDetails` value: no control characters, at most
/// [`MAX_DETAIL_VALUE_BYTES`].
fn printable(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if is_unprintable(c) { ' ' } else { c })
        .collect();
    bounded(text.trim(), MAX_DETAIL_VALUE_BYTES).to_string()
}

fn bounded(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::update::{Outcome, Step};

    fn document() -> Value {
        json!({
            "operation": "muster.install-firmware", "name": "lamp", "version": "1.1.0",
            "manifest": "/firmware/lamp/1.1.0/manifest.json",
            "image": "/firmware/lamp/1.1.0/image", "rollout": "r-1"
        })
    }

    fn key() -> JobKey {
        JobKey {
            id: "job-1".into(),
            execution: 2,
        }
    }

    #[test]
    fn the_answer_to_start_next_is_an_order() {
        let body = json!({"execution": {"jobId": "job-1", "status": "IN_PROGRESS",
            "executionNumber": 2, "versionNumber": 3, "jobDocument": document()},
            "timestamp": 1, "clientToken": "next"});
        let read = read(
            "lamp-1",
            "$aws/things/lamp-1/jobs/start-next/accepted",
            body.to_string().as_bytes(),
        );
        let Some(Incoming::Started(Some(execution))) = read else {
            panic!("{read:?}")
        };
        assert_eq!(execution.job, key());
        assert!(execution.is_open());
        assert_eq!(execution.said_at, Some(1));
        assert_eq!(
            execution.order.unwrap().manifest,
            "/firmware/lamp/1.1.0/manifest.json"
        );
    }

    #[test]
    fn no_execution_means_no_job() {
        for (topic, expected) in [
            (
                "$aws/things/lamp-1/jobs/start-next/accepted",
                Incoming::Started(None),
            ),
            ("$aws/things/lamp-1/jobs/notify-next", Incoming::Next(None)),
        ] {
            assert_eq!(read("lamp-1", topic, br#"{"timestamp":1}"#), Some(expected));
        }
    }

    #[test]
    fn what_belongs_to_another_thing_or_is_no_json_is_nothing() {
        for (topic, payload) in [
            ("$aws/things/lamp-10/jobs/notify-next", "{}"),
            ("$aws/things/lamp-1/shadow/get/accepted", "{}"),
            ("cmd/lamp-1/x", "{}"),
            ("$aws/things/lamp-1/jobs/notify-next", "{"),
            ("$aws/things/lamp-1/jobs/job-1/update/accepted", "{}"),
        ] {
            assert_eq!(
                read("lamp-1", topic, payload.as_bytes()),
                None,
                "{topic} {payload}"
            );
        }
        let long = format!("{{\"x\":\"{}\"}}", "x".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(
            read(
                "lamp-1",
                "$aws/things/lamp-1/jobs/notify-next",
                long.as_bytes()
            ),
            None
        );
    }

    #[test]
    fn a_job_id_that_would_bend_a_topic_is_no_job() {
        for id in ["", "a/b", "+", "#", "a b", "$next", &"x".repeat(65)] {
            let body = json!({"execution": {"jobId": id, "jobDocument": document()}});
            let topic = "$aws/things/t/jobs/start-next/accepted";
            let read = read("t", topic, body.to_string().as_bytes());
            assert_eq!(read, Some(Incoming::Started(None)), "{id}");
        }
    }

    #[test]
    fn a_document_that_cannot_be_followed_says_why() {
        let refusal = |field: &str, value: Value| {
            let mut document = document();
            document[field] = value;
            read_order(&document).unwrap_err()
        };
        assert!(refusal("operation", json!("reboot")).contains("reboot"));
        assert!(refusal("name", json!("")).contains("name"));
        assert!(refusal("manifest", json!("//evil/firmware/x")).contains("manifest"));
        assert!(refusal("image", json!("/firmware/../x")).contains("image"));
        assert!(refusal("version", json!(7)).contains("install job"));
        assert!(read_order(&json!("text")).is_err());
        assert!(!read_order(&document()).unwrap().rollback);
    }

    #[test]
    fn a_report_and_its_answer_find_each_other() {
        let told = Report {
            job: key(),
            ending: Some(Ending::Failed),
            step: Step::FellBack,
            reason: "exit 1:\nno radio\u{7}".into(),
        };
        let request = report("lamp-1", &told);
        assert_eq!(request.topic, "$aws/things/lamp-1/jobs/job-1/update");
        let body: Value = serde_json::from_slice(&request.payload).unwrap();
        assert_eq!(
            body,
            json!({"status": "FAILED", "executionNumber": 2, "clientToken": "final-2",
                   "statusDetails": {"step": "fell-back", "reason": "exit 1: no radio"}})
        );
        let answer = br#"{"timestamp":1,"clientToken":"final-2"}"#;
        assert_eq!(
            read(
                "lamp-1",
                "$aws/things/lamp-1/jobs/job-1/update/accepted",
                answer
            ),
            Some(Incoming::Taken {
                job: key(),
                last: true
            })
        );
        let answer = br#"{"code":"TerminalStateReached","message":"x","clientToken":"progress-2"}"#;
        let refused = read(
            "lamp-1",
            "$aws/things/lamp-1/jobs/job-1/update/rejected",
            answer,
        );
        assert!(
            matches!(refused, Some(Incoming::Refused { last: false, .. })),
            "{refused:?}"
        );
        assert!(is_final_refusal("TerminalStateReached") && !is_final_refusal("RequestThrottled"));
    }

    #[test]
    fn refusals_are_told_with_the_next_question_the_newest_first() {
        let ended = |id: &str, ending, step, reason: &str| Finished {
            job: JobKey {
                id: id.into(),
                execution: 1,
            },
            outcome: Outcome {
                ending,
                step,
                reason: reason.into(),
            },
            reported: true,
        };
        let told = |finished: &[Finished]| {
            let request = ask("lamp-1", None, None, finished.iter());
            let body: Value = serde_json::from_slice(&request.payload).unwrap();
            body["statusDetails"]["refused"].as_str().map(str::to_owned)
        };
        let rejected = |id: &str, why: &str| ended(id, Ending::Rejected, Step::Downloading, why);
        let mut finished = vec![
            ended("good", Ending::Succeeded, Step::Confirmed, ""),
            ended("dark", Ending::Failed, Step::FellBack, "dark"),
        ];
        assert_eq!(told(&finished), None, "what was tried here was no refusal");
        finished.extend([
            ended(
                "spoilt",
                Ending::Failed,
                Step::Downloading,
                "a chunk is spoilt",
            ),
            rejected("alien", "not trusted"),
        ]);
        assert_eq!(
            told(&finished).unwrap(),
            concat!(
                r#"[{"execution":1,"job":"alien","reason":"not trusted"},"#,
                r#"{"execution":1,"job":"spoilt","reason":"a chunk is spoilt"}]"#
            )
        );
        let wordy = "\"\\".repeat(600);
        finished.extend((0..9).map(|n| rejected(&format!("{n}").repeat(60), &wordy)));
        let most = told(&finished).unwrap();
        assert!(
            most.contains("88888888") && most.len() <= MAX_DETAIL_VALUE_BYTES,
            "{most}"
        );
    }

    proptest! {
        #[test]
        fn no_reason_breaks_the_bound_of_a_status_value(reason in "\\PC{0,2000}|[\\x00-\\x20é€]{0,900}") {
            let value = printable(&reason);
            prop_assert!(value.len() <= MAX_DETAIL_VALUE_BYTES);
            prop_assert!(!value.chars().any(is_unprintable));
        }

        #[test]
        fn no_message_makes_trouble(rest in "[a-z$+/-]{0,40}", payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read("t", &format!("$aws/things/t/jobs/{rest}"), &payload);
        }
    }
}
