//! AWS IoT Jobs as devices speak them: message shapes of `$aws/things/<thing>/jobs/…`, field for field,
//! and the document of our own install jobs. Times are whole seconds since 1970.

pub mod config;
mod document;
mod install;
pub mod managed;
pub mod placeholder;

use std::collections::BTreeMap;

pub use document::Document;
pub use install::{INSTALL_OPERATION, InstallDocument};
use serde::{Deserialize, Serialize};

use crate::JobId;

/// Largest job document.
pub const MAX_DOCUMENT_BYTES: usize = 32 * 1024;
/// Most pairs in `statusDetails`.
pub const MAX_DETAILS: usize = 10;
/// Longest key in `statusDetails`.
pub const MAX_DETAIL_KEY_BYTES: usize = 128;
/// Longest value in `statusDetails`.
pub const MAX_DETAIL_VALUE_BYTES: usize = 1024;
/// Longest `clientToken`.
pub const MAX_CLIENT_TOKEN_BYTES: usize = 64;
/// `stepTimeoutInMinutes` and a job's in-progress timeout: 1 minute to 7 days.
pub const MAX_TIMEOUT_MINUTES: i64 = 10_080;
/// Where one thing's part of a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionStatus {
    /// The device has not begun.
    Queued,
    /// The device is at it.
    InProgress,
    /// Done.
    Succeeded,
    /// The device says it went wrong.
    Failed,
    /// The device did not finish in time.
    TimedOut,
    /// The device will not do it.
    Rejected,
    /// The thing is no longer a target.
    Removed,
    /// An operator or an abort rule ended it.
    Canceled,
}

impl ExecutionStatus {
    /// Whether it stays so.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress)
    }

    /// What counts as failed for an abort rule: failed, timed out, rejected.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::Rejected)
    }
}

impl std::fmt::Display for ExecutionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queued => "QUEUED",
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Rejected => "REJECTED",
            Self::Removed => "REMOVED",
            Self::Canceled => "CANCELED",
        })
    }
}

/// `statusDetails`: what the device says about its progress.
pub type StatusDetails = BTreeMap<String, String>;

/// A job execution as a device sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobExecution {
    /// The job.
    pub job_id: String,
    /// The thing.
    pub thing_name: String,
    /// What to do; left out where the request asked so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_document: Option<Document>,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What the device said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// When it was queued.
    pub queued_at: u64,
    /// When the device began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// When it last changed.
    pub last_updated_at: u64,
    /// Counts the changes, from 1.
    pub version_number: u64,
    /// Tells executions of one job on one thing apart.
    pub execution_number: u64,
    /// Seconds left before it times out, where a timer runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approximate_seconds_before_timed_out: Option<u64>,
}

/// A line of a list of executions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobExecutionSummary {
    /// The job.
    pub job_id: String,
    /// When it was queued.
    pub queued_at: u64,
    /// When the device began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// When it last changed.
    pub last_updated_at: u64,
    /// Counts the changes, from 1.
    pub version_number: u64,
    /// Tells executions of one job on one thing apart.
    pub execution_number: u64,
}

/// The state part of an execution, as an update's answer carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobExecutionState {
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What the device said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// Counts the changes, from 1.
    pub version_number: u64,
}

/// Request to `jobs/get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GetPendingRequest {
    /// Comes back in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Answer to `jobs/get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetPendingResponse {
    /// Begun, oldest first.
    pub in_progress_jobs: Vec<JobExecutionSummary>,
    /// Not begun, oldest first.
    pub queued_jobs: Vec<JobExecutionSummary>,
    /// When this was so.
    pub timestamp: u64,
    /// From the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Request to `jobs/start-next`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartNextRequest {
    /// What to record with the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// Starts a step timer; -1 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_timeout_in_minutes: Option<i64>,
    /// Comes back in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Request to `jobs/<jobId>/get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DescribeRequest {
    /// Which execution; the newest where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_number: Option<u64>,
    /// Whether the document is wanted; yes where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_job_document: Option<bool>,
    /// Comes back in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Answer to `start-next` and `<jobId>/get`; no `execution` where there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionResponse {
    /// The execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<JobExecution>,
    /// When this was so.
    pub timestamp: u64,
    /// From the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Request to `jobs/<jobId>/update`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateRequest {
    /// The new status.
    pub status: ExecutionStatus,
    /// Replaces what was said before; absent leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// The `versionNumber` the device believes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// Which execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_number: Option<u64>,
    /// Whether the answer shall carry the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_job_execution_state: Option<bool>,
    /// Whether the answer shall carry the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_job_document: Option<bool>,
    /// Starts a step timer; -1 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_timeout_in_minutes: Option<i64>,
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Answer to `jobs/<jobId>/update`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateResponse {
    /// Where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_state: Option<JobExecutionState>,
    /// Where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_document: Option<Document>,
    /// When this was so.
    pub timestamp: u64,
    /// From the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Published on `jobs/notify` when the list of pending executions changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyMessage {
    /// The first executions of each pending status; none at all where nothing is pending.
    pub jobs: BTreeMap<ExecutionStatus, Vec<JobExecutionSummary>>,
    /// When this was so.
    pub timestamp: u64,
}

