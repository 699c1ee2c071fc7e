//! Whether a device can be brought from one version to another: what the signed manifests allow. It is said when a
//! rollout is planned and when it is undone, and nobody is told what every device would refuse.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::records::{Firmware, Runs, key};
use super::{Ota, seconds};
use crate::rollout::{Command, Planner, Rollout};
use crate::{Error, FirmwareName, FirmwareVersion, RolloutId};

/// After so many seconds it is found out anew whether a version is good: its manifest may come again, or its key go.
const GOOD_SECONDS: u64 = 5;

/// Times are seconds since 1970.
fn day(at: u64) -> String {
    let at = i64::try_from(at).ok();
    let at = at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.map_or_else(|| "a day".to_owned(), |at| at.to_string())
}

impl Ota {
    fn known(
        &self,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> Result<Option<Firmware>, Error> {
        let row = self
            .inner
            .table
            .get_as::<Firmware>(&key::firmware(name, version))?;
        Ok(row.map(|row| row.value))
    }

    /// Why no device that runs `from` can be brought to `to` (at `now`), where that is so.
    pub(super) fn barred(
        &self,
        name: &FirmwareName,
        from: &FirmwareVersion,
        to: &FirmwareVersion,
        now: u64,
    ) -> Result<Option<String>, Error> {
        let target = match self.still_good(name, to, now) {
            Ok(target) => target,
            Err(error @ (Error::Store(_) | Error::Fleet(_) | Error::Io { .. })) => {
                return Err(error);
            }
            Err(error) => return Ok(Some(error.to_string())),
        };
        let reached = self.known(name, from)?.map_or(0, |from| from.counter);
        if target.counter < reached {
            return Ok(Some(format!(
                "the security counter of {name} {to} is {}, lower than the {reached} of {from}",
                target.counter
            )));
        }
        let requires = target
            .requires
            .filter(|least| from.precedence(least).is_lt());
        Ok(requires.map(|least| format!("{name} {to} requires version {least} or newer")))
    }

    /// Tells a rollout that was turned round whereto its devices cannot be brought.
    pub(super) fn bar(&self, planner: &mut Planner, now: u64) -> Result<(), Error> {
        let spec = planner.rollout().spec.clone();
        let back = planner.rollout().undone % 2 == 1;
        let mut barred = BTreeMap::new();
        // On the way forward again each comes from where it once took it.
        let versions = if back {
            planner.versions()
        } else {
            [spec.version.clone()].into()
        };
        for version in versions {
            if back && version == spec.version {
                continue;
            }
            if let Some(why) = self.barred(&spec.name, &spec.version, &version, now)? {
                barred.insert(version, why);
            }
        }
        planner.bar(barred);
        Ok(())
    }

    /// Tells a rollout that goes forward whether devices would still take its version; until when that is known.
    pub(super) fn withhold(&self, planner: &mut Planner, now: u64) -> Result<u64, Error> {
        let rollout = planner.rollout();
        let (name, version) = (rollout.spec.name.clone(), rollout.spec.version.clone());
        let goes_on = !rollout.state.is_final() || planner.still_tells();
        let forward = rollout.undone == 0 && goes_on;
        let (why, until) = match self.still_good(&name, &version, now) {
            _ if !forward => (None, u64::MAX),
            Ok(firmware) => (None, firmware.expires),
            Err(error @ (Error::Store(_) | Error::Fleet(_) | Error::Io { .. })) => {
                return Err(error);
            }
            // What lies on the disk is mended here, and says nothing of what was signed.
            Err(Error::Damaged { .. }) => (None, u64::MAX),
            Err(error) => (Some(error.to_string()), u64::MAX),
        };
        planner.withhold(why);
        Ok(until.min(now.saturating_add(GOOD_SECONDS)))
    }

    /// The same, where it was turned round at all.
    pub(super) fn bar_if_turned(&self, planner: &mut Planner, now: u64) -> Result<(), Error> {
        if planner.rollout().undone == 0 {
            return Ok(());
        }
        self.bar(planner, now)
    }

    /// Refuses to turn a rollout round where that would bring no device anywhere, though there are some it should.
    pub(super) fn check_way_back(
        &self,
        id: &RolloutId,
        command: &Command,
        at: SystemTime,
    ) -> Result<(), Error> {
        let mut rollout = self.load(id)?;
        // It has told everybody, and waits for nobody.
        let tells = rollout.may_still_tell()
            && self
                .planner(rollout.clone(), &mut BTreeMap::new())?
                .still_tells();
        let over = rollout.state.is_final() && !tells;
        rollout.command(command.clone())?;
        let mut planner = self.planner(rollout, &mut BTreeMap::new())?;
        self.bar(&mut planner, seconds(at))?;
        let nobody = planner.nobody_turns().filter(|_| over);
        match planner.dead_end().or(nobody) {
            Some(why) => Err(Error::Invalid {
                field: command.as_str().into(),
                why,
            }),
            None => Ok(()),
        }
    }

    /// What devices would refuse of a rollout that is asked for, and of its way back, in words; an error where every
    /// device would.
    pub(super) fn doubts(&self, rollout: &Rollout, now: u64) -> Result<Vec<String>, Error> {
        let spec = &rollout.spec;
        let (name, version) = (&spec.name, &spec.version);
        let firmware = self.firmware(name, version)?;
        let mut doubts = rollout.blind_spots();
        let first = spec.start_at.unwrap_or(now).max(now);
        if first >= firmware.expires {
            return Err(Error::Rollout {
                why: format!(
                    "{name} {version} expires at {}, before it would begin ({}): sign it anew with a later --expires, or begin earlier",
                    day(firmware.expires),
                    day(first)
                ),
            });
        }
        let last = rollout.earliest_last_wave(now);
        if last >= firmware.expires {
            doubts.push(format!(
                "{name} {version} expires at {}, before its last wave can begin ({}): devices will refuse it from then on",
                day(firmware.expires),
                day(last)
            ));
        }
        let mut runs: BTreeMap<FirmwareVersion, usize> = BTreeMap::new();
        for thing in rollout.waves.iter().flat_map(|wave| &wave.things) {
            let row = self.inner.table.get_as::<Runs>(&key::runs(thing, name))?;
            if let Some(version) = row.and_then(|row| row.value.brought_or_said()) {
                *runs.entry(version).or_default() += 1;
            }
        }
        let devices: usize = rollout.waves.iter().map(|wave| wave.things.len()).sum();
        let unknown = devices - runs.values().sum::<usize>();
        if unknown > 0 {
            doubts.push(format!(
                "of {unknown} devices no version of {name} is known: they could not go back if this rollout were undone"
            ));
        }
        for (had, count) in runs {
            if had == *version {
                continue;
            }
            if let Some(why) = self.barred(name, &had, version, now)? {
                if count == devices {
                    return Err(Error::Rollout {
                        why: format!("every device would refuse {name} {version}: {why}"),
                    });
                }
                doubts.push(format!(
                    "{count} devices run {had} and will refuse it: {why}"
                ));
            } else if let Some(why) = self.barred(name, version, &had, last)? {
                doubts.push(format!(
                    "{count} devices run {had} and could not go back to it if this rollout were undone: {why}"
                ));
            }
        }
        Ok(doubts)
    }
}
