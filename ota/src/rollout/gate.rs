//! Health gates: devices that were updated against those that have yet to be.
//!
//! Each updated device is looked at once, over the first whole period after its update, and so are those that
//! wait, over the same period: did it do badly in it or not. Who was updated first follows from a hash, so
//! where the update changes nothing those updated are a random sample of all that were looked at, and of `bad`
//! ones among `all` the sample has a hypergeometric share. A look is weighed by how much likelier what it saw
//! is where an updated device does badly so many times as often: `factor^updated_bad`, divided by what that is on
//! average where nothing changed, which is computed. The products of those are non-negative martingales that begin
//! at 1; so is their mean over several factors, some for harm that shows in many devices only and some for harm that
//! is plain in a few, the mean of several metrics, and that with the test of `--alarm` (`alarm.rs`). All together
//! therefore reach its bound in at most 8 rollouts of 1000 (Ville), however often one looks. How often devices do
//! badly when all is well need not be known.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::alarm::{RATIO, weight, words};
use super::{Rollout, Rules};
use crate::Error;

/// How many times as often an updated device may do badly, and the share each has in the mean. The greatest
/// lets two devices of which nobody else does the like stop a rollout; half of all is for the smallest harm.
const FACTORS: [(f64, f64); 4] = [
    (2.0, 1.0 / 2.0),
    (4.0, 1.0 / 6.0),
    (16.0, 1.0 / 6.0),
    (64.0, 1.0 / 6.0),
];

/// How long a device is looked at, unless `--watch` says otherwise.
pub const DEFAULT_WATCH_SECONDS: u64 = 600;
/// Longest time a device is looked at: a day.
pub const MAX_WATCH_SECONDS: u64 = 86_400;

/// What a device can do badly in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// A connection of it broke.
    Disconnects,
    /// It connected more than once.
    Reconnects,
    /// It did what its policies do not grant.
    AuthorizationFailures,
    /// It was not connected at all.
    Silence,
    /// It said of itself that it is not well.
    Reported,
}

impl Metric {
    /// Each of them.
    pub const ALL: [Self; 5] = [
        Self::Disconnects,
        Self::Reconnects,
        Self::AuthorizationFailures,
        Self::Silence,
        Self::Reported,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnects => "disconnects",
            Self::Reconnects => "reconnects",
            Self::AuthorizationFailures => "authorization-failures",
            Self::Silence => "silence",
            Self::Reported => "reported",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Metric {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| Error::Rollout {
            why: format!(
                "--gate `{}` is none of {}",
                text.chars().take(60).collect::<String>().escape_debug(),
                Self::ALL.map(Self::as_str).join(", ")
            ),
        })
    }
}

/// What was seen in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Of what.
    pub metric: Metric,
    /// Devices updated just before it.
    pub updated: u64,
    /// Those of them that did badly.
    pub updated_bad: u64,
    /// Devices that wait for their update.
    pub waiting: u64,
    /// Those of them that did badly.
    pub waiting_bad: u64,
}

/// What all looks of a rollout have come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Of what.
    pub metric: Metric,
    /// Looks at devices that were updated.
    pub updated: u64,
    /// Those that saw them do badly.
    pub updated_bad: u64,
    /// Looks at devices that wait.
    pub waiting: u64,
    /// Those that saw them do badly.
    pub waiting_bad: u64,
    /// The weight of what was seen, in millionths of its natural logarithm.
    pub weight: i64,
    /// What it is the mean of: those of each factor, in the same measure. An earlier release weighed the first alone.
    #[serde(default)]
    pub weights: Vec<i64>,
}

/// The natural logarithm of the sum of what these are the logarithms of.
fn ln_sum(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + logs.map(|log| (log - most).exp()).sum::<f64>().ln()
}

impl Look {
    /// For each factor the natural logarithm of how much likelier this is where the risk is that much higher.
    fn weights(&self) -> [f64; FACTORS.len()] {
        let all = self.updated + self.waiting;
        let bad = self.updated_bad + self.waiting_bad;
        if self.updated_bad > self.updated || self.waiting_bad > self.waiting {
            return [0.0; FACTORS.len()];
        }
        // So many of the bad ones may be among those updated. Where nobody waits, or nobody did badly, there is but
        // one number, and nothing weighs anything.
        let few = self.updated.saturating_sub(all - bad);
        let many = self.updated.min(bad);
        // Counts of devices are far below 2^53.
        let likelier = |to: u64| {
            let (to, good) = (to as f64, (all - bad) as f64);
            let (bad, updated) = (bad as f64, self.updated as f64);
            ((bad - to + 1.0) * (updated - to + 1.0) / (to * (good - updated + to))).ln()
        };
        let mut log = 0.0;
        let mut chances = vec![(0.0, 0.0)];
        for more in few + 1..=many {
            log += likelier(more);
            chances.push(((more - few) as f64, log));
        }
        let whole = ln_sum(chances.iter().map(|(_, log)| *log));
        FACTORS.map(|(factor, _)| {
            let factor = factor.ln();
            let usual = ln_sum(chances.iter().map(|(more, log)| log + more * factor)) - whole;
            (self.updated_bad - few) as f64 * factor - usual
        })
    }

