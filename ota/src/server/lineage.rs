//! Which rollouts have brought a thing where it is, one on top of the other: whose version it runs, and what it comes
//! back to when that one is undone.

use serde::{Deserialize, Serialize};

use super::records::Install;
use crate::{Error, FirmwareVersion, RolloutId};

/// Versions that lie on each other for one firmware on one thing; the lowest go first.
const MAX_LAYERS: usize = 12;

/// A version that was brought to a thing and not taken away again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layer {
    version: FirmwareVersion,
    /// The rollout that brought it; `None` where it was there before any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollout: Option<RolloutId>,
}

/// The versions that lie on each other on a thing, the one it was brought to last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Lineage(Vec<Layer>);

impl Lineage {
    /// Of a thing of which no more is known than who brought it where.
    pub(super) fn of(version: FirmwareVersion, rollout: Option<RolloutId>) -> Self {
        Self(vec![Layer { version, rollout }])
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rollout whose version the thing has: an undone one has given it back to the one below.
    pub(super) fn owner(&self) -> Option<&RolloutId> {
        self.0.last()?.rollout.as_ref()
    }

    /// The version that `rollout` finds, and leaves behind when it is undone: not its own, and none that a rollout
    /// brought which was itself undone since and has only not come to taking it away, unless there is no other.
    ///
    /// # Errors
    /// Those of `undone`.
    pub(super) fn below(
        &self,
        rollout: &RolloutId,
        mut undone: impl FnMut(&RolloutId) -> Result<bool, Error>,
    ) -> Result<Option<&FirmwareVersion>, Error> {
        let mut uppermost = None;
        for layer in self.0.iter().rev() {
            let stays = match &layer.rollout {
                Some(by) if by == rollout => continue,
                Some(by) => !undone(by)?,
                None => true,
            };
            if stays {
                return Ok(Some(&layer.version));
            }
            uppermost = uppermost.or(Some(&layer.version));
        }
        Ok(uppermost)
    }

    /// Whether `rollout` finds its version there, brought by another one: then it changes nothing.
    pub(super) fn has_already(&self, install: &Install, before: Option<&FirmwareVersion>) -> bool {
        let has = |layer: &Layer| layer.version == install.version;
        !install.back && before == Some(&install.version) && self.0.last().is_some_and(has)
    }

    /// The thing has what `install` brings, and had `before` when it began.
    pub(super) fn installed(&mut self, install: &Install, before: Option<&FirmwareVersion>) {
        if self.has_already(install, before) {
            return;
        }
        let own = |layer: &Layer| layer.rollout.as_ref() == Some(&install.rollout);
        let own = self.0.iter().rposition(own).filter(|_| install.back);
        if let Some(own) = own {
            self.0.truncate(own);
            self.lay_bare(&install.version);
            return;
        }
        if let Some(before) = before.filter(|_| !install.back) {
            self.lay_bare(before);
        }
        self.0.push(Layer {
            version: install.version.clone(),
            rollout: Some(install.rollout.clone()),
        });
        let over = self.0.len().saturating_sub(MAX_LAYERS);
        self.0.drain(..over);
    }

    /// `version` is the uppermost.
    fn lay_bare(&mut self, version: &FirmwareVersion) {
        match self.0.iter().rposition(|layer| layer.version == *version) {
            Some(at) => self.0.truncate(at + 1),
            None => self.0.push(Layer {
                version: version.clone(),
                rollout: None,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn version(number: u8) -> FirmwareVersion {
        format!("{number}.0").parse().unwrap()
    }

    /// One device, and the rollouts that were started for it, as the room keeps them.
    #[derive(Default)]
    struct Device {
        lineage: Lineage,
        runs: Option<FirmwareVersion>,
        /// What each rollout brought, and what it found.
        rollouts: BTreeMap<RolloutId, (FirmwareVersion, Option<FirmwareVersion>)>,
        undone: BTreeSet<RolloutId>,
    }

    impl Device {
        fn new(first: u8) -> Self {
            let mut device = Self::default();
            device.takes(first);
            device
        }

        fn install(&mut self, rollout: &RolloutId, back: bool, to: &FirmwareVersion) {
            let install = Install {
                rollout: rollout.clone(),
                back,
                name: "lamp".parse().unwrap(),
                version: to.clone(),
            };
            let undone = |by: &RolloutId| Ok(self.undone.contains(by));
            let before = self.lineage.below(rollout, undone).unwrap().cloned();
            self.lineage.installed(&install, before.as_ref());
            if !back {
                self.rollouts.insert(rollout.clone(), (to.clone(), before));
            }
            self.runs = Some(to.clone());
        }

        fn takes(&mut self, number: u8) -> RolloutId {
            let id: RolloutId = format!("r-{}", self.rollouts.len()).parse().unwrap();
            self.install(&id, false, &version(number));
            id
        }

        /// The rollout is undone; a device that is away keeps what it has until then.
        fn undo(&mut self, rollout: &RolloutId, away: bool) {
            self.undone.insert(rollout.clone());
            if !away {
                self.comes_back(rollout);
            }
        }

        /// It is told the way back of a rollout whose version it has, where that has one.
        fn comes_back(&mut self, rollout: &RolloutId) {
            let (brought, before) = self.rollouts[rollout].clone();
            let runs_it = self.runs.as_ref() == Some(&brought);
            if let Some(before) = before.filter(|before| runs_it && *before != brought)
                && self.lineage.owner() == Some(rollout)
            {
                self.install(rollout, true, &before);
                // One that was undone before this takes its own away now.
                if let Some(below) = self.lineage.owner().filter(|id| self.undone.contains(*id)) {
                    self.comes_back(&below.clone());
                }
            }
        }
    }

    #[test]
    fn a_pilot_that_finds_its_version_leaves_it_to_whom_it_was_brought_by() {
        let mut device = Device::new(1);
        let pilot = device.takes(2);
        let all = device.takes(2);
        assert_eq!(device.lineage.owner(), Some(&pilot));
        device.undo(&all, false);
        assert_eq!(device.runs, Some(version(2)));
        device.undo(&pilot, false);
        assert_eq!(device.runs, Some(version(1)));
    }

    proptest! {
        /// However versions follow each other: undone from the newest to the oldest, each rollout takes away what it
        /// brought, and the first version is left.
        #[test]
        fn undone_in_turn_they_leave_the_first_version(taken in prop::collection::vec(1u8..5, 1..9)) {
            let mut device = Device::new(0);
            let rollouts: Vec<(RolloutId, u8)> =
                taken.iter().map(|number| (device.takes(*number), *number)).collect();
            for (rollout, number) in rollouts.iter().rev() {
                let was = device.lineage.owner() == Some(rollout);
                device.undo(rollout, false);
                prop_assert!(device.lineage.owner() != Some(rollout));
                prop_assert!(!was || device.runs != Some(version(*number)));
            }
            prop_assert_eq!(device.runs, Some(version(0)));
        }

        /// No way back ends on what a rollout brought that is itself undone, also where a device was away when that
        /// was, and has not been taken back.
        #[test]
        fn a_way_back_never_ends_on_what_was_undone(
            steps in prop::collection::vec((1u8..6, any::<prop::sample::Index>(), any::<bool>(), any::<bool>()), 1..12)
        ) {
            let mut device = Device::new(0);
            for (number, which, undo, away) in steps {
                if !undo {
                    device.takes(number);
                    continue;
                }
                let others: Vec<RolloutId> = device.rollouts.keys().skip(1).cloned().collect();
                // As people do it: the last of those that are not undone.
                let open = others.iter().rfind(|id| !device.undone.contains(*id));
                let Some(rollout) = open.or_else(|| others.get(which.index(others.len().max(1)))) else {
                    continue;
                };
                let before = device.runs.clone();
                device.undo(&rollout.clone(), away);
                let owner = device.lineage.owner();
                if device.runs != before {
                    prop_assert!(owner.is_none_or(|owner| !device.undone.contains(owner)));
                }
            }
        }
    }
}
