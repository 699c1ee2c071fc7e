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
    /// its window opens again; [`HELD`] until its rollout goes on.
    pub until: Option<u64>,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// A device with this [`Part::until`] may not begin, whatever its window says: its rollout is paused.
pub const HELD: u64 = 0;

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
    /// Whether that is another rollout's: the one that brought it there, or that had when a later one was undone. Then it
    /// is that one's to take it away again.
    pub theirs: bool,
    /// Whether another rollout has moved it last, on its way there or back.
    pub moved_on: bool,
    /// What the device said about its last failure.
    pub reason: Option<String>,
    /// What it said about its way back.
    pub rollback_reason: Option<String>,
    /// Its time zone, where it names one.
    pub zone: Option<String>,
    /// When it was told what is in none of the parts any more.
    pub told_before: Vec<u64>,
}

/// The devices of a rollout by thing name; one not in here is as if it had no execution.
pub type Devices = BTreeMap<String, Device>;

impl Device {
    /// The rollout was turned round once more: what was its way back lies behind it.
    pub fn turn(&mut self) {
        let gone = self.earlier.take();
        self.told_before.extend(gone.map(|part| part.offered_at));
        self.earlier = self.rollback.take();
        self.rollback_reason = None;
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
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
}

/// One more, or one fewer.
pub(super) fn step(count: &mut usize, there: bool) {
    *count = if there {
        *count + 1
    } else {
        count.saturating_sub(1)
    };
}

/// The devices of a wave, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) total: usize,
    pub(super) succeeded: usize,
    /// Failed for good.
    pub(super) failed: usize,
    pub(super) in_progress: usize,
    /// Told, or to be tried again.
    pub(super) queued: usize,
    /// Taken over by a newer rollout before they began.
    pub(super) canceled: usize,
    ended: usize,
}

impl Counts {
    /// Of so many devices of which none was told.
    pub(super) fn none_of(total: usize) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// With so many more of which none was told.
    pub(super) const fn and(mut self, more: usize) -> Self {
        self.total += more;
        self
    }

    pub(super) fn count<'p>(
        total: usize,
        parts: impl Iterator<Item = (&'p Part, Option<&'p FirmwareVersion>)>,
        rules: &Rules,
    ) -> Self {
        let mut counts = Self::none_of(total);
        for (part, current) in parts {
            counts.note(part, current, rules, true);
        }
        counts
    }

    /// Counts a device's part in, or out again.
    pub(super) fn note(
        &mut self,
        part: &Part,
        current: Option<&FirmwareVersion>,
        rules: &Rules,
        there: bool,
    ) {
        let retried = part.is_retried(rules, current);
        let mut unlisted = 0;
        let count = match part.status {
            _ if retried => &mut self.queued,
            ExecutionStatus::Succeeded => &mut self.succeeded,
            ExecutionStatus::InProgress => &mut self.in_progress,
            ExecutionStatus::Queued => &mut self.queued,
            ExecutionStatus::Canceled => &mut self.canceled,
            status if status.is_failure() => &mut self.failed,
            _ => &mut unlisted,
        };
        step(count, there);
        if part.status.is_terminal() && !retried {
            step(&mut self.ended, there);
        }
    }

    /// What the abort rule divides by: executions that were cancelled or removed tell nothing.
    pub(super) const fn finished(&self) -> usize {
        self.succeeded + self.failed
    }

    /// Why nobody is left of a wave: a newer rollout has taken over those who were to take it.
    pub(super) fn taken_over(&self) -> Option<String> {
        let over = self.open() == 0 && self.finished() == 0 && self.canceled > 0;
        over.then(|| {
            format!(
                "none of the {} devices of the wave took it: a newer rollout took over {}",
                self.total, self.canceled
            )
        })
    }

    /// Devices that have not come to an end.
    pub(super) const fn open(&self) -> usize {
        self.total - self.ended
    }
}
