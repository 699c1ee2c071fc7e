//! Starting a rollout, or looking at what it would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::records::{MembersRow, Newest, RolloutRow, Runs, THINGS_PER_ROW, WaveRow, key};
use super::rollouts::{HARDWARE_ATTRIBUTE, ZONE_ATTRIBUTE};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::rollout::{
    Devices, Forecast, Metric, Rate, Rollout, RolloutSpec, Rules, WavePlan, WaveSpec, Window,
    assign, zone,
};
use crate::{Error, FirmwareName, FirmwareVersion, RolloutId};

/// The body of a request to start a rollout. What is said here holds for every wave that does not say it
/// otherwise.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRollout {
    /// The firmware.
    pub name: FirmwareName,
    /// Its version.
    pub version: FirmwareVersion,
    /// The group it is for.
    pub group: String,
    /// One wave of everything where empty.
    #[serde(default)]
    pub waves: Vec<WaveRequest>,
    /// Not before this time, seconds since 1970.
    pub start_at: Option<u64>,
    /// When devices may begin: `CRON/DURATION`.
    pub window: Option<Window>,
    /// The zone of the window where a device names none.
    pub zone: Option<String>,
    /// Most devices told within a minute.
    pub rate: Option<Rate>,
    /// How long a wave that is good is left alone.
    pub soak_seconds: Option<u64>,
    /// A wave is good once this percentage has succeeded.
    pub success: Option<u8>,
    /// Abort at this percentage of failures in the current wave.
    pub abort_failed: Option<u8>,
    /// Not before so many have finished; 1 unless said otherwise.
    pub abort_min: Option<u32>,
    /// How long a device may be at it.
    pub timeout_minutes: Option<u32>,
    /// How often a device that failed or timed out is tried again.
    pub retry: Option<u32>,
    /// The percentage of failures that is usual; more stops the rollout.
    pub alarm: Option<u8>,
    /// What updated devices are compared in with those that were not updated yet.
    #[serde(default)]
    pub gates: Vec<Metric>,
    /// How long each is looked at for that.
    pub watch_seconds: Option<u64>,
    /// People who must approve each wave after the first.
    pub approvers: Option<u32>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// A wave in a request: its size alone, or an object with its size and rules of its own.
#[derive(Clone, Debug)]
pub struct WaveRequest(WaveFields);

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WaveFields {
    size: WaveSpec,
    start_at: Option<u64>,
    window: Option<Window>,
    zone: Option<String>,
    rate: Option<Rate>,
    soak_seconds: Option<u64>,
    success: Option<u8>,
    abort_failed: Option<u8>,
    abort_min: Option<u32>,
    timeout_minutes: Option<u32>,
    retry: Option<u32>,
    gates: Option<Vec<Metric>>,
    approvers: Option<u32>,
}

impl From<WaveSpec> for WaveRequest {
    fn from(size: WaveSpec) -> Self {
        Self(WaveFields {
            size,
            start_at: None,
            window: None,
            zone: None,
            rate: None,
            soak_seconds: None,
            success: None,
            abort_failed: None,
            abort_min: None,
            timeout_minutes: None,
            retry: None,
            gates: None,
            approvers: None,
        })
    }
}

impl<'de> Deserialize<'de> for WaveRequest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Wave;
        impl<'de> Visitor<'de> for Wave {
            type Value = WaveRequest;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a wave: its size as text, or an object with `size` and rules")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<WaveRequest, E> {
                text.parse::<WaveSpec>()
                    .map(WaveRequest::from)
                    .map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WaveRequest, A::Error> {
                WaveFields::deserialize(de::value::MapAccessDeserializer::new(map)).map(WaveRequest)
            }
        }
        from.deserialize_any(Wave)
    }
}

impl StartRollout {
    fn rules(&self) -> Rules {
        let usual = Rules::default();
        Rules {
            abort_failed_percent: self.abort_failed,
            abort_min: self.abort_min.unwrap_or(usual.abort_min),
            timeout_minutes: self.timeout_minutes.unwrap_or(usual.timeout_minutes),
            window: self.window.clone(),
            zone: self.zone.clone(),
            rate_per_minute: self.rate.map(|rate| rate.per_minute),
            rate_growth: self.rate.and_then(|rate| rate.growth),
            soak_seconds: self.soak_seconds.unwrap_or(usual.soak_seconds),
            success_percent: self.success,
            retries: self.retry.unwrap_or(usual.retries),
            alarm_percent: self.alarm,
            gates: self.gates.clone(),
            watch_seconds: self.watch_seconds.unwrap_or(usual.watch_seconds),
            approvers: self.approvers.unwrap_or(usual.approvers),
        }
    }
}

