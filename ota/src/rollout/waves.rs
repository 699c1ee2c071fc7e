//! Who is in which wave. A thing's place follows from the hash of its name among those of its kind
//! (hardware, and the version it runs), so the same things go first in every rollout of a group, a list in
//! another order changes nothing, and the first wave has some of every kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, sha256};

/// Most waves in a rollout.
pub const MAX_WAVES: usize = 100;
/// Most things in a rollout.
pub const MAX_THINGS: usize = 1_000_000;
/// Longest group name in a wave's specification.
const MAX_GROUP_NAME_BYTES: usize = 128;

/// How large a wave is (`--wave`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WaveSpec {
    /// `10%`: so much of the group, this wave and those before it together. Rounded down.
    Percent(u8),
    /// `5`: so many things of the group, this wave and those before it together.
    Count(u32),
    /// `group:NAME`: the members of another group that are in the rollout's group too.
    Group(String),
}

impl FromStr for WaveSpec {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::Rollout {
            why: format!(
                "wave `{}` is neither a percentage (`10%`, 1% to 100%), nor a number of things (`5`), nor `group:NAME`",
                text.chars().take(60).collect::<String>().escape_debug()
            ),
        };
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if let Some(name) = text.strip_prefix("group:") {
            let named = (1..=MAX_GROUP_NAME_BYTES).contains(&name.len());
            return if named {
                Ok(Self::Group(name.to_owned()))
            } else {
                Err(refuse())
            };
        }
        if let Some(percent) = text.strip_suffix('%').filter(|s| digits(s)) {
            let percent = percent.parse().map_err(|_| refuse())?;
            return if (1..=100).contains(&percent) {
                Ok(Self::Percent(percent))
            } else {
                Err(refuse())
            };
        }
        match text.parse() {
            Ok(count @ 1..) if digits(text) => Ok(Self::Count(count)),
            _ => Err(refuse()),
        }
    }
}

