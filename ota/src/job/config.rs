//! How a job goes out: rate, abort, retries and schedule, field for field as AWS IoT's CreateJob has them.
//! It is pure: how the job stands and the time go in, what may happen comes out.

mod rate;
mod schedule;
mod shapes;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;

use self::schedule::moment;
pub use self::shapes::{
    AbortAction, AbortConfig, AbortCriteria, EndBehavior, Ends, ExponentialRate, FailureType,
    JobConfig, MaintenanceWindow, PresignedUrlConfig, RateIncreaseCriteria, RetryConfig,
    RetryCriteria, RolloutConfig, SchedulingConfig,
};
use super::ExecutionStatus;
use crate::Error;
use crate::rollout::{Counted, Opening, Window};

/// Most things told within a minute (AWS IoT: 1000).
pub const MAX_PER_MINUTE: u32 = 1000;
/// Most retries of one execution (AWS IoT: 10).
pub const MAX_JOB_RETRIES: u32 = 10;
/// Most maintenance windows (AWS IoT: 1; more are of use).
const MAX_WINDOWS: usize = 10;
/// Most criteria of one list.
const MAX_CRITERIA: usize = 4;
/// How long files are lent (AWS IoT's bounds).
const PRESIGNED_SECONDS: std::ops::RangeInclusive<u64> = 60..=3600;
const MINUTE: u64 = 60;

fn refuse<T>(field: &str, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid {
        field: field.to_owned(),
        why: why.into(),
    })
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

    /// Whether there are times at which nobody is told.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        let config = self.scheduling_config.as_ref();
        config.is_some_and(|config| config.maintenance_windows.is_some())
    }

    /// How the maintenance windows stand at `now` for a thing whose clock shows the time of `zone` (an IANA name), or UTC.
    /// One whose zone is not known has none that opens.
    ///
    /// # Errors
    /// As [`JobConfig::check`].
    pub fn opening(&self, zone: Option<&str>, now: u64) -> Result<Opening, Error> {
        let windows = self.windows()?;
        if windows.is_empty() {
            return Ok(Opening::Open { until: u64::MAX });
        }
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(_) => return Ok(Opening::Closed { opens: None }),
            },
        };
        let mut opens: Option<u64> = None;
        let mut open: Option<u64> = None;
        for window in windows {
            match window.at(&zone, now) {
                Opening::Open { until } => open = open.max(Some(until)),
                Opening::Closed { opens: at } => opens = opens.into_iter().chain(at).min(),
            }
        }
        Ok(match open {
            Some(until) => Opening::Open { until },
            None => Opening::Closed { opens },
        })
    }

    /// How many more things may be told now by the rate, and, where that is none, when it may be more. `recent` says
    /// at which second how many were told.
    #[must_use]
    pub fn room(
        &self,
        now: u64,
        notified: u64,
        succeeded: u64,
        recent: &[(u64, u32)],
    ) -> (usize, Option<u64>) {
        let Some(rate) = self.rate(notified, succeeded) else {
            return (usize::MAX, None);
        };
        let within: Vec<&(u64, u32)> = recent.iter().filter(|(at, _)| at + MINUTE > now).collect();
        let told: u64 = within.iter().map(|(_, count)| u64::from(*count)).sum();
        let room = u64::from(rate).saturating_sub(told);
        let again = within.iter().map(|(at, _)| at + MINUTE).min();
        (
            usize::try_from(room).unwrap_or(usize::MAX),
            again.filter(|_| room == 0),
        )
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