impl WaveFields {
    fn plan(&self, usual: &Rules) -> WavePlan {
        let (rate, growth) = match self.rate {
            Some(rate) => (Some(rate.per_minute), rate.growth),
            None => (usual.rate_per_minute, usual.rate_growth),
        };
        let rules = Rules {
            abort_failed_percent: self.abort_failed.or(usual.abort_failed_percent),
            abort_min: self.abort_min.unwrap_or(usual.abort_min),
            timeout_minutes: self.timeout_minutes.unwrap_or(usual.timeout_minutes),
            window: self.window.clone().or_else(|| usual.window.clone()),
            zone: self.zone.clone().or_else(|| usual.zone.clone()),
            rate_per_minute: rate,
            rate_growth: growth,
            soak_seconds: self.soak_seconds.unwrap_or(usual.soak_seconds),
            success_percent: self.success.or(usual.success_percent),
            retries: self.retry.unwrap_or(usual.retries),
            alarm_percent: None,
            gates: self.gates.clone().unwrap_or_else(|| usual.gates.clone()),
            watch_seconds: usual.watch_seconds,
            approvers: self.approvers.unwrap_or(usual.approvers),
        };
        WavePlan {
            size: self.size.clone(),
            start_at: self.start_at,
            rules,
        }
    }
}

/// A rollout that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Started {
    /// Its id.
    pub id: RolloutId,
    /// What it will not do though one may think so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Ota {
    /// Starts a rollout; `by` is who says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Rollout`] in words, [`Error::NotFound`] for the firmware, the
    /// registry's for the group, and those of [`crate::Manifest::verify`] where devices would refuse it.
    pub fn start_rollout(
        &self,
        request: &StartRollout,
        by: &str,
        at: SystemTime,
    ) -> Result<Started, Error> {
        let (mut rollout, _) = self.planned(request, at)?;
        let mut warnings = self.doubts(&rollout, seconds(at))?;
        warnings.extend(self.outsiders(request)?);
        rollout.id = self.change(at, |changes| {
            let last: Option<Newest> = changes.rows.get(key::NEWEST_ROLLOUT)?;
            let last = match last {
                Some(last) => Some(last.rollout),
                // Nothing was started since this is written down.
                None => self.newest_rollout()?,
            };
            let id = new_id(at, last.as_ref())?;
            let newest = Newest {
                rollout: id.clone(),
            };
            changes.rows.put(key::NEWEST_ROLLOUT.to_owned(), &newest)?;
            Ok(id)
        })?;
        let mut row = RolloutRow {
            id: rollout.id.clone(),
            spec: rollout.spec.clone(),
            group: request.group.clone(),
            state: rollout.state,
            reason: None,
            waves: rollout.waves.iter().map(WaveRow::of).collect(),
            created_at: seconds(at),
            undone: rollout.undone,
            health: Vec::new(),
            looked_at: 0,
            log: Vec::new(),
        };
        row.note(seconds(at), "start", Some(by));
        // The members first: a rollout that is there is there whole.
        for (index, wave) in rollout.waves.iter().enumerate() {
            for (part, things) in wave.things.chunks(THINGS_PER_ROW).enumerate() {
                let mut rows = Transaction::new(&self.inner.table);
                let key = format!("{}{part:06}", key::members(&rollout.id, index));
                rows.put(
                    key,
                    &MembersRow {
                        things: things.to_vec(),
                    },
                )?;
                rows.commit()?;
            }
        }
        self.change(at, |changes| {
            changes.rollouts.insert(rollout.id.clone());
            changes.rows.put(key::rollout(&rollout.id), &row)
        })?;
        Ok(Started {
            id: rollout.id,
            warnings,
        })
    }

    /// The rollout with the greatest id, looked for among all.
    fn newest_rollout(&self) -> Result<Option<RolloutId>, Error> {
        let keys = Transaction::new(&self.inner.table).keys(key::ROLLOUTS, usize::MAX / 2)?;
        let id = keys
            .last()
            .and_then(|last| last.strip_prefix(key::ROLLOUTS));
        Ok(id.and_then(|id| id.parse().ok()))
    }

    /// What a rollout would do, told to nobody.
    ///
    /// # Errors
    /// As [`Ota::start_rollout`].
    pub fn forecast_rollout(
        &self,
        request: &StartRollout,
        at: SystemTime,
    ) -> Result<Forecast, Error> {
        let (rollout, devices) = self.planned(request, at)?;
        let mut warnings = self.doubts(&rollout, seconds(at))?;
        warnings.extend(self.outsiders(request)?);
        Ok(Forecast {
            warnings,
            ..rollout.forecast(devices, seconds(at))?
        })
    }

    /// The rollout that was asked for, checked, and what its devices say of their time zones.
    fn planned(&self, request: &StartRollout, at: SystemTime) -> Result<(Rollout, Devices), Error> {
        let now = seconds(at);
        self.still_good(&request.name, &request.version, now)?;
        let rules = request.rules();
        rules.check(now)?;
        let mut plans: Vec<WavePlan> = request
            .waves
            .iter()
            .map(|wave| wave.0.plan(&rules))
            .collect();
        if plans.is_empty() {
            plans.push(WaveRequest::from(WaveSpec::Percent(100)).0.plan(&rules));
        }
        // What is said of all waves is said of those after the first.
        if let Some(first) = plans.first_mut() {
            let own = request.waves.first().and_then(|wave| wave.0.approvers);
            first.rules.approvers = own.unwrap_or_default();
        }
        let group = self.members(&request.group)?;
        let mut named = BTreeMap::new();
        for plan in &plans {
            if let WaveSpec::Group(name) = &plan.size {
                named.insert(
                    name.clone(),
                    self.members(name)?.into_iter().collect::<BTreeSet<_>>(),
                );
            }
        }
        let sizes: Vec<WaveSpec> = plans.iter().map(|plan| plan.size.clone()).collect();
        let mut kinds = BTreeMap::new();
        for thing in &group {
            kinds.insert(thing.clone(), self.kind_of(thing, &request.name)?);
        }
        let things = assign(group, &sizes, &named, |thing| kinds.get(thing))?;
        let spec = RolloutSpec {
            name: request.name.clone(),
            version: request.version.clone(),
            start_at: request.start_at,
            rules,
        };
        let waves = plans
            .into_iter()
            .zip(things)
            .map(|(plan, (_, things))| (plan, things))
            .collect();
        let rollout = Rollout::new(new_id(at, None)?, spec, waves, now)?;
        let mut devices = Devices::new();
        for wave in &rollout.waves {
            let Some(window) = &wave.rules.window else {
                continue;
            };
            let mut known = BTreeSet::new();
            for thing in &wave.things {
                let Some(name) = self.attribute_of(thing, ZONE_ATTRIBUTE)? else {
                    continue;
                };
                if !known.contains(&name) {
                    let whose = format!("the attribute timezone of {thing},");
                    window.check(&zone(&name, &whose)?, now)?;
                    known.insert(name.clone());
                }
                devices.entry(thing.clone()).or_default().zone = Some(name);
            }
        }
        Ok((rollout, devices))
    }

    /// Of each wave of a group's members, how many of them are not in the rollout's group and so get nothing.
    fn outsiders(&self, request: &StartRollout) -> Result<Vec<String>, Error> {
        let rules = request.rules();
        let mut said = Vec::new();
        for wave in &request.waves {
            let WaveSpec::Group(name) = wave.0.plan(&rules).size else {
                continue;
            };
            let group: BTreeSet<String> = self.members(&request.group)?.into_iter().collect();
            let members = self.members(&name)?;
            let outside = members
                .iter()
                .filter(|thing| !group.contains(*thing))
                .count();
            if outside > 0 {
                said.push(format!(
                    "wave `group:{name}`: {outside} of the {} devices of group {name} are not in group {} and get nothing",
                    members.len(),
                    request.group
                ));
            }
        }
        Ok(said)
    }

    fn kind_of(&self, thing: &str, name: &FirmwareName) -> Result<Kind, Error> {
        let runs = self.inner.table.get_as::<Runs>(&key::runs(thing, name))?;
        let newest = runs.and_then(|runs| runs.value.newest());
        let version = newest.map(|newest| newest.version);
        Ok((self.attribute_of(thing, HARDWARE_ATTRIBUTE)?, version))
    }
}