impl TryFrom<String> for WaveSpec {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<WaveSpec> for String {
    fn from(spec: WaveSpec) -> Self {
        spec.to_string()
    }
}

impl fmt::Display for WaveSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// Where a thing stands among its kind, from 0 to 2^32; then its hash; then its name.
type Place = (u64, [u8; 32], String);

/// The things, each once: of each kind the first, by hash, then evenly.
fn in_order<K: Ord>(
    group: impl IntoIterator<Item = String>,
    kind: impl Fn(&str) -> K,
) -> BTreeSet<Place> {
    let mut kinds: BTreeMap<K, BTreeSet<([u8; 32], String)>> = BTreeMap::new();
    for thing in group {
        let hash = *sha256(thing.as_bytes()).as_bytes();
        let of_it = kinds.entry(kind(&thing)).or_default();
        of_it.insert((hash, thing));
    }
    let mut places = BTreeSet::new();
    for of_it in kinds.into_values() {
        let count = (of_it.len() as u64).max(1);
        for (rank, (hash, thing)) in of_it.into_iter().enumerate() {
            places.insert((((rank as u64) << 32) / count, hash, thing));
        }
    }
    places
}

/// Deals the things of `group` out to the waves. `named` holds the members of each group that a
/// `group:NAME` wave mentions; things of one `kind` are spread evenly over the waves. One wave of
/// everything where `specs` is empty. Each wave takes at least one thing until the group is exhausted. What
/// lies beyond the last wave is not part of the rollout.
///
/// # Errors
/// [`Error::Rollout`] where a wave could never have a thing in it, or there is nobody to update.
pub fn assign<K: Ord>(
    group: impl IntoIterator<Item = String>,
    specs: &[WaveSpec],
    named: &BTreeMap<String, BTreeSet<String>>,
    kind: impl Fn(&str) -> K,
) -> Result<Vec<(String, Vec<String>)>, Error> {
    let refuse = |why: String| Err(Error::Rollout { why });
    let whole = [WaveSpec::Percent(100)];
    let specs = if specs.is_empty() { &whole[..] } else { specs };
    if specs.len() > MAX_WAVES {
        return refuse(format!(
            "{} waves; at most {MAX_WAVES} are possible",
            specs.len()
        ));
    }
    let mut waiting = in_order(group, kind);
    let total = waiting.len();
    if total == 0 {
        return refuse("the group has no things; add some with `muster group add`".into());
    }
    if total > MAX_THINGS {
        return refuse(format!(
            "the group has {total} things; at most {MAX_THINGS} are possible"
        ));
    }
    let mut waves: Vec<(String, Vec<String>)> = Vec::new();
    let mut reached = 0;
    let mut asked_before = 0;
    for spec in specs {
        let name = spec.to_string();
        if waves.iter().any(|(known, _)| *known == name) {
            return refuse(format!("wave `{name}` is given twice"));
        }
        let things: Vec<String> = if let WaveSpec::Group(group) = spec {
            let members = named.get(group);
            let (taken, left) = std::mem::take(&mut waiting)
                .into_iter()
                .partition(|(_, _, thing)| members.is_some_and(|members| members.contains(thing)));
            waiting = left;
            let taken: BTreeSet<Place> = taken;
            if taken.is_empty() {
                return refuse(format!(
                    "wave `{name}` is empty: no thing of that group is in the rollout's group and not in an earlier wave"
                ));
            }
            taken.into_iter().map(|(_, _, thing)| thing).collect()
        } else {
            let asked = match spec {
                WaveSpec::Percent(percent) => total.saturating_mul(usize::from(*percent)) / 100,
                WaveSpec::Count(count) => usize::try_from(*count).unwrap_or(usize::MAX),
                WaveSpec::Group(_) => 0,
            };
            if asked < asked_before {
                return refuse(format!(
                    "wave `{name}` means {asked} of {total} things, but a wave before it means {asked_before} already; waves are cumulative"
                ));
            }
            asked_before = asked;
            let target = asked.max(reached + 1).min(total);
            let mut things = Vec::new();
            while total - waiting.len() < target {
                let Some((_, _, thing)) = waiting.pop_first() else {
                    break;
                };
                things.push(thing);
            }
            things
        };
        reached = total - waiting.len();
        waves.push((name, things));
    }
    Ok(waves)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn things(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("lamp-{i}")).collect()
    }

    fn sizes(count: usize, specs: &[&str]) -> Vec<usize> {
        let specs: Vec<WaveSpec> = specs.iter().map(|s| s.parse().unwrap()).collect();
        assign(things(count), &specs, &BTreeMap::new(), |_| ())
            .unwrap()
            .iter()
            .map(|(_, things)| things.len())
            .collect()
    }