/// Published on `jobs/notify-next` when another execution is the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotifyNextMessage {
    /// The next execution; absent where nothing is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<JobExecution>,
    /// When this was so.
    pub timestamp: u64,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectedCode {
    /// No such operation.
    InvalidTopic,
    /// The payload is no JSON.
    InvalidJson,
    /// The payload is not what the operation takes.
    InvalidRequest,
    /// The execution cannot go from its status to that one.
    InvalidStateTransition,
    /// No such execution.
    ResourceNotFound,
    /// `expectedVersion` is not the version.
    VersionMismatch,
    /// The server failed.
    InternalError,
    /// Too many requests at once.
    RequestThrottled,
    /// The execution is over.
    TerminalStateReached,
}

/// Sent on `…/rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Why.
    pub code: RejectedCode,
    /// Why, for people.
    pub message: String,
    /// From the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// When.
    pub timestamp: u64,
    /// How the execution stands, with `VersionMismatch` and `InvalidStateTransition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_state: Option<JobExecutionState>,
}

/// `true` for what a value of `statusDetails` may not have, `\p{C}` in AWS's pattern `[^\p{C}]+`: control and format
/// characters, private use and non-characters. What Unicode has not assigned yet is let through: that changes by version.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether `details` keep their bounds and AWS's patterns; the error names the first that does not.
///
/// # Errors
/// What a `Rejected` message should say.
pub fn check_details(details: &StatusDetails) -> Result<(), String> {
    if details.len() > MAX_DETAILS {
        return Err(format!(
            "statusDetails has {} pairs; at most {MAX_DETAILS} are kept",
            details.len()
        ));
    }
    for (key, value) in details {
        if key.is_empty() || key.len() > MAX_DETAIL_KEY_BYTES {
            return Err(format!(
                "a statusDetails key has {} bytes; 1 to {MAX_DETAIL_KEY_BYTES} are possible",
                key.len()
            ));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
        if let Some(c) = key.chars().find(|c| !fits(*c)) {
            return Err(format!(
                "the statusDetails key `{}` has the character {c:?}; letters, digits, `:`, `_` and `-` are possible",
                key.escape_debug()
            ));
        }
        if let Some(c) = value.chars().find(|c| is_unprintable(*c)) {
            return Err(format!(
                "the statusDetails value of `{key}` has the character {}, which shows nothing or moves what is shown; leave it out",
                c.escape_unicode()
            ));
        }
        if value.is_empty() || value.len() > MAX_DETAIL_VALUE_BYTES {
            return Err(format!(
                "the statusDetails value of `{}` has {} bytes; 1 to {MAX_DETAIL_VALUE_BYTES} are possible",
                key.escape_debug(),
                value.len()
            ));
        }
    }
    Ok(())
}

/// The topic of one of a thing's job messages: `$aws/things/<thing>/jobs/<rest>`.
#[must_use]
pub fn topic(thing: &str, rest: &str) -> String {
    format!("$aws/things/{thing}/jobs/{rest}")
}

/// `true` for what can stand as a job id in a topic: a [`JobId`] or `$next`.
#[must_use]
pub fn is_job_segment(segment: &str) -> bool {
    segment == "$next" || segment.parse::<JobId>().is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_have_the_field_names_devices_know() {
        let execution = JobExecution {
            job_id: "j1".into(),
            thing_name: "lamp-1".into(),
            job_document: Some(Document::of(r#"{"operation": "x"}"#.into()).unwrap()),
            status: ExecutionStatus::InProgress,
            status_details: Some(StatusDetails::from([("step".into(), "trial".into())])),
            queued_at: 1,
            started_at: Some(2),
            last_updated_at: 3,
            version_number: 4,
            execution_number: 1,
            approximate_seconds_before_timed_out: Some(60),
        };
        assert_eq!(
            serde_json::to_value(&execution).unwrap(),
            json!({
                "jobId": "j1", "thingName": "lamp-1", "jobDocument": {"operation": "x"}, "status": "IN_PROGRESS",
                "statusDetails": {"step": "trial"}, "queuedAt": 1, "startedAt": 2, "lastUpdatedAt": 3,
                "versionNumber": 4, "executionNumber": 1, "approximateSecondsBeforeTimedOut": 60
            })
        );
        let rejected = Rejected {
            code: RejectedCode::VersionMismatch,
            message: "m".into(),
            client_token: Some("t".into()),
            timestamp: 9,
            execution_state: None,
        };
        assert_eq!(
            serde_json::to_value(&rejected).unwrap(),
            json!({"code": "VersionMismatch", "message": "m", "clientToken": "t", "timestamp": 9})
        );
        let none = ExecutionResponse {
            execution: None,
            timestamp: 9,
            client_token: None,
        };
        assert_eq!(
            serde_json::to_value(&none).unwrap(),
            json!({"timestamp": 9})
        );
        let update: UpdateRequest = serde_json::from_value(json!({
            "status": "TIMED_OUT", "expectedVersion": 2, "includeJobExecutionState": true, "stepTimeoutInMinutes": -1
        })).unwrap();
        assert_eq!(
            (update.status, update.expected_version),
            (ExecutionStatus::TimedOut, Some(2))
        );
    }

    #[test]
    fn notify_groups_by_status() {
        let message = NotifyMessage {
            jobs: BTreeMap::from([(ExecutionStatus::Queued, vec![])]),
            timestamp: 1,
        };
        assert_eq!(
            serde_json::to_value(&message).unwrap(),
            json!({"jobs": {"QUEUED": []}, "timestamp": 1})
        );
    }

    #[test]
    fn details_keep_their_bounds() {
        let pairs = |count: usize| {
            (0..count)
                .map(|i| (format!("k{i}"), "v".to_owned()))
                .collect::<StatusDetails>()
        };
        assert!(check_details(&pairs(MAX_DETAILS)).is_ok());
        assert!(
            check_details(&pairs(MAX_DETAILS + 1))
                .unwrap_err()
                .contains("11 pairs")
        );
        let pair = |k: usize, v: usize| StatusDetails::from([("k".repeat(k), "v".repeat(v))]);
        assert!(check_details(&pair(MAX_DETAIL_KEY_BYTES, MAX_DETAIL_VALUE_BYTES)).is_ok());
        assert!(check_details(&pair(MAX_DETAIL_KEY_BYTES + 1, 1)).is_err());
        assert!(check_details(&pair(1, MAX_DETAIL_VALUE_BYTES + 1)).is_err());
        assert!(check_details(&pair(0, 1)).is_err());
    }

    #[test]
    fn details_have_the_characters_that_aws_takes() {
        let check = |key: &str, value: &str| {
            check_details(&StatusDetails::from([(key.to_owned(), value.to_owned())]))
        };
        for value in ["Grüße, 東京 🙂", " ~!\"\\", "é\u{301}"] {
            assert_eq!(check("a:b_c-9", value), Ok(()), "{value:?}");
        }
        for value in [
            "\u{1b}[31mred",
            "two\nlines",
            "bell\u{7}",
            "c1\u{9b}31m",
            "turned\u{202e}",
            "tab\t",
            "\u{feff}bom",
            "\u{e000}",
            "\u{ffff}",
            "\0",
        ] {
            let why = check("k", value).unwrap_err();
            assert!(why.contains("`k`") && why.contains("\\u{"), "{why}");
            assert!(!why.chars().any(char::is_control), "{why:?}");
        }
        for key in ["a b", "k\u{1b}", "ä", "a.b", "a\n"] {
            let why = check(key, "v").unwrap_err();
            assert!(!why.chars().any(char::is_control), "{why:?}");
        }
    }
}
