//! What runs where: the versions that devices were brought to by jobs and those they say they run, now and
//! before. Where the two differ, that is drift.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Ota;
use super::executions::Changes;
use super::lineage::Lineage;
use super::pictures::News;
use super::records::{Execution, Install, Runs, key};
use super::refusals::Refusal;
use super::rollouts::HARDWARE_ATTRIBUTE;
use crate::job::StatusDetails;
use crate::{Error, FirmwareName, FirmwareVersion, RolloutId};

/// The words in a device's `statusDetails` by which it says what it runs.
const NAME_DETAIL: &str = "firmwareName";
const VERSION_DETAIL: &str = "firmwareVersion";
/// The word by which it says how it is, and that it is well.
const HEALTH_DETAIL: &str = "health";
const WELL: &str = "ok";
/// Versions of one firmware on one thing that are remembered.
const MAX_HISTORY: usize = 20;
/// Firmwares of one thing that are remembered.
const MAX_FIRMWARES: usize = 16;
/// Rows read in one go.
const ROWS_AT_ONCE: usize = 1000;
/// Most moments one census looks at.
pub const MAX_MOMENTS: usize = 400;

/// A version that a thing ran from a moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Which.
    pub version: FirmwareVersion,
    /// Since when (seconds since 1970).
    pub since: u64,
    /// Whether it is only what the device says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
}

/// What a device says it runs, where that is not what it was brought to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reported {
    pub(super) version: FirmwareVersion,
    pub(super) at: u64,
}

/// One firmware on one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The thing.
    pub thing: String,
    /// The firmware.
    pub name: FirmwareName,
    /// The version a job brought it to; `None` where none has.
    pub version: Option<FirmwareVersion>,
    /// Since when (seconds since 1970).
    pub since: Option<u64>,
    /// The rollout whose job that was.
    pub rollout: Option<RolloutId>,
    /// The version the device says it runs, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<FirmwareVersion>,
    /// Since when it says so (seconds since 1970).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<u64>,
    /// Whether it was brought to one version and says it runs another.
    pub drift: bool,
    /// Its hardware, as the registry has it.
    pub hardware: Option<String>,
    /// What it ran, the newest last.
    pub history: Vec<Ran>,
    /// What the thing has refused of jobs that this server does not know, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusal>,
}

/// Which of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningFilter {
    /// This thing alone.
    pub thing: Option<String>,
    /// This firmware alone.
    pub name: Option<FirmwareName>,
    /// Those that run this version.
    pub version: Option<FirmwareVersion>,
    /// Members of this group and of those below it.
    pub group: Option<String>,
    /// Things whose attribute `hardware` says so.
    pub hardware: Option<String>,
    /// Only those that drifted.
    pub drift: bool,
}

/// How many things run a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The firmware.
    pub name: FirmwareName,
    /// The version.
    pub version: FirmwareVersion,
    /// The hardware, as the registry has it now.
    pub hardware: Option<String>,
    /// Things that ran it then.
    pub count: u64,
    /// Those of them that were brought to another version and say they run this one; known of now only.
    pub drifted: u64,
}

/// What ran at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Census {
    /// The moment (seconds since 1970).
    pub at: u64,
    /// By firmware, version and hardware.
    pub versions: Vec<Share>,
}

impl Runs {
    fn ran(&mut self, version: &FirmwareVersion, since: u64, reported: bool) {
        if self
            .history
            .last()
            .is_some_and(|last| last.version == *version)
        {
            return;
        }
        self.history.push(Ran {
            version: version.clone(),
            since,
            reported,
        });
        let over = self.history.len().saturating_sub(MAX_HISTORY);
        self.history.drain(..over);
    }

    /// A row of before there was a history has one.
    fn whole(mut self) -> Self {
        if let (true, Some(version)) = (self.history.is_empty(), self.version.clone()) {
            let since = self.since;
            self.ran(&version, since, false);
        }
        if let (true, Some(version)) = (self.lineage.is_empty(), self.version.clone()) {
            self.lineage = Lineage::of(version, self.rollout.clone());
        }
        self
    }