    fn words(count: usize, specs: &[&str]) -> String {
        let specs: Vec<WaveSpec> = specs.iter().map(|s| s.parse().unwrap()).collect();
        assign(things(count), &specs, &BTreeMap::new(), |_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn percentages_and_counts_are_cumulative() {
        assert_eq!(sizes(20, &["10%", "100%"]), [2, 18]);
        assert_eq!(sizes(25, &["10%", "50%", "100%"]), [2, 10, 13]);
        assert_eq!(sizes(20, &["1", "5", "50%"]), [1, 4, 5]);
        assert_eq!(sizes(20, &[]), [20]);
        assert_eq!(sizes(3, &["10%", "20%", "100%"]), [1, 1, 1]);
        assert_eq!(sizes(1, &["10%", "100%"]), [1, 0]);
        assert_eq!(sizes(4, &["10"]), [4]);
    }

    #[test]
    fn a_place_depends_on_the_name_alone() {
        let specs: Vec<WaveSpec> = vec!["10%".parse().unwrap(), "100%".parse().unwrap()];
        let forward = assign(things(50), &specs, &BTreeMap::new(), |_| ()).unwrap();
        let backward = assign(
            things(50).into_iter().rev(),
            &specs,
            &BTreeMap::new(),
            |_| (),
        )
        .unwrap();
        assert_eq!(forward, backward);
        let again = assign(
            things(50).into_iter().chain(things(50)),
            &specs,
            &BTreeMap::new(),
            |_| (),
        )
        .unwrap();
        assert_eq!(forward, again, "a thing named twice is one thing");
    }

    #[test]
    fn a_named_group_is_taken_from_the_rollouts_group_only() {
        let named = BTreeMap::from([(
            "canaries".to_owned(),
            BTreeSet::from([
                "lamp-3".to_owned(),
                "lamp-7".to_owned(),
                "stranger".to_owned(),
            ]),
        )]);
        let specs: Vec<WaveSpec> = vec![
            "group:canaries".parse().unwrap(),
            "50%".parse().unwrap(),
            "100%".parse().unwrap(),
        ];
        let waves = assign(things(10), &specs, &named, |_| ()).unwrap();
        let mut first = waves[0].1.clone();
        first.sort();
        assert_eq!(first, ["lamp-3", "lamp-7"]);
        assert_eq!(waves[1].1.len(), 3, "half of ten, two of them already done");
        assert_eq!(waves[2].1.len(), 5);
    }

    #[test]
    fn what_cannot_be_a_wave_is_refused_in_words() {
        assert!(words(20, &["50%", "10%"]).contains("waves are cumulative"));
        assert!(words(20, &["10%", "10%"]).contains("given twice"));
        assert!(words(20, &["group:nobody"]).contains("is empty"));
        assert!(words(0, &["100%"]).contains("no things"));
        for bad in [
            "",
            "0",
            "0%",
            "101%",
            "ten",
            "-1",
            "+5",
            "1.5%",
            "group:",
            "%",
            "4294967296",
            "999%",
        ] {
            assert!(bad.parse::<WaveSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_number_of_waves_is_bounded() {
        let names: Vec<String> = (1..=MAX_WAVES + 1).map(|i| i.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(sizes(MAX_WAVES, &names[..MAX_WAVES]), vec![1; MAX_WAVES]);
        assert!(words(MAX_WAVES, &names).contains("at most 100"));
    }

    proptest! {
        #[test]
        fn each_kind_is_spread_evenly(count in 1..200usize, kinds in 1..6usize, first in 1..60u32) {
            let kind = |thing: &str| sha256(format!("kind of {thing}").as_bytes()).as_bytes()[0] as usize % kinds;
            let of = |things: &[String], which: usize| things.iter().filter(|thing| kind(thing) == which).count();
            let all = things(count);
            let waves = assign(all.clone(), &[WaveSpec::Count(first)], &BTreeMap::new(), kind).unwrap();
            let taken = &waves[0].1;
            for which in 0..kinds {
                let (some, whole) = (of(taken, which), of(&all, which));
                if whole > 0 && taken.len() >= kinds { prop_assert!(some > 0, "kind {} is not there", which); }
                let fair = taken.len() as f64 * whole as f64 / count as f64;
                prop_assert!((some as f64 - fair).abs() <= kinds as f64, "{} of {}, {} were fair", some, whole, fair);
            }
        }

        #[test]
        fn every_thing_is_in_at_most_one_wave(count in 1..60usize, percents in prop::collection::btree_set(1..=100u8, 1..6)) {
            let specs: Vec<WaveSpec> = percents.iter().map(|p| WaveSpec::Percent(*p)).collect();
            let waves = assign(things(count), &specs, &BTreeMap::new(), |_| ()).unwrap();
            let all: Vec<&String> = waves.iter().flat_map(|(_, things)| things).collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            let mut reached = 0;
            for ((_, things), percent) in waves.iter().zip(&percents) {
                prop_assert!(!things.is_empty() || reached == count);
                reached += things.len();
                prop_assert!(reached >= count * usize::from(*percent) / 100);
            }
            if percents.contains(&100) { prop_assert_eq!(reached, count); }
        }
    }
}
