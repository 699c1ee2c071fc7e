//! What an operator asks for, and the rules a wave lives by.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::window::{Window, zone};
use super::{
    Counted, Counts, DEFAULT_WATCH_SECONDS, Growth, MAX_WATCH_SECONDS, Metric, USUAL_PERCENT,
    WaveSpec,
};
use crate::{Error, FirmwareName, FirmwareVersion};

/// How long a device may be at an install before it counts as failed, unless `--timeout` says otherwise.
pub const DEFAULT_TIMEOUT_MINUTES: u32 = 60;
/// Longest soak: 30 days.
pub const MAX_SOAK_SECONDS: u64 = 30 * 86_400;
/// Most times one device is tried again (AWS IoT: 10).
pub const MAX_RETRIES: u32 = 10;
/// Most people who must approve one wave.
pub const MAX_APPROVERS: u32 = 10;

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSpec {
    /// The firmware.
    pub name: FirmwareName,
    /// The version to go to.
    pub version: FirmwareVersion,
    /// Not before this time (seconds since 1970).
    pub start_at: Option<u64>,
    /// What holds for each wave that has no rules of its own, and for the way back.
    #[serde(flatten)]
    pub rules: Rules,
}

/// How a wave goes out, when it is good and when it is bad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Abort when this share of the finished devices of the wave failed: `failed × 100 ≥ percent ×
    /// finished`, with at least one failed (AWS reads its `thresholdPercentage` the same way: the minimum
    /// that aborts). 0 is the first failure. Without it only a wave in which nobody succeeded aborts.
    pub abort_failed_percent: Option<u8>,
    /// How many devices of the wave must have finished before the share is looked at.
    pub abort_min: u32,
    /// How long a device may be in progress.
    pub timeout_minutes: u32,
    /// When devices may begin; always where absent.
    #[serde(default)]
    pub window: Option<Window>,
    /// The time zone of the window for a device whose attribute `timezone` names none; UTC where absent.
    #[serde(default)]
    pub zone: Option<String>,
    /// Most devices that are told within any 60 seconds.
    #[serde(default)]
    pub rate_per_minute: Option<u32>,
    /// How that rate grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_growth: Option<Growth>,
    /// How long a wave that is good is left alone before the next one begins.
    #[serde(default)]
    pub soak_seconds: u64,
    /// The wave is good once this share of its devices has succeeded, and bad once that cannot come true
    /// any more. Without it, it is good when every device has finished.
    #[serde(default)]
    pub success_percent: Option<u8>,
    /// How often a device that failed or timed out is tried again.
    #[serde(default)]
    pub retries: u32,
    /// The failures that are usual, in percent. More than that by more than chance stops the rollout: this
    /// is judged over all waves together, and only the rollout's own rules are asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm_percent: Option<u8>,
    /// What devices of the wave that were updated are compared in with those that were not yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Metric>,
    /// How long each is looked at for that; only the rollout's own rules are asked for it.
    #[serde(default = "usual_watch")]
    pub watch_seconds: u64,
    /// How many people must approve the wave before it begins.
    #[serde(default)]
    pub approvers: u32,
}

const fn usual_watch() -> u64 {
    DEFAULT_WATCH_SECONDS
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            abort_failed_percent: None,
            abort_min: 1,
            timeout_minutes: DEFAULT_TIMEOUT_MINUTES,
            window: None,
            zone: None,
            rate_per_minute: None,
            rate_growth: None,
            soak_seconds: 0,
            success_percent: None,
            retries: 0,
            alarm_percent: None,
            gates: Vec::new(),
            watch_seconds: DEFAULT_WATCH_SECONDS,
            approvers: 0,
        }
    }
}

/// A wave that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WavePlan {
    /// How large it is.
    pub size: WaveSpec,
    /// Not before this time (seconds since 1970).
    pub start_at: Option<u64>,
    /// Its rules.
    pub rules: Rules,
}

