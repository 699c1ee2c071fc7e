//! What the room's thread knows of the rollouts under way. A picture is read from the rows once and then
//! follows the changes, so that a device's report costs what it changes and not what the fleet is large.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Ota;
use super::records::{Execution, Install};
use super::rollouts::{ZONE_ATTRIBUTE, part};
use crate::rollout::Planner;
use crate::{Error, ExecutionStatus, FirmwareName, FirmwareVersion, RolloutId};

/// Devices in all pictures together; beyond it the picture that was not asked for longest goes first.
const MAX_DEVICES: usize = 1_000_000;
/// Time zones are read anew after as many seconds, and one more for each so many devices.
const ZONES_AFTER_SECONDS: u64 = 60;
const ZONES_PER_SECOND: u64 = 1000;
/// After so many seconds it is found out anew to what the devices of a rollout cannot be brought.
const BARRED_SECONDS: u64 = 600;
/// After a round of a rollout its next one waits so many times as long as it took: three quarters of the
/// thread's time are for answering devices.
const REST: u32 = 3;
/// Rounds quicker than this need no rest.
const QUICK: Duration = Duration::from_millis(20);

/// What a change did that a picture must show.
#[derive(Debug)]
pub(super) enum News {
    /// An execution of a rollout's job stands so now.
    Execution {
        install: Install,
        execution: Box<Execution>,
    },
    /// A thing runs another version.
    Runs {
        thing: String,
        name: FirmwareName,
        version: FirmwareVersion,
        /// The rollout that has brought it there; `None` where it says so itself.
        by: Option<RolloutId>,
        /// The one whose version it is now.
        owner: Option<RolloutId>,
    },
    /// A thing is gone, and what was known of it.
    Forgotten { thing: String },
}

/// A rollout and its devices as the rows have them.
pub(super) struct Picture {
    pub(super) planner: Planner,
    /// For the health gates: who was updated when (seconds since 1970), as far as that was not looked at.
    pub(super) updated: BTreeMap<u64, BTreeSet<String>>,
    /// Until when what its devices cannot be brought to is known, and of which turn (seconds since 1970).
    barred_until: (u32, u64),
    /// Until when it is known whether devices would take its version (seconds since 1970).
    good_until: u64,
    /// When the time zones were read (seconds since 1970).
    zones_at: u64,
    /// Orders the pictures by when they were last asked for.
    asked: u64,
    rests_until: Option<Instant>,
}

/// The pictures there are.
#[derive(Default)]
pub(super) struct Pictures {
    of: BTreeMap<RolloutId, Picture>,
    asked: u64,
}

impl Picture {
    /// When it is to be found out anew whether its version is good, where that keeps it (seconds since 1970).
    pub(super) fn good_due(&self) -> Option<u64> {
        let rollout = self.planner.rollout();
        rollout.withheld.as_ref().map(|_| self.good_until)
    }

    /// When the time zones of its devices are to be read anew, where it has windows (seconds since 1970).
    pub(super) fn zones_due(&self) -> Option<u64> {
        let age = ZONES_AFTER_SECONDS + self.planner.len() as u64 / ZONES_PER_SECOND;
        let windows = self.planner.rollout().has_windows();
        windows.then(|| self.zones_at.saturating_add(age))
    }

    fn take(&mut self, install: &Install, execution: Execution) -> Result<(), Error> {
        let rollout = self.planner.rollout();
        let turn = rollout.undone;
        let slot = if !install.back {
            0
        } else if execution.job == rollout.back_job(turn, &install.version)? {
            1
        } else if turn > 1 && execution.job == rollout.back_job(turn - 1, &install.version)? {
            2
        } else {
            // Of a turn before those: nothing asks for it.
            return Ok(());
        };
        let thing = execution.thing.clone();
        let updated = slot == 0 && execution.status == ExecutionStatus::Succeeded;
        if updated && !rollout.gates().is_empty() {
            let then = self.updated.entry(execution.last_updated_at).or_default();
            then.insert(thing.clone());
        }
        let part = Some(part(execution, &install.version));
        self.planner.change(&thing, |device| match slot {
            0 => device.install = part,
            1 => device.rollback = part,
            _ => device.earlier = part,
        });
        Ok(())
    }
}