    /// What is seen at the worst: every updated device does badly, and none of the others.
    fn worst(updated: u64, waiting: u64) -> Self {
        Self {
            metric: Metric::Silence,
            updated,
            updated_bad: updated,
            waiting,
            waiting_bad: 0,
        }
    }
}

impl Pulse {
    const fn of(metric: Metric) -> Self {
        Self {
            metric,
            updated: 0,
            updated_bad: 0,
            waiting: 0,
            waiting_bad: 0,
            weight: 0,
            weights: Vec::new(),
        }
    }

    fn add(&mut self, look: &Look) {
        self.updated += look.updated;
        self.updated_bad += look.updated_bad;
        self.waiting += look.waiting;
        self.waiting_bad += look.waiting_bad;
        // Rounded down: never likelier than it is. Weights are far below 2^53 millionths.
        #[expect(clippy::cast_possible_truncation, reason = "far below 2^63")]
        let millionths = |weight: f64| (weight * 1e6).floor() as i64;
        if self.weights.is_empty() {
            self.weights.push(self.weight);
        }
        self.weights.resize(FACTORS.len(), 0);
        for (known, seen) in self.weights.iter_mut().zip(look.weights()) {
            *known = known.saturating_add(millionths(seen));
        }
        let logs = self.weights.iter().zip(FACTORS);
        self.weight = millionths(ln_sum(
            logs.map(|(weight, (_, share))| *weight as f64 / 1e6 + share.ln()),
        ));
    }

    /// Whether one metric can stop a rollout with so many tests in all, where so many devices were updated and so many
    /// wait.
    fn is_enough(updated: u64, waiting: u64, tests: usize) -> bool {
        let mut pulse = Self::of(Metric::Silence);
        pulse.add(&Look::worst(updated, waiting));
        (pulse.weight as f64 / 1e6).exp() >= RATIO * tests as f64
    }
}

/// Why a rollout must not go on whose gates have seen this.
pub(super) fn alarm(
    gates: usize,
    pulses: &[Pulse],
    rules: &Rules,
    failed: usize,
    finished: usize,
) -> Option<String> {
    let usual = rules.alarm_percent;
    let failures = usual.map(|usual| weight(usual, failed, finished).unwrap_or_default());
    let seen = |pulse: &Pulse| (pulse.weight as f64 / 1e6).exp();
    let tests = gates + usize::from(usual.is_some());
    if tests == 0 {
        return None;
    }
    // Of a gate that has seen nothing yet the ratio is 1.
    let unseen = gates.saturating_sub(pulses.len()) as f64;
    let gates = pulses.iter().map(seen).sum::<f64>() + unseen;
    let mean = (gates + failures.map_or(0.0, f64::exp)) / tests as f64;
    if mean < RATIO {
        return None;
    }
    let worst = pulses.iter().max_by_key(|pulse| pulse.weight);
    let worst = worst.filter(|pulse| failures.is_none_or(|weight| seen(pulse).ln() > weight));
    Some(match (worst, usual) {
        (Some(pulse), _) => format!(
            "{}: {} of {} updated devices, {} of {} looks at those not yet updated; so many more come by chance in one rollout of a hundred at most",
            pulse.metric, pulse.updated_bad, pulse.updated, pulse.waiting_bad, pulse.waiting
        ),
        (None, usual) => words(usual.unwrap_or_default(), failed, finished),
    })
}

impl Rollout {
    /// The metrics that any of its waves has a gate for, in their order.
    #[must_use]
    pub fn gates(&self) -> Vec<Metric> {
        let waves = self.waves.iter().map(|wave| &wave.rules);
        let rules = || waves.clone().chain([&self.spec.rules]);
        let asked = |metric: &Metric| rules().any(|rules| rules.gates.contains(metric));
        Metric::ALL.into_iter().filter(asked).collect()
    }