    /// The rollout whose version it was brought to, which is that one's to take away: the one that brought it there
    /// first, and after a way back the one below.
    pub(super) fn owner(self) -> Option<RolloutId> {
        self.whole().lineage.owner().cloned()
    }

    /// The version it has now, for a rollout that is about to bring it another: what it was brought to, or the
    /// device's own word since (which `is_kept` must know), or where that is what `install` brings, what it was brought
    /// to before.
    pub(super) fn before(
        self,
        install: &Install,
        is_kept: impl FnOnce(&FirmwareVersion) -> Result<bool, Error>,
        undone: impl FnMut(&RolloutId) -> Result<bool, Error>,
    ) -> Result<Option<FirmwareVersion>, Error> {
        let runs = self.whole();
        let Some(newest) = runs.history.last() else {
            return Ok(None);
        };
        let own_word = newest.reported && runs.version.as_ref() != Some(&newest.version);
        if own_word && (install.back || newest.version != install.version) {
            let kept = is_kept(&newest.version)?;
            return Ok(kept.then(|| newest.version.clone()));
        }
        if install.back {
            return Ok(Some(newest.version.clone()));
        }
        Ok(runs.lineage.below(&install.rollout, undone)?.cloned())
    }

    /// What it was brought to, or says it runs since.
    pub(super) fn newest(self) -> Option<Ran> {
        self.whole().history.pop()
    }

    /// The version it was brought to; what it says, where it never was.
    pub(super) fn brought_or_said(self) -> Option<FirmwareVersion> {
        match self.version {
            Some(version) => Some(version),
            None => self.newest().map(|newest| newest.version),
        }
    }

    /// The version a job brought the thing to, from now on; it had `before` when that was begun.
    fn installed(self, install: &Install, before: Option<&FirmwareVersion>, now: u64) -> Self {
        let mut runs = self.whole();
        if !runs.lineage.has_already(install, before) {
            runs.rollout = Some(install.rollout.clone());
        }
        runs.lineage.installed(install, before);
        if runs.version.as_ref() != Some(&install.version) || runs.reported.is_some() {
            runs.since = now;
        }
        runs.version = Some(install.version.clone());
        runs.reported = None;
        runs.ran(&install.version, now, false);
        runs
    }

    /// The version the device says it runs.
    fn told(self, version: &FirmwareVersion, now: u64) -> Self {
        let mut runs = self.whole();
        if runs.version.as_ref() == Some(version) {
            runs.reported = None;
        } else if runs
            .reported
            .as_ref()
            .is_none_or(|known| known.version != *version)
        {
            runs.reported = Some(Reported {
                version: version.clone(),
                at: now,
            });
        }
        runs.ran(version, now, true);
        runs
    }

    /// Where it drifted, to which version.
    pub(super) fn drift(&self) -> Option<&FirmwareVersion> {
        let reported = self.reported.as_ref().filter(|_| self.version.is_some());
        reported.map(|reported| &reported.version)
    }

    /// What it ran at `moment`.
    fn at(&self, moment: u64) -> Option<&FirmwareVersion> {
        let then = self.history.iter().rev().find(|ran| ran.since <= moment);
        then.map(|ran| &ran.version)
    }

    fn shown(self, thing: &str, name: FirmwareName, hardware: Option<String>) -> Running {
        Running {
            thing: thing.to_owned(),
            name,
            drift: self.drift().is_some(),
            since: self.version.is_some().then_some(self.since),
            version: self.version,
            rollout: self.rollout,
            reported_at: self.reported.as_ref().map(|reported| reported.at),
            reported: self.reported.map(|reported| reported.version),
            hardware,
            history: self.history,
            refused: Vec::new(),
        }
    }
}

