//! What an operator asks for, and the rule that stops it.

use serde::{Deserialize, Serialize};

use super::Counts;
use crate::{Error, FirmwareName, FirmwareVersion};

/// How long a device may be at an install before it counts as failed, unless `--timeout` says otherwise.
pub const DEFAULT_TIMEOUT_MINUTES: u32 = 60;
/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSpec {
    /// The firmware.
    pub name: FirmwareName,
    /// The version to go to.
    pub version: FirmwareVersion,
    /// Abort when this share of the finished devices of the current wave failed: `failed × 100 ≥ percent ×
    /// finished`, with at least one failed (AWS reads its `thresholdPercentage` the same way: the minimum
    /// that aborts). 0 is the first failure. Without it only a wave in which nobody succeeded aborts.
    pub abort_failed_percent: Option<u8>,
    /// How many devices of the wave must have finished before the share is looked at.
    pub abort_min: u32,
    /// How long a device may be in progress.
    pub timeout_minutes: u32,
    /// Not before this time (seconds since 1970).
    pub start_at: Option<u64>,
}

impl RolloutSpec {
    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// [`Error::Rollout`] naming the option.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Rollout { why });
        match self.abort_failed_percent {
            Some(percent @ 101..) => {
                return refuse(format!(
                    "--abort-failed {percent} is no percentage (0 to 100)"
                ));
            }
            _ if self.abort_min == 0 => {
                return refuse("--abort-min 0: at least 1 device must have finished".into());
            }
            _ => {}
        }
        if !(1..=crate::job::MAX_TIMEOUT_MINUTES).contains(&i64::from(self.timeout_minutes)) {
            return refuse(format!(
                "--timeout of {} minutes; 1 minute to {} minutes (7 days) are possible",
                self.timeout_minutes,
                crate::job::MAX_TIMEOUT_MINUTES
            ));
        }
        Ok(())
    }

    pub(super) fn abort_rule(&self, counts: &Counts) -> Option<String> {
        let percent = self.abort_failed_percent?;
        let (failed, finished) = (counts.failed, counts.finished());
        let enough = finished as u64 >= u64::from(self.abort_min);
        (enough && failed > 0 && failed * 100 >= usize::from(percent) * finished).then(|| {
            format!("{failed} of {finished} finished devices failed; {percent}% abort the rollout")
        })
    }
}