impl Pictures {
    /// Follows what has changed.
    pub(super) fn follow(&mut self, news: Vec<News>) -> Result<(), Error> {
        for news in news {
            match news {
                News::Execution { install, execution } => {
                    if let Some(picture) = self.of.get_mut(&install.rollout) {
                        picture.take(&install, *execution)?;
                    }
                }
                News::Runs {
                    thing,
                    name,
                    version,
                    by,
                    owner,
                } => {
                    let of_it =
                        |picture: &&mut Picture| picture.planner.rollout().spec.name == name;
                    for picture in self.of.values_mut().filter(of_it) {
                        let version = version.clone();
                        let own = &picture.planner.rollout().id;
                        let theirs = owner.as_ref().is_some_and(|owner| owner != own);
                        let moved_on = by.as_ref().is_some_and(|by| by != own);
                        picture.planner.change(&thing, |device| {
                            device.current = Some(version);
                            device.theirs = theirs;
                            device.moved_on = moved_on;
                        });
                    }
                }
                News::Forgotten { thing } => {
                    for picture in self.of.values_mut() {
                        picture.planner.change(&thing, |device| {
                            device.current = None;
                            device.theirs = false;
                            device.moved_on = false;
                            device.zone = None;
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// How long the rollout should be left alone yet.
    pub(super) fn rest(&self, id: &RolloutId) -> Option<Duration> {
        let until = self.of.get(id)?.rests_until?;
        until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// A round of this rollout began at `began` and is over.
    pub(super) fn rounded(&mut self, id: &RolloutId, began: Instant) {
        let took = began.elapsed();
        if let Some(picture) = self.of.get_mut(id) {
            picture.rests_until = (took > QUICK).then(|| Instant::now() + took * REST);
        }
    }

    pub(super) fn forget(&mut self, id: &RolloutId) {
        self.of.remove(id);
    }

    fn make_room(&mut self, for_: &RolloutId) {
        while self.of.len() > 1
            && self
                .of
                .values()
                .map(|picture| picture.planner.len())
                .sum::<usize>()
                > MAX_DEVICES
        {
            let others = self.of.iter().filter(|(id, _)| *id != for_);
            let Some((oldest, _)) = others.min_by_key(|(_, picture)| picture.asked) else {
                return;
            };
            let oldest = oldest.clone();
            self.of.remove(&oldest);
        }
    }
}

impl Ota {
    /// The picture of a rollout, as it stands now.
    pub(super) fn picture<'p>(
        &self,
        pictures: &'p mut Pictures,
        id: &RolloutId,
        now: u64,
    ) -> Result<&'p mut Picture, Error> {
        // In tests each picture is held against the rows, which must stand still meanwhile.
        #[cfg(test)]
        let _turn = self.turn();
        let news = std::mem::take(
            &mut *self
                .inner
                .news
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        if let Err(error) = pictures.follow(news) {
            pictures.of.clear();
            return Err(error);
        }
        let row = self.rollout_row(id)?;
        if !pictures.of.contains_key(id) {
            let mut picture = Picture {
                updated: BTreeMap::new(),
                planner: self.planner(self.load(id)?, &mut BTreeMap::new())?,
                zones_at: now,
                barred_until: (0, 0),
                good_until: 0,
                asked: 0,
                rests_until: None,
            };
            picture.updated = self.updated(&picture)?;
            pictures.of.insert(id.clone(), picture);
            pictures.make_room(id);
        }
        pictures.asked += 1;
        let asked = pictures.asked;
        let Some(picture) = pictures.of.get_mut(id) else {
            return Err(super::rollouts::missing(id));
        };
        picture.asked = asked;
        picture.planner.follow(row.into_bare());
        if picture.zones_due().is_some_and(|due| due <= now) {
            picture.planner.change_each(|thing, device| {
                device.zone = self.attribute_of(thing, ZONE_ATTRIBUTE)?;
                Ok::<(), Error>(())
            })?;
            picture.zones_at = now;
        }
        let turn = picture.planner.rollout().undone;
        if turn > 0 && (picture.barred_until.0 != turn || now >= picture.barred_until.1) {
            self.bar(&mut picture.planner, now)?;
            picture.barred_until = (turn, now.saturating_add(BARRED_SECONDS));
        }
        if now >= picture.good_until {
            picture.good_until = self.withhold(&mut picture.planner, now)?;
        }
        #[cfg(test)]
        picture.assert_is(&self.planner(picture.planner.rollout().clone(), &mut BTreeMap::new())?);
        Ok(picture)
    }
}

#[cfg(test)]
impl Picture {
    /// It shows what the planner asks for as the rows have it.
    fn assert_is(&self, rows: &Planner) {
        let bare = |planner: &Planner| -> Vec<(String, crate::rollout::Device)> {
            let bare = |(thing, device): (&str, &crate::rollout::Device)| {
                let mut device = device.clone();
                (device.reason, device.rollback_reason, device.zone) = (None, None, None);
                (thing.to_owned(), device)
            };
            planner.devices().map(bare).collect()
        };
        let id = &self.planner.rollout().id;
        assert_eq!(bare(&self.planner), bare(rows), "{id}");
    }
}