impl Rules {
    /// Refuses numbers that mean nothing and windows that never open after `now`.
    ///
    /// # Errors
    /// [`Error::Rollout`] naming the option, the value and the mend.
    pub fn check(&self, now: u64) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Rollout { why });
        if let Some(percent @ 101..) = self.abort_failed_percent {
            return refuse(format!(
                "--abort-failed {percent} is no percentage (0 to 100)"
            ));
        }
        if self.abort_min == 0 {
            return refuse("--abort-min 0: at least 1 device must have finished".into());
        }
        if let Some(percent @ (0 | 101..)) = self.success_percent {
            return refuse(format!("--success {percent} is no percentage (1 to 100)"));
        }
        if !(1..=crate::job::MAX_TIMEOUT_MINUTES).contains(&i64::from(self.timeout_minutes)) {
            return refuse(format!(
                "--timeout of {} minutes; 1 minute to {} minutes (7 days) are possible",
                self.timeout_minutes,
                crate::job::MAX_TIMEOUT_MINUTES
            ));
        }
        if self.rate_per_minute == Some(0) {
            return refuse("--rate 0/min would never tell a device; write 1/min or more".into());
        }
        if let Some(growth) = &self.rate_growth {
            growth.check()?;
        }
        if self.soak_seconds > MAX_SOAK_SECONDS {
            return refuse(format!(
                "--soak of {} seconds; at most {MAX_SOAK_SECONDS} (30 days) are possible",
                self.soak_seconds
            ));
        }
        if let Some(percent) = self.alarm_percent.filter(|p| !USUAL_PERCENT.contains(p)) {
            return refuse(format!(
                "--alarm {percent}; give the failures that are usual, {}% to {}%",
                USUAL_PERCENT.start(),
                USUAL_PERCENT.end()
            ));
        }
        if !(1..=MAX_WATCH_SECONDS).contains(&self.watch_seconds) {
            return refuse(format!(
                "--watch of {} seconds; 1 to {MAX_WATCH_SECONDS} (a day) are possible",
                self.watch_seconds
            ));
        }
        if self.retries > MAX_RETRIES {
            return refuse(format!(
                "--retry {}; a device can be tried again at most {MAX_RETRIES} times",
                self.retries
            ));
        }
        if self.approvers > MAX_APPROVERS {
            return refuse(format!(
                "{} approvers; at most {MAX_APPROVERS} can be asked for",
                self.approvers
            ));
        }
        let clock = match &self.zone {
            Some(name) => zone(name, "--zone")?,
            None => TimeZone::UTC,
        };
        self.window
            .as_ref()
            .map_or(Ok(()), |window| window.check(&clock, now))
    }

    /// How many may be told within a minute, once so many devices of the rollout were told and have
    /// succeeded.
    pub(super) fn rate(&self, told: usize, succeeded: usize) -> Option<u32> {
        let base = self.rate_per_minute?;
        Some(self.rate_growth.map_or(base, |growth| {
            let counted = match growth.counts {
                Counted::Told => told,
                Counted::Succeeded => succeeded,
            };
            growth.rate(base, counted)
        }))
    }

    /// Why a wave that stands so must not go on.
    pub(super) fn stops(&self, counts: &Counts) -> Option<String> {
        self.abort_rule(counts).or_else(|| {
            let over = counts.open() == 0;
            match self.success_percent {
                Some(percent) if counts.finished() + counts.open() > 0 => {
                    let able = counts.succeeded + counts.open();
                    let of = counts.finished() + counts.open();
                    (able * 100 < usize::from(percent) * of).then(|| {
                        format!(
                            "{} of {of} devices failed; {percent}% cannot succeed any more",
                            counts.failed
                        )
                    })
                }
                None if over && counts.succeeded == 0 && counts.failed > 0 => Some(format!(
                    "none of the {} devices that finished succeeded",
                    counts.finished()
                )),
                _ => None,
            }
        })
    }

    pub(super) fn abort_rule(&self, counts: &Counts) -> Option<String> {
        let percent = self.abort_failed_percent?;
        let (failed, finished) = (counts.failed, counts.finished());
        let enough = finished as u64 >= u64::from(self.abort_min);
        (enough && failed > 0 && failed * 100 >= usize::from(percent) * finished).then(|| {
            format!("{failed} of {finished} finished devices failed; {percent}% abort the rollout")
        })
    }

    /// Whether a wave that stands so is good enough to go on from.
    pub(super) fn passes(&self, counts: &Counts) -> bool {
        let of = counts.finished() + counts.open();
        match self.success_percent {
            Some(percent) if of > 0 => counts.succeeded * 100 >= usize::from(percent) * of,
            _ => counts.open() == 0,
        }
    }
}
