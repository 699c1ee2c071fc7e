//! What CreateJob says of it, field for field.

use serde::{Deserialize, Serialize};

/// What CreateJob says of how a job goes out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobConfig {
    /// How fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_executions_rollout_config: Option<RolloutConfig>,
    /// When it is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort_config: Option<AbortConfig>,
    /// What is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_executions_retry_config: Option<RetryConfig>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_config: Option<SchedulingConfig>,
    /// How long devices may fetch the files that its document names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presigned_url_config: Option<PresignedUrlConfig>,
}

/// `presignedUrlConfig`: here files are not signed for but lent, under the device's own certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PresignedUrlConfig {
    /// AWS's clients name a role. Nothing here takes one on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// How long a device may fetch files after it got the document: 60 to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_sec: Option<u64>,
}

/// `jobExecutionsRolloutConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutConfig {
    /// A rate that stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_per_minute: Option<u32>,
    /// A rate that grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential_rate: Option<ExponentialRate>,
}

/// `exponentialRate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExponentialRate {
    /// Where it begins.
    pub base_rate_per_minute: u32,
    /// What it is multiplied by: 1.1 to 5, one decimal.
    pub increment_factor: f64,
    /// After how many things.
    pub rate_increase_criteria: RateIncreaseCriteria,
}

/// `rateIncreaseCriteria`: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateIncreaseCriteria {
    /// Things that were told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_notified_things: Option<u32>,
    /// Things that have succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_of_succeeded_things: Option<u32>,
}

/// `abortConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortConfig {
    /// Any of them aborts.
    pub criteria_list: Vec<AbortCriteria>,
}

/// What aborts a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortCriteria {
    /// Which failures count.
    pub failure_type: FailureType,
    /// What happens: `CANCEL`, the only one there is.
    pub action: AbortAction,
    /// From which percentage of those that are over.
    pub threshold_percentage: f64,
    /// Not before so many are over.
    pub min_number_of_executed_things: u64,
}

/// `failureType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureType {
    /// The device said so.
    Failed,
    /// The device would not.
    Rejected,
    /// Not done in time.
    TimedOut,
    /// Any of them.
    All,
}

/// `action` of an abort criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AbortAction {
    /// What has not begun is cancelled.
    Cancel,
}

/// `jobExecutionsRetryConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryConfig {
    /// By kind of failure.
    pub criteria_list: Vec<RetryCriteria>,
}

/// How often what is tried again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryCriteria {
    /// `FAILED`, `TIMED_OUT` or `ALL`; what was rejected is never tried again.
    pub failure_type: FailureType,
    /// How often.
    pub number_of_retries: u32,
}

/// `schedulingConfig`. Times are `YYYY-MM-DD hh:mm` in UTC, or RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulingConfig {
    /// Not before. A time that has gone by means at once; no lead is asked for (AWS IoT: 30 minutes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    /// What happens then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_behavior: Option<EndBehavior>,
    /// Things are told only while one of them is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_windows: Option<Vec<MaintenanceWindow>>,
}

/// `endBehavior`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EndBehavior {
    /// Nobody else is told.
    StopRollout,
    /// What has not begun is cancelled.
    Cancel,
    /// All is cancelled.
    ForceCancel,
}

/// One of `maintenanceWindows`, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// When it opens: `cron(0 18 ? * MON-FRI *)`.
    pub start_time: String,
    /// How long it stays open.
    pub duration_in_minutes: u32,
}

/// How many executions of a job came to which end; those that are tried again have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ends {
    /// Done.
    pub succeeded: u64,
    /// Failed.
    pub failed: u64,
    /// Refused by the device.
    pub rejected: u64,
    /// Not done in time.
    pub timed_out: u64,
    /// Cancelled.
    pub canceled: u64,
    /// No longer targets.
    pub removed: u64,
}
