//! How devices fare: what the broker and the devices themselves say of it, kept in memory for some hours and for
//! those that have said anything lately. Rollouts with health gates look at it period by period.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::pictures::Picture;
use super::records::{RolloutRow, key};
use super::rollouts::{missing, same};
use super::{Ota, seconds};
use crate::Error;
use crate::rollout::{Look, MAX_WATCH_SECONDS, Metric, RolloutState};

/// Signs kept of one thing.
const MAX_SIGNS: usize = 32;
/// Things of which signs are kept before those of which nothing is left are swept out.
const SWEEP_FLOOR: usize = 1024;
/// Waiting devices that one look takes in; they stand in the order of a hash.
const MAX_WAITING: usize = 20_000;
/// Periods that are made good when nobody looked for a while.
const MAX_PERIODS: u64 = 10;

/// Something that a device did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It connected.
    Connected,
    /// A connection of it ended, by its own wish or not.
    Disconnected {
        /// Whether it broke.
        broken: bool,
    },
    /// It did what its policies do not grant.
    Denied,
    /// It said that it is not well.
    Unwell,
}

#[derive(Default)]
struct Signs {
    /// Its connections.
    live: u32,
    last: VecDeque<(u64, Sign)>,
}

/// What is known of all.
struct Vitals {
    /// Since when (seconds since 1970).
    since: u64,
    of: HashMap<String, Signs>,
    sweep_at: usize,
}

impl Vitals {
    fn since(since: u64) -> Self {
        Self {
            since,
            of: HashMap::new(),
            sweep_at: SWEEP_FLOOR,
        }
    }

    fn note(&mut self, thing: &str, sign: Sign, at: u64) {
        if self.of.len() >= self.sweep_at {
            let old = at.saturating_sub(2 * MAX_WATCH_SECONDS);
            self.of.retain(|_, signs| {
                signs.live > 0 || signs.last.back().is_some_and(|(at, _)| *at > old)
            });
            self.sweep_at = (self.of.len() * 2).max(SWEEP_FLOOR);
        }
        if !self.of.contains_key(thing) {
            self.of.insert(thing.to_owned(), Signs::default());
        }
        let Some(signs) = self.of.get_mut(thing) else {
            return;
        };
        match sign {
            Sign::Connected => signs.live += 1,
            Sign::Disconnected { .. } => signs.live = signs.live.saturating_sub(1),
            Sign::Denied | Sign::Unwell => {}
        }
        signs.last.push_back((at, sign));
        if signs.last.len() > MAX_SIGNS {
            signs.last.pop_front();
        }
    }

    /// Whether a thing did badly from `start` to before `end`.
    fn is_bad(&self, thing: &str, metric: Metric, start: u64, end: u64) -> bool {
        let Some(signs) = self.of.get(thing) else {
            return metric == Metric::Silence;
        };
        let within = || {
            let within = signs
                .last
                .iter()
                .filter(|(at, _)| (start..end).contains(at));
            within.map(|(_, sign)| *sign)
        };
        let connected = || within().filter(|sign| *sign == Sign::Connected).count();
        match metric {
            Metric::Disconnects => within().any(|sign| sign == Sign::Disconnected { broken: true }),
            Metric::Reconnects => connected() > 1,
            Metric::AuthorizationFailures => within().any(|sign| sign == Sign::Denied),
            Metric::Reported => within().any(|sign| sign == Sign::Unwell),
            Metric::Silence => {
                let later = signs.last.iter().filter(|(at, _)| *at >= start);
                let mut links = later
                    .map(|(_, sign)| *sign)
                    .filter(|sign| matches!(sign, Sign::Connected | Sign::Disconnected { .. }));
                let was_connected = match links.next() {
                    // Whatever came next says how it was when the period began.
                    Some(sign) => sign != Sign::Connected,
                    None => signs.live > 0,
                };
                !was_connected && connected() == 0
            }
        }
    }
}

/// Where signs go; clones share it.
#[derive(Clone)]
pub struct VitalSigns(Arc<Mutex<Vitals>>);