/// What is alike about devices: their hardware, as far as the registry says, and the version they run.
type Kind = (Option<String>, Option<FirmwareVersion>);

/// In the order in which they were started, so that a list of rollouts is their history and a newer rollout is known by
/// its id: the time in milliseconds, or, where the clock stands before the last one, what follows that one's; the random
/// half keeps two of one moment apart.
fn new_id(at: SystemTime, last: Option<&RolloutId>) -> Result<RolloutId, Error> {
    let mut bytes = [0; 4];
    rand::fill(&mut bytes).map_err(|_| Error::Rollout {
        why: "the system gave no randomness for its id".into(),
    })?;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = (since.as_secs() << 12) | u64::from(since.subsec_millis());
    let after = last.and_then(moment_of).map_or(0, |last| last + 1);
    format!("r-{:012x}-{}", moment.max(after), HEXLOWER.encode(&bytes)).parse()
}

/// The moment in an id: seconds, and in the last twelve bits milliseconds.
fn moment_of(id: &RolloutId) -> Option<u64> {
    let (moment, _) = id.as_str().strip_prefix("r-")?.split_once('-')?;
    u64::from_str_radix(moment, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_later_rollout_has_a_greater_id_whatever_the_clock_says() {
        let now = SystemTime::now();
        let ahead = now + Duration::from_secs(60 * 86_400);
        let first = new_id(ahead, None).unwrap();
        let mut last = first.clone();
        for at in [now, now, UNIX_EPOCH, ahead, now] {
            let next = new_id(at, Some(&last)).unwrap();
            assert!(next > last, "{next} {last}");
            last = next;
        }
        assert!(moment_of(&last) < moment_of(&first).map(|first| first + 4096));
        // Where the clock is right it is the time.
        let later = new_id(
            now + Duration::from_secs(1),
            Some(&new_id(now, None).unwrap()),
        )
        .unwrap();
        let whole = moment_of(&later).map(|moment| moment >> 12);
        let since = now.duration_since(UNIX_EPOCH).unwrap().as_secs() + 1;
        assert_eq!(whole, Some(since));
    }
}