    /// Where its gates cannot stop it, in words: before a wave that begins too soon for them, or anywhere.
    #[must_use]
    pub fn blind_spots(&self) -> Vec<String> {
        let gates = self.gates();
        let tests = gates.len() + usize::from(self.spec.rules.alarm_percent.is_some());
        let all: usize = self.waves.iter().map(|wave| wave.things.len()).sum();
        let waves: Vec<_> = self
            .waves
            .iter()
            .filter(|wave| !wave.things.is_empty())
            .collect();
        let mut spots = Vec::new();
        let (mut told, mut gated) = (0, 0);
        for (index, wave) in waves.iter().enumerate() {
            told += wave.things.len();
            if wave.rules.gates.is_empty() {
                continue;
            }
            gated += wave.things.len();
            let last = index + 1 == waves.len();
            let slow = wave.rules.rate_per_minute.is_some() || wave.rules.window.is_some();
            if last {
                if waves.len() == 1 && !slow {
                    spots.push(
                        "its gates compare devices that were updated with those that wait, and all are told at once: give waves (`--wave 5% --wave 100%`) or a `--rate`"
                            .to_owned(),
                    );
                }
                continue;
            }
            let enough = |updated: usize| {
                let waiting = all.saturating_sub(updated.max(told));
                Pulse::is_enough(updated as u64, waiting as u64, tests)
            };
            if enough(gated) {
                continue;
            }
            let least = (gated + 1..all).find(|updated| enough(*updated));
            let how = least.map_or_else(
                || format!("no wave of these {all} devices is large enough"),
                |least| format!("{least} would be enough"),
            );
            spots.push(format!(
                "wave {} is too small for its gates: even if each of the {gated} devices updated by then did badly and none of the others, that could be chance; {how}",
                wave.name
            ));
        }
        spots
    }