impl Changes<'_> {
    /// The version a thing is known to run from now on.
    pub(super) fn runs(&mut self, execution: &Execution, install: &Install) -> Result<(), Error> {
        let thing = &*execution.thing;
        let row = key::runs(thing, &install.name);
        let runs: Runs = self.rows.get(&row)?.unwrap_or_default();
        let runs = runs.installed(install, execution.before.as_ref(), self.now.seconds);
        self.tell_of(thing, install, &runs)?;
        if let Some(below) = runs.clone().owner().filter(|_| install.back)
            && self.is_undone(&below)?
        {
            // It was undone while this version lay over its own.
            self.rollouts.insert(below);
        }
        self.rows.put(row, &runs)
    }

    /// A device may say what it runs and how it is whenever it says something of a job.
    pub(super) fn said_to_run(
        &mut self,
        thing: &str,
        details: Option<&StatusDetails>,
    ) -> Result<(), Error> {
        let Some(details) = details else {
            return Ok(());
        };
        let said = |word| details.get(word).map(String::as_str);
        if said(HEALTH_DETAIL).is_some_and(|health| health != WELL) {
            self.unwell.insert(thing.to_owned());
        }
        let (Some(Ok(name)), Some(Ok(version))) = (
            said(NAME_DETAIL).map(str::parse::<FirmwareName>),
            said(VERSION_DETAIL).map(str::parse::<FirmwareVersion>),
        ) else {
            return Ok(());
        };
        self.told_to_run(thing, &name, &version)
    }

    /// What a thing is said to run, without a rollout that brought it there.
    pub(super) fn told_to_run(
        &mut self,
        thing: &str,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> Result<(), Error> {
        let row = key::runs(thing, name);
        let known: Option<Runs> = self.rows.get(&row)?;
        if known.is_none() {
            let others = self.rows.keys(&key::runs_of(thing), MAX_FIRMWARES)?;
            if others.len() >= MAX_FIRMWARES {
                return Ok(());
            }
        }
        let told = known
            .clone()
            .unwrap_or_default()
            .told(version, self.now.seconds);
        if known.as_ref() == Some(&told) {
            return Ok(());
        }
        if told.version.is_none() {
            self.news.push(News::Runs {
                thing: thing.to_owned(),
                name: name.clone(),
                version: version.clone(),
                by: None,
                owner: None,
            });
        }
        self.rows.put(row, &told)
    }
}

impl Ota {
    /// What runs where, in the order of the things, at most `limit` after the key `after`; with the key of
    /// the last one where there are more.
    ///
    /// # Errors
    /// The registry's for a group that is not there; where the store fails.
    pub fn running(
        &self,
        filter: &RunningFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Running>, Option<String>), Error> {
        let mut found: Vec<(String, Running)> = Vec::new();
        let mut more = false;
        self.each_running(filter, after, |place, running| {
            if found.len() >= limit.max(1) {
                more = true;
                return false;
            }
            found.push((place, running));
            true
        })?;
        let next = found
            .last()
            .filter(|_| more)
            .map(|(place, _)| place.clone());
        let mut found: Vec<Running> = found.into_iter().map(|(_, running)| running).collect();
        for running in &mut found {
            running.refused = self.refused(&running.thing)?;
        }
        Ok((found, next))
    }

    /// How many things ran what at each of these moments (seconds since 1970). Groups and hardware are those
    /// of now.
    ///
    /// # Errors
    /// As [`Ota::running`].
    pub fn census(&self, filter: &RunningFilter, moments: &[u64]) -> Result<Vec<Census>, Error> {
        type Kind = (FirmwareName, FirmwareVersion, Option<String>);
        let moments = moments.get(..MAX_MOMENTS).unwrap_or(moments);
        let mut counts: Vec<BTreeMap<Kind, (u64, u64)>> = vec![BTreeMap::new(); moments.len()];
        self.each_running(filter, None, |_, running| {
            let runs = Runs {
                history: running.history,
                ..Runs::default()
            };
            for (at, counts) in moments.iter().zip(&mut counts) {
                let Some(version) = runs.at(*at) else {
                    continue;
                };
                let kind = (
                    running.name.clone(),
                    version.clone(),
                    running.hardware.clone(),
                );
                let (count, drifted) = counts.entry(kind).or_default();
                *count += 1;
                *drifted += u64::from(running.drift && running.reported.as_ref() == Some(version));
            }
            true
        })?;
        let share = |((name, version, hardware), (count, drifted))| Share {
            name,
            version,
            hardware,
            count,
            drifted,
        };
        let censuses = moments.iter().zip(counts).map(|(at, counts)| Census {
            at: *at,
            versions: counts.into_iter().map(share).collect(),
        });
        Ok(censuses.collect())
    }