impl VitalSigns {
    pub(super) fn since(at: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(Vitals::since(seconds(at)))))
    }

    /// A device did something. Does not block.
    pub fn saw(&self, thing: &str, sign: Sign, at: SystemTime) {
        self.known().note(thing, sign, seconds(at));
    }

    fn known(&self) -> MutexGuard<'_, Vitals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ota {
    /// Where the signs of devices go that health gates look at.
    #[must_use]
    pub fn vital_signs(&self) -> VitalSigns {
        self.inner.vitals.clone()
    }

    /// Looks at the devices of a rollout with gates, for each period that is over; when the next one is.
    pub(super) fn look_at_health(
        &self,
        picture: &mut Picture,
        at: SystemTime,
    ) -> Result<Option<u64>, Error> {
        let rollout = picture.planner.rollout();
        let gates = rollout.gates();
        let goes_on = matches!(
            rollout.state,
            RolloutState::Running | RolloutState::Paused | RolloutState::WaitingApproval
        ) || picture.planner.still_tells();
        if gates.is_empty() || !goes_on || rollout.undone > 0 {
            return Ok(None);
        }
        let watch = rollout.spec.rules.watch_seconds.max(1);
        let now = seconds(at) / watch * watch;
        let first = now.saturating_sub(watch * MAX_PERIODS);
        let mut until = (rollout.looked_at + watch).max(first) / watch * watch;
        while until <= now {
            let start = until - watch;
            let updated: BTreeSet<String> = picture
                .updated
                .range(start.saturating_sub(watch)..start)
                .flat_map(|(_, things)| things.clone())
                .collect();
            if !updated.is_empty() && self.inner.vitals.known().since <= start {
                let looks = self.looks(picture, &gates, &updated, start, until);
                self.record(picture, until, &looks, at)?;
            }
            until += watch;
        }
        picture.updated = picture.updated.split_off(&now.saturating_sub(watch));
        Ok((!picture.updated.is_empty()).then_some(now + watch))
    }

    fn looks(
        &self,
        picture: &Picture,
        gates: &[Metric],
        updated: &BTreeSet<String>,
        start: u64,
        end: u64,
    ) -> Vec<Look> {
        let planner = &picture.planner;
        let devices = planner.devices();
        let waiting = devices.filter(|(_, device)| device.install.is_none());
        let waiting: Vec<&str> = waiting.map(|(thing, _)| thing).take(MAX_WAITING).collect();
        let vitals = self.inner.vitals.known();
        let look = |metric: &Metric| {
            let bad = |thing: &&str| vitals.is_bad(thing, *metric, start, end);
            let gated = |thing: &&str| {
                let wave = planner.wave(thing);
                wave.is_some_and(|wave| wave.rules.gates.contains(metric))
            };
            let things: Vec<&str> = updated.iter().map(String::as_str).filter(gated).collect();
            let count = |things: &[&str]| things.iter().filter(|thing| bad(thing)).count() as u64;
            Look {
                metric: *metric,
                updated: things.len() as u64,
                updated_bad: count(&things),
                waiting: waiting.len() as u64,
                waiting_bad: count(&waiting),
            }
        };
        gates.iter().map(look).collect()
    }

    fn record(
        &self,
        picture: &mut Picture,
        until: u64,
        looks: &[Look],
        at: SystemTime,
    ) -> Result<(), Error> {
        let rollout = picture.planner.rollout();
        let id = rollout.id.clone();
        let recorded = self.change(at, |changes| {
            let row: Option<RolloutRow> = changes.rows.get(&key::rollout(&id))?;
            let mut row = row.ok_or_else(|| missing(&id))?;
            if !same(rollout, &row) || row.looked_at >= until {
                return Ok(None);
            }
            let mut next = row.clone().into_bare();
            next.saw(until, looks);
            row.follow(&next);
            changes.rows.put(key::rollout(&id), &row)?;
            Ok(Some(next))
        })?;
        recorded
            .into_iter()
            .for_each(|next| picture.planner.follow(next));
        Ok(())
    }

    /// The devices of a rollout that were updated, by when.
    pub(super) fn updated(
        &self,
        picture: &Picture,
    ) -> Result<BTreeMap<u64, BTreeSet<String>>, Error> {
        let rollout = picture.planner.rollout();
        let mut updated: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        if rollout.gates().is_empty() {
            return Ok(updated);
        }
        for wave in 0..rollout.waves.len() {
            self.each_install(&rollout.id, &rollout.wave_job(wave)?, |execution| {
                if execution.status == crate::ExecutionStatus::Succeeded {
                    let then = updated.entry(execution.last_updated_at).or_default();
                    then.insert(execution.thing);
                }
            })?;
        }
        Ok(updated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_sees_what_is_its_own_and_only_in_its_period() {
        let mut vitals = Vitals::since(0);
        let broke = Sign::Disconnected { broken: true };
        let left = Sign::Disconnected { broken: false };
        for (thing, signs) in [
            ("steady", vec![(5, Sign::Connected)]),
            (
                "flaps",
                vec![
                    (5, Sign::Connected),
                    (12, broke),
                    (13, Sign::Connected),
                    (15, broke),
                    (16, Sign::Connected),
                ],
            ),
            (
                "sleeps",
                vec![(5, Sign::Connected), (8, left), (25, Sign::Connected)],
            ),
            ("leaves", vec![(5, Sign::Connected), (15, left)]),
            (
                "tries",
                vec![(5, Sign::Connected), (10, Sign::Denied), (20, Sign::Denied)],
            ),
            ("moans", vec![(5, Sign::Connected), (19, Sign::Unwell)]),
        ] {
            for (at, sign) in signs {
                vitals.note(thing, sign, at);
            }
        }
        let bad = |metric: Metric, start: u64, end: u64| -> Vec<&str> {
            let all = [
                "steady", "flaps", "sleeps", "leaves", "tries", "moans", "unknown",
            ];
            all.into_iter()
                .filter(|thing| vitals.is_bad(thing, metric, start, end))
                .collect()
        };
        assert_eq!(bad(Metric::Disconnects, 10, 20), ["flaps"]);
        assert_eq!(bad(Metric::Reconnects, 10, 20), ["flaps"]);
        assert_eq!(bad(Metric::AuthorizationFailures, 10, 20), ["tries"]);
        assert_eq!(bad(Metric::Reported, 10, 20), ["moans"]);
        assert_eq!(bad(Metric::Silence, 10, 20), ["sleeps", "unknown"]);
        assert_eq!(bad(Metric::Silence, 20, 30), ["leaves", "unknown"]);
        assert_eq!(bad(Metric::Disconnects, 20, 30), [""; 0]);
    }

    #[test]
    fn memory_follows_those_that_are_there() {
        let mut vitals = Vitals::since(0);
        for number in 0..10_000 {
            let thing = format!("lamp-{number}");
            let at = number * 1000;
            vitals.note(&thing, Sign::Connected, at);
            vitals.note(&thing, Sign::Disconnected { broken: false }, at);
        }
        assert!(vitals.of.len() <= 2 * SWEEP_FLOOR, "{}", vitals.of.len());
        for at in 0..1000 {
            vitals.note("chatty", Sign::Denied, at);
        }
        assert_eq!(vitals.of["chatty"].last.len(), MAX_SIGNS);
    }
}
