//! How the devices of a rollout stand.

use std::collections::BTreeMap;

use super::Rules;
use crate::{ExecutionStatus, FirmwareVersion};

/// A device's part in a job of the rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it stands.
    pub status: ExecutionStatus,
    /// The version the job brings.
    pub to: FirmwareVersion,
    /// The version the device had when it was queued.
    pub before: Option<FirmwareVersion>,
    /// When it was last told (seconds since 1970).
    pub offered_at: u64,
    /// While it is queued: until when it may begin. From then on it is not told of the job any more, until
    /// its window opens again.
    pub until: Option<u64>,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// How one device of a rollout stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its install; `None` before it was told.
    pub install: Option<Part>,
    /// Its part in the rollback under way or done.
    pub rollback: Option<Part>,
    /// Its part in the rollback before that one, where a rollback is rolled back.
    pub earlier: Option<Part>,
    /// The version it is known to run now.
    pub current: Option<FirmwareVersion>,
    /// What the device said about its last failure.
    pub reason: Option<String>,
    /// Its time zone, where it names one.
    pub zone: Option<String>,
    /// When it was told what is in none of the parts any more.
    pub told_before: Vec<u64>,
}

/// The devices of a rollout by thing name; one not in here is as if it had no execution.
pub type Devices = BTreeMap<String, Device>;

impl Device {
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        [&self.install, &self.rollback, &self.earlier]
            .into_iter()
            .flatten()
    }
}

impl Part {
    /// Whether it failed and will be tried again. One that was given up and is known to run the version
    /// nevertheless is not.
    pub(super) fn is_retried(&self, rules: &Rules, current: Option<&FirmwareVersion>) -> bool {
        let failed = matches!(
            self.status,
            ExecutionStatus::Failed | ExecutionStatus::TimedOut
        );
        failed && self.attempt <= rules.retries && current != Some(&self.to)
    }

    /// Whether it is queued, and may not begin any more.
    pub(super) fn is_shut(&self, now: u64) -> bool {
        self.status == ExecutionStatus::Queued && self.until.is_some_and(|until| until <= now)
    }
}

/// The devices of a wave, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: usize,
    pub(crate) succeeded: usize,
    /// Failed for good.
    pub(crate) failed: usize,
    pub(crate) in_progress: usize,
    /// Told, or to be tried again.
    pub(crate) queued: usize,
    ended: usize,
}

impl Counts {
    /// Counts installs.
    pub(crate) fn of(things: &[String], devices: &Devices, rules: &Rules) -> Self {
        let installs = things.iter().filter_map(|thing| {
            let device = devices.get(thing)?;
            Some((device.install.as_ref()?, device.current.as_ref()))
        });
        Self::count(things.len(), installs, rules)
    }

    pub(super) fn count<'p>(
        total: usize,
        parts: impl Iterator<Item = (&'p Part, Option<&'p FirmwareVersion>)>,
        rules: &Rules,
    ) -> Self {
        let mut counts = Self {
            total,
            ..Self::default()
        };
        for (part, current) in parts {
            let retried = part.is_retried(rules, current);
            match part.status {
                _ if retried => counts.queued += 1,
                ExecutionStatus::Succeeded => counts.succeeded += 1,
                ExecutionStatus::InProgress => counts.in_progress += 1,
                ExecutionStatus::Queued => counts.queued += 1,
                status if status.is_failure() => counts.failed += 1,
                _ => {}
            }
            counts.ended += usize::from(part.status.is_terminal() && !retried);
        }
        counts
    }

    /// What the abort rule divides by: executions that were cancelled or removed tell nothing.
    pub(super) const fn finished(&self) -> usize {
        self.succeeded + self.failed
    }

    /// Devices that have not come to an end.
    pub(super) const fn open(&self) -> usize {
        self.total - self.ended
    }
}