    /// Shows `take` what runs where, with its key, until it has enough.
    fn each_running(
        &self,
        filter: &RunningFilter,
        after: Option<&str>,
        mut take: impl FnMut(String, Running) -> bool,
    ) -> Result<(), Error> {
        let group: Option<BTreeSet<String>> = match &filter.group {
            Some(group) => Some(self.members(group)?.into_iter().collect()),
            None => None,
        };
        let prefix = match &filter.thing {
            Some(thing) => key::runs_of(thing),
            None => key::RUNS.to_owned(),
        };
        let mut after = after.map(|after| format!("{}{after}", key::RUNS));
        loop {
            let table = &self.inner.table;
            let rows = table.scan_as::<Runs>(&prefix, after.as_deref(), ROWS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (row, runs) in rows {
                let place = row.strip_prefix(key::RUNS).unwrap_or_default();
                let Some((thing, name)) = place.split_once('/') else {
                    continue;
                };
                let Ok(name) = name.parse::<FirmwareName>() else {
                    continue;
                };
                let runs = runs.value.whole();
                let version = runs.history.last().map(|last| &last.version);
                let fits = filter.name.as_ref().is_none_or(|asked| *asked == name)
                    && filter
                        .version
                        .as_ref()
                        .is_none_or(|asked| Some(asked) == version)
                    && group.as_ref().is_none_or(|group| group.contains(thing))
                    && (!filter.drift || runs.drift().is_some());
                if !fits {
                    continue;
                }
                let hardware = self.attribute_of(thing, HARDWARE_ATTRIBUTE)?;
                if filter.hardware.is_some() && filter.hardware != hardware {
                    continue;
                }
                if !take(place.to_owned(), runs.shown(thing, name, hardware)) {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> FirmwareVersion {
        text.parse().unwrap()
    }

    fn install(to: &str) -> Install {
        Install {
            rollout: "r-1".parse().unwrap(),
            back: false,
            name: "lamp".parse().unwrap(),
            version: version(to),
        }
    }

    #[test]
    fn what_a_device_says_is_drift_only_against_what_it_was_brought_to() {
        let fresh = Runs::default().told(&version("0.9"), 10);
        assert_eq!((fresh.drift(), fresh.at(10)), (None, Some(&version("0.9"))));
        let brought = fresh.installed(&install("1.0"), None, 20);
        assert_eq!(
            (brought.drift(), &brought.version),
            (None, &Some(version("1.0")))
        );
        let drifted = brought.clone().told(&version("0.9"), 30);
        assert_eq!(drifted.drift(), Some(&version("0.9")));
        assert_eq!(
            drifted.clone().told(&version("0.9"), 40),
            drifted,
            "said again it is no news"
        );
        assert_eq!(drifted.clone().told(&version("1.0"), 40).drift(), None);
        let mended = drifted.installed(&install("1.0"), None, 50);
        assert_eq!((mended.drift(), mended.since), (None, 50));
        let then: Vec<Option<&str>> = [9, 10, 25, 30, 49, 50]
            .map(|at| mended.at(at).map(FirmwareVersion::as_str))
            .to_vec();
        assert_eq!(
            then,
            [
                None,
                Some("0.9"),
                Some("1.0"),
                Some("0.9"),
                Some("0.9"),
                Some("1.0")
            ]
        );
    }

    #[test]
    fn a_row_of_before_there_was_a_history_is_read() {
        let old: Runs = serde_json::from_str(r#"{"version":"1.0"}"#).unwrap();
        let whole = old.whole();
        assert_eq!(whole.at(0), Some(&version("1.0")));
        assert_eq!(whole.installed(&install("2.0"), None, 9).history.len(), 2);
    }

    #[test]
    fn a_history_is_bounded() {
        let mut runs = Runs::default();
        for number in 0..100 {
            runs = runs.installed(&install(&format!("1.{number}")), None, number);
        }
        assert_eq!(runs.history.len(), MAX_HISTORY);
        assert_eq!(runs.at(99), Some(&version("1.99")));
    }
}
