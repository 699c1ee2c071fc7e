//! How a job goes out: rate, abort, retries and schedule, field for field as AWS IoT's CreateJob has them.
//! It is pure: how the job stands and the time go in, what may happen comes out.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};

use super::ExecutionStatus;
use crate::Error;
use crate::rollout::{Counted, Growth, Opening, Window};

/// Most things told within a minute (AWS IoT: 1000).
pub const MAX_PER_MINUTE: u32 = 1000;
/// Most retries of one execution (AWS IoT: 10).
pub const MAX_JOB_RETRIES: u32 = 10;
/// Most maintenance windows (AWS IoT: 1; more are of use).
const MAX_WINDOWS: usize = 10;
/// Most criteria of one list.
const MAX_CRITERIA: usize = 4;
/// A window's length in minutes (AWS IoT: 1 to 1430).
const WINDOW_MINUTES: std::ops::RangeInclusive<u32> = 1..=1430;
/// How long files are lent (AWS IoT's bounds).
const PRESIGNED_SECONDS: std::ops::RangeInclusive<u64> = 60..=3600;
const MINUTE: u64 = 60;

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

fn refuse<T>(field: &str, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid {
        field: field.to_owned(),
        why: why.into(),
    })
}

/// Seconds since 1970 of a time as AWS writes it.
fn moment(field: &str, text: &str) -> Result<u64, Error> {
    let utc = || {
        let civil: civil::DateTime = text.replacen(' ', "T", 1).parse().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    let read = text.parse::<Timestamp>().ok().or_else(utc);
    match read.and_then(|time| u64::try_from(time.as_second()).ok()) {
        Some(seconds) => Ok(seconds),
        None => refuse(
            field,
            format!(
                "`{}` is no time; write it as 2027-01-31 12:00 (UTC)",
                text.chars().take(64).collect::<String>().escape_debug()
            ),
        ),
    }
}

impl MaintenanceWindow {
    /// As our own windows are written. AWS counts the days of a week from 1 for Sunday, and allows `?`.
    fn read(&self) -> Result<Window, Error> {
        let field = "maintenanceWindows";
        if !WINDOW_MINUTES.contains(&self.duration_in_minutes) {
            return refuse(field, "durationInMinutes is 1 to 1430");
        }
        let mend = || {
            format!(
                "startTime `{}`: write it as cron(0 18 ? * MON-FRI *)",
                self.start_time
                    .chars()
                    .take(64)
                    .collect::<String>()
                    .escape_debug()
            )
        };
        let inner = self
            .start_time
            .strip_prefix("cron(")
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or(&self.start_time);
        let fields: Vec<&str> = inner.split_whitespace().collect();
        let [minute, hour, day, month, weekday, year] = fields[..] else {
            return refuse(field, mend());
        };
        if year != "*" {
            return refuse(field, format!("{}; the year must be *", mend()));
        }
        const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
        let mut weekdays = String::new();
        for one in weekday.chars() {
            match one.to_digit(10) {
                None if matches!(one, '#' | '/' | 'L' | 'W') => return refuse(field, mend()),
                None => weekdays.push(one),
                Some(day) => {
                    let name = (day as usize).checked_sub(1).and_then(|day| DAYS.get(day));
                    match name {
                        Some(name) => weekdays.push_str(name),
                        None => return refuse(field, mend()),
                    }
                }
            }
        }
        let any = |text: &str| text.replace('?', "*");
        let line = format!(
            "{minute} {hour} {} {month} {}/{}m",
            any(day),
            any(&weekdays),
            self.duration_in_minutes
        );
        line.parse()
            .or_else(|error: Error| refuse(field, format!("{}: {error}", mend())))
    }
}

impl JobConfig {
    /// What `new` says is so from now on; what it does not say stays.
    pub fn replace(&mut self, new: Self) {
        fn put<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        let Self {
            job_executions_rollout_config,
            abort_config,
            job_executions_retry_config,
            scheduling_config,
            presigned_url_config,
        } = new;
        put(
            &mut self.job_executions_rollout_config,
            job_executions_rollout_config,
        );
        put(&mut self.abort_config, abort_config);
        put(
            &mut self.job_executions_retry_config,
            job_executions_retry_config,
        );
        put(&mut self.scheduling_config, scheduling_config);
        put(&mut self.presigned_url_config, presigned_url_config);
    }

    /// Refuses what means nothing or could never come true.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field and the mend.
    pub fn check(&self, now: u64) -> Result<(), Error> {
        if let Some(rollout) = &self.job_executions_rollout_config {
            rollout.check()?;
        }
        let presigned = self.presigned_url_config.as_ref();
        let lives = presigned.and_then(|config| config.expires_in_sec);
        if lives.is_some_and(|seconds| !PRESIGNED_SECONDS.contains(&seconds)) {
            return refuse("presignedUrlConfig", "expiresInSec is 60 to 3600");
        }
        if let Some(abort) = &self.abort_config {
            let list = &abort.criteria_list;
            if list.is_empty() || list.len() > MAX_CRITERIA {
                return refuse(
                    "abortConfig",
                    format!("criteriaList has 1 to {MAX_CRITERIA} entries"),
                );
            }
            for one in list {
                if !(0.0..=100.0).contains(&one.threshold_percentage) {
                    return refuse("thresholdPercentage", "0 to 100 are possible");
                }
                if one.min_number_of_executed_things == 0 {
                    return refuse("minNumberOfExecutedThings", "1 or more are possible");
                }
            }
        }
        if let Some(retry) = &self.job_executions_retry_config {
            let list = &retry.criteria_list;
            if list.is_empty() || list.len() > 2 {
                return refuse(
                    "jobExecutionsRetryConfig",
                    "criteriaList has 1 or 2 entries",
                );
            }
            for one in list {
                if one.failure_type == FailureType::Rejected {
                    return refuse("failureType", "what a device rejected is never tried again");
                }
                if one.number_of_retries > MAX_JOB_RETRIES {
                    return refuse(
                        "numberOfRetries",
                        format!("0 to {MAX_JOB_RETRIES} are possible"),
                    );
                }
            }
        }
        let (start, end) = self.times()?;
        if let Some(end) = end {
            if end <= start.unwrap_or(now).max(now) {
                return refuse("endTime", "it is not after the start");
            }
        } else if self
            .scheduling_config
            .as_ref()
            .is_some_and(|config| config.end_behavior.is_some())
        {
            return refuse("endBehavior", "it needs an endTime");
        }
        for window in self.windows()? {
            window.check(&TimeZone::UTC, now)?;
        }
        Ok(())
    }

    /// From when and until when (seconds since 1970).
    ///
    /// # Errors
    /// [`Error::Invalid`] where a time is none.
    pub fn times(&self) -> Result<(Option<u64>, Option<u64>), Error> {
        let Some(config) = &self.scheduling_config else {
            return Ok((None, None));
        };
        let read = |field, text: &Option<String>| {
            text.as_deref().map(|text| moment(field, text)).transpose()
        };
        Ok((
            read("startTime", &config.start_time)?,
            read("endTime", &config.end_time)?,
        ))
    }

    /// What happens at the end.
    #[must_use]
    pub fn end_behavior(&self) -> EndBehavior {
        let config = self.scheduling_config.as_ref();
        config
            .and_then(|config| config.end_behavior)
            .unwrap_or(EndBehavior::StopRollout)
    }

    fn windows(&self) -> Result<Vec<Window>, Error> {
        let windows = self
            .scheduling_config
            .as_ref()
            .and_then(|config| config.maintenance_windows.as_ref());
        let Some(windows) = windows else {
            return Ok(Vec::new());
        };
        if windows.is_empty() || windows.len() > MAX_WINDOWS {
            return refuse(
                "maintenanceWindows",
                format!("1 to {MAX_WINDOWS} are possible"),
            );
        }
        windows.iter().map(MaintenanceWindow::read).collect()
    }

    /// Whether nobody has to wait for anything.
    #[must_use]
    pub fn is_at_once(&self) -> bool {
        self.job_executions_rollout_config.is_none() && self.scheduling_config.is_none()
    }

    /// How many more things may be told now, and, where that is none, when it may be more. `recent` says
    /// at which second how many were told.
    ///
    /// # Errors
    /// As [`JobConfig::check`].
    pub fn room(
        &self,
        now: u64,
        notified: u64,
        succeeded: u64,
        recent: &[(u64, u32)],
    ) -> Result<(usize, Option<u64>), Error> {
        let windows = self.windows()?;
        let mut opens: Option<u64> = None;
        let mut is_open = windows.is_empty();
        for window in windows {
            match window.at(&TimeZone::UTC, now) {
                Opening::Open { .. } => is_open = true,
                Opening::Closed { opens: at } => opens = opens.into_iter().chain(at).min(),
            }
        }
        if !is_open {
            return Ok((0, opens));
        }
        let Some(rate) = self.rate(notified, succeeded) else {
            return Ok((usize::MAX, None));
        };
        let within: Vec<&(u64, u32)> = recent.iter().filter(|(at, _)| at + MINUTE > now).collect();
        let told: u64 = within.iter().map(|(_, count)| u64::from(*count)).sum();
        let room = u64::from(rate).saturating_sub(told);
        let again = within.iter().map(|(at, _)| at + MINUTE).min();
        Ok((
            usize::try_from(room).unwrap_or(usize::MAX),
            again.filter(|_| room == 0),
        ))
    }

    fn rate(&self, notified: u64, succeeded: u64) -> Option<u32> {
        let config = self.job_executions_rollout_config.as_ref()?;
        if let Some(rate) = &config.exponential_rate {
            let growth = rate.growth();
            let counted = match growth.counts {
                Counted::Told => notified,
                Counted::Succeeded => succeeded,
            };
            let counted = usize::try_from(counted).unwrap_or(usize::MAX);
            let grown = growth.rate(rate.base_rate_per_minute, counted);
            let most = config.maximum_per_minute.unwrap_or(MAX_PER_MINUTE);
            return Some(grown.min(most));
        }
        config.maximum_per_minute
    }

    /// Why a job that has come so far is given up.
    #[must_use]
    pub fn aborts(&self, ends: &Ends) -> Option<String> {
        let of = |kind| match kind {
            FailureType::Failed => ends.failed,
            FailureType::Rejected => ends.rejected,
            FailureType::TimedOut => ends.timed_out,
            FailureType::All => ends.failed + ends.rejected + ends.timed_out,
        };
        let over = of(FailureType::All) + ends.succeeded;
        let list = &self.abort_config.as_ref()?.criteria_list;
        list.iter().find_map(|one| {
            let bad = of(one.failure_type);
            // Counts are far below 2^53.
            let reached = bad as f64 * 100.0 >= one.threshold_percentage * over as f64;
            (bad > 0 && over >= one.min_number_of_executed_things && reached).then(|| {
                format!(
                    "{bad} of {over} executions that are over failed; {}% abort the job",
                    one.threshold_percentage
                )
            })
        })
    }

    /// How often an execution that ended so is tried again.
    #[must_use]
    pub fn retries(&self, status: ExecutionStatus) -> u32 {
        let kind = match status {
            ExecutionStatus::Failed => FailureType::Failed,
            ExecutionStatus::TimedOut => FailureType::TimedOut,
            _ => return 0,
        };
        let list = self
            .job_executions_retry_config
            .as_ref()
            .map(|config| &config.criteria_list);
        let fits =
            |one: &&RetryCriteria| one.failure_type == kind || one.failure_type == FailureType::All;
        let retries = list
            .into_iter()
            .flatten()
            .filter(fits)
            .map(|one| one.number_of_retries);
        retries.max().unwrap_or(0)
    }
}

impl ExponentialRate {
    fn growth(&self) -> Growth {
        let criteria = &self.rate_increase_criteria;
        let (every, counts) = match (
            criteria.number_of_succeeded_things,
            criteria.number_of_notified_things,
        ) {
            (Some(every), _) => (every, Counted::Succeeded),
            (None, every) => (every.unwrap_or(1), Counted::Told),
        };
        Growth {
            // Checked to be 1.1 to 5.
            factor_tenths: (self.increment_factor * 10.0).round() as u16,
            every,
            counts,
        }
    }
}

impl RolloutConfig {
    fn check(&self) -> Result<(), Error> {
        let per_minute = 1..=MAX_PER_MINUTE;
        if self
            .maximum_per_minute
            .is_some_and(|rate| !per_minute.contains(&rate))
        {
            return refuse(
                "maximumPerMinute",
                format!("1 to {MAX_PER_MINUTE} are possible"),
            );
        }
        let Some(rate) = &self.exponential_rate else {
            return Ok(());
        };
        if !per_minute.contains(&rate.base_rate_per_minute) {
            return refuse(
                "baseRatePerMinute",
                format!("1 to {MAX_PER_MINUTE} are possible"),
            );
        }
        if !(1.1..=5.0).contains(&rate.increment_factor) {
            return refuse("incrementFactor", "1.1 to 5 are possible");
        }
        let criteria = &rate.rate_increase_criteria;
        match (
            criteria.number_of_notified_things,
            criteria.number_of_succeeded_things,
        ) {
            (Some(1..), None) | (None, Some(1..)) => Ok(()),
            _ => refuse("rateIncreaseCriteria", "give one of the two, 1 or more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> JobConfig {
        serde_json::from_value(value).unwrap()
    }

    fn scheduled(value: Value) -> JobConfig {
        config(json!({"schedulingConfig": value}))
    }

    #[test]
    fn a_rate_counts_any_sixty_seconds() {
        let config = config(json!({"jobExecutionsRolloutConfig": {"maximumPerMinute": 5}}));
        let room = |now, recent: &[(u64, u32)]| config.room(now, 0, 0, recent).unwrap();
        assert_eq!(room(100, &[]), (5, None));
        assert_eq!(room(100, &[(60, 3)]), (2, None));
        assert_eq!(room(100, &[(50, 3), (60, 2)]), (0, Some(110)));
        assert_eq!(room(110, &[(50, 3), (60, 2)]), (3, None));
    }

    #[test]
    fn an_exponential_rate_grows_with_what_is_counted() {
        let rate = |criteria: Value| {
            config(json!({"jobExecutionsRolloutConfig": {"exponentialRate": {
                "baseRatePerMinute": 50, "incrementFactor": 2.0, "rateIncreaseCriteria": criteria}}}))
        };
        let told = rate(json!({"numberOfNotifiedThings": 1000}));
        let room = |notified| told.room(0, notified, 0, &[]).unwrap().0;
        assert_eq!(
            [room(0), room(999), room(1000), room(3000), room(90_000)],
            [50, 50, 100, 400, 1000]
        );
        let done = rate(json!({"numberOfSucceededThings": 10}));
        assert_eq!(done.room(0, 5000, 10, &[]).unwrap().0, 100);
        assert!(rate(json!({})).check(0).is_err());
        assert!(told.check(0).is_ok());
    }

    #[test]
    fn windows_are_awss_cron_lines() {
        // 1 January 1970 was a Thursday.
        for line in [
            "cron(0 18 ? * THU *)",
            "cron(0 18 * * 5 *)",
            "0 18 ? 1-12 2-6 *",
        ] {
            let config = scheduled(
                json!({"maintenanceWindows": [{"startTime": line, "durationInMinutes": 60}]}),
            );
            config.check(0).unwrap();
            assert_eq!(
                config.room(17 * 3600, 0, 0, &[]).unwrap(),
                (0, Some(18 * 3600)),
                "{line}"
            );
            assert_eq!(
                config.room(18 * 3600 + 3599, 0, 0, &[]).unwrap().0,
                usize::MAX,
                "{line}"
            );
            assert_eq!(config.room(19 * 3600, 0, 0, &[]).unwrap().0, 0, "{line}");
        }
        for bad in [
            "cron(0 18 ? * THU)",
            "cron(0 18 ? * 8 *)",
            "cron(0 18 ? * 2#1 *)",
            "cron(0 18 ? * * 2027)",
            "",
            "cron(0 0 31 4 ? *)",
        ] {
            let config = scheduled(
                json!({"maintenanceWindows": [{"startTime": bad, "durationInMinutes": 60}]}),
            );
            assert!(config.check(0).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_utc_and_the_end_comes_after_the_start() {
        let config = scheduled(
            json!({"startTime": "1970-01-02 00:00", "endTime": "1970-01-03T00:00:00Z", "endBehavior": "CANCEL"}),
        );
        config.check(0).unwrap();
        assert_eq!(config.times().unwrap(), (Some(86_400), Some(172_800)));
        assert_eq!(config.end_behavior(), EndBehavior::Cancel);
        for bad in [
            json!({"startTime": "noon"}),
            json!({"endBehavior": "CANCEL"}),
            json!({"startTime": "1970-01-02 00:00", "endTime": "1970-01-02 00:00"}),
        ] {
            assert!(scheduled(bad.clone()).check(0).is_err(), "{bad}");
        }
        assert!(config.check(172_800).is_err(), "over before it begins");
    }

    #[test]
    fn an_abort_needs_enough_and_its_share() {
        let abort = |kind: &str| {
            config(json!({"abortConfig": {"criteriaList": [
                {"failureType": kind, "action": "CANCEL", "thresholdPercentage": 12.5, "minNumberOfExecutedThings": 8}]}}))
        };
        let ends = |succeeded, failed, timed_out| Ends {
            succeeded,
            failed,
            timed_out,
            rejected: 0,
            ..Ends::default()
        };
        assert!(
            abort("FAILED")
                .aborts(&ends(7, 1, 0))
                .unwrap()
                .contains("1 of 8")
        );
        assert_eq!(abort("FAILED").aborts(&ends(6, 1, 0)), None, "too few");
        assert_eq!(
            abort("FAILED").aborts(&ends(8, 1, 0)),
            None,
            "below the share"
        );
        assert_eq!(
            abort("FAILED").aborts(&ends(4, 0, 4)),
            None,
            "other failures"
        );
        assert!(abort("ALL").aborts(&ends(4, 0, 4)).is_some());
        assert_eq!(
            abort("ALL").aborts(&ends(8, 0, 0)),
            None,
            "no failure never aborts"
        );
    }

    #[test]
    fn retries_are_by_kind_and_never_for_what_was_rejected() {
        let config = config(json!({"jobExecutionsRetryConfig": {"criteriaList": [
            {"failureType": "FAILED", "numberOfRetries": 2}, {"failureType": "ALL", "numberOfRetries": 1}]}}));
        config.check(0).unwrap();
        let retries = [
            ExecutionStatus::Failed,
            ExecutionStatus::TimedOut,
            ExecutionStatus::Rejected,
            ExecutionStatus::Succeeded,
        ]
        .map(|status| config.retries(status));
        assert_eq!(retries, [2, 1, 0, 0]);
    }
}