    /// Records what was seen in the period that ended at `until` (seconds since 1970).
    pub fn saw(&mut self, until: u64, looks: &[Look]) {
        self.looked_at = until;
        for look in looks {
            let known = self.health.iter_mut().find(|one| one.metric == look.metric);
            match known {
                Some(pulse) => pulse.add(look),
                None => {
                    let mut pulse = Pulse::of(look.metric);
                    pulse.add(look);
                    self.health.push(pulse);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64; the same at each run.
    struct Dice(u64);

    impl Dice {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn happens(&mut self, per_thousand: u64) -> bool {
            self.next() % 1000 < per_thousand
        }
    }

    /// After how many updated devices the gates stop a rollout. Some devices always do badly, updated or not;
    /// the others do so `usual` times of a thousand in a period, and `then` times once they were updated.
    fn stopped_after(
        seed: u64,
        fleet: usize,
        sick: u64,
        usual: u64,
        then: u64,
        metrics: &[Metric],
        per_period: usize,
    ) -> Option<usize> {
        let mut dice = Dice(seed);
        let sick: Vec<bool> = (0..fleet).map(|_| dice.happens(sick)).collect();
        let mut pulses: Vec<Pulse> = metrics.iter().map(|metric| Pulse::of(*metric)).collect();
        let rules = Rules::default();
        let mut first = 0;
        while first < fleet {
            let end = (first + per_period).min(fleet);
            for pulse in &mut pulses {
                let mut bad = |from: usize, to: usize, risk: u64| {
                    let bad = sick[from..to].iter();
                    bad.filter(|sick| **sick || dice.happens(risk)).count() as u64
                };
                let look = Look {
                    metric: pulse.metric,
                    updated: (end - first) as u64,
                    updated_bad: bad(first, end, then),
                    waiting: (fleet - end) as u64,
                    waiting_bad: bad(end, fleet, usual),
                };
                pulse.add(&look);
            }
            if alarm(metrics.len(), &pulses, &rules, 0, 0).is_some() {
                return Some(end);
            }
            first = end;
        }
        None
    }

    const ROLLOUTS: u64 = 1000;

    #[test]
    fn at_most_one_rollout_of_a_hundred_is_stopped_for_nothing() {
        for (sick, usual, per_period) in [(0, 50, 10), (50, 10, 25), (200, 100, 40), (20, 0, 7)] {
            let alarms = (0..ROLLOUTS)
                .filter(|seed| {
                    stopped_after(*seed, 250, sick, usual, usual, &Metric::ALL, per_period)
                        .is_some()
                })
                .count();
            println!("{sick}‰ always, {usual}‰ sometimes: {alarms} alarms in {ROLLOUTS} rollouts");
            assert!(alarms as u64 * 100 <= ROLLOUTS, "{alarms}");
        }
    }

    #[test]
    fn an_update_that_makes_devices_worse_is_found_before_most_have_it() {
        let found = |then: u64, before: usize| {
            let found = (0..200).filter(|seed| {
                let metrics = [Metric::Disconnects, Metric::Silence];
                let after = stopped_after(*seed, 5000, 10, 40, then, &metrics, 50);
                after.is_some_and(|after| after <= before)
            });
            let found = found.count();
            println!("5% to {then}‰: {found} of 200 are stopped before {before} of 5000");
            found
        };
        assert!(found(90, 1000) >= 180, "doubled");
        assert!(found(190, 150) >= 180, "four times");
    }

    #[test]
    fn plain_harm_to_a_few_canaries_is_no_chance() {
        let mut pulse = Pulse::of(Metric::Disconnects);
        pulse.add(&Look::worst(10, 20));
        assert!(alarm(1, &[pulse], &Rules::default(), 0, 0).is_some());
        // As many as must be, and not one fewer: what comes by chance in one of a thousand rollouts is no alarm.
        for (waiting, least) in [(8, 5), (20, 3), (100, 2), (1_000_000, 2)] {
            assert!(Pulse::is_enough(least, waiting, 1), "{least} of {waiting}");
            assert!(
                !Pulse::is_enough(least - 1, waiting, 1),
                "{least} of {waiting}"
            );
        }
        for waiting in 1..200 {
            for updated in 1..40 {
                // One in all ways to choose those updated.
                let ways = (1..=updated)
                    .map(|n| ((waiting + n) as f64 / n as f64).ln())
                    .sum::<f64>();
                let enough = Pulse::is_enough(updated, waiting, 1);
                assert!(!enough || ways > RATIO.ln(), "{updated} of {waiting}");
            }
        }
    }

    #[test]
    fn a_look_weighs_one_on_average_where_nothing_changed() {
        // All the ways in which 5 of 12 can be among 4 that were updated.
        let ways = [(0, 35.0), (1, 175.0), (2, 210.0), (3, 70.0), (4, 5.0)];
        for factor in 0..FACTORS.len() {
            let mean = ways.iter().map(|(updated_bad, ways)| {
                let look = Look {
                    metric: Metric::Silence,
                    updated: 4,
                    updated_bad: *updated_bad,
                    waiting: 8,
                    waiting_bad: 5 - updated_bad,
                };
                ways / 495.0 * look.weights()[factor].exp()
            });
            let mean: f64 = mean.sum();
            assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        }
    }

    #[test]
    fn a_few_canaries_stop_no_good_rollout() {
        for (first, fleet, sick, usual) in [
            (3, 60, 30, 30),
            (5, 300, 10, 5),
            (10, 30, 100, 50),
            (2, 2000, 5, 2),
        ] {
            let alarms = (0..ROLLOUTS)
                .filter(|seed| {
                    stopped_after(*seed, fleet, sick, usual, usual, &[Metric::Silence], first)
                        .is_some()
                })
                .count();
            println!(
                "{first} of {fleet} a period, {sick}‰ always, {usual}‰ sometimes: {alarms} alarms in {ROLLOUTS} rollouts"
            );
            assert!(alarms as u64 * 100 <= ROLLOUTS, "{alarms}");
        }
    }

    #[test]
    fn what_an_earlier_release_has_weighed_is_kept() {
        let stored = r#"{"metric":"silence","updated":9,"updated_bad":3,"waiting":90,"waiting_bad":1,"weight":1500000}"#;
        let mut pulse: Pulse = serde_json::from_str(stored).unwrap();
        pulse.add(&Look::worst(2, 0));
        assert_eq!(pulse.weights, [1_500_000, 0, 0, 0]);
        assert!(pulse.weight < 1_500_000 && pulse.weight > 0);
    }

    #[test]
    fn what_was_seen_is_weighed_and_told_in_words() {
        let look = |updated_bad, waiting_bad| Look {
            metric: Metric::Silence,
            updated: 20,
            updated_bad,
            waiting: 180,
            waiting_bad,
        };
        let weight = |look: Look| look.weights()[0];
        assert!(weight(look(0, 9)) < 0.0 && weight(look(1, 9)).abs() < 1.0);
        assert!(weight(look(10, 9)) > 4.0);
        let nobody_left = Look {
            waiting: 0,
            waiting_bad: 0,
            ..look(20, 0)
        };
        let weighs_nothing = nobody_left
            .weights()
            .iter()
            .all(|weight| weight.abs() < 1e-9);
        assert!(weighs_nothing, "there is nothing to compare with");
        let mut pulse = Pulse::of(Metric::Silence);
        pulse.add(&look(10, 9));
        pulse.add(&look(10, 9));
        let why = alarm(1, &[pulse], &Rules::default(), 0, 0).unwrap();
        assert!(
            why.starts_with("silence: 20 of 40 updated devices, 18 of 360 looks"),
            "{why}"
        );
        assert_eq!(alarm(0, &[], &Rules::default(), 9, 9), None);
        let usual = Rules {
            alarm_percent: Some(5),
            ..Rules::default()
        };
        assert!(
            alarm(0, &[], &usual, 7, 7)
                .unwrap()
                .contains("5% would be usual")
        );
        assert_eq!(alarm(2, &[], &usual, 7, 7), None, "more tests ask for more");
        assert!("silence".parse::<Metric>().is_ok() && "noise".parse::<Metric>().is_err());
    }
}
