//! Why devices of a rollout failed, and how many for each reason: what a person reads at a glance, be there a million.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Planner;
use crate::ExecutionStatus;

/// Most reasons that are shown, those of the most devices first.
pub const MAX_SHOWN_REASONS: usize = 100;
/// Most that are told apart.
const MAX_REASONS: usize = 1000;
/// What stands for a device's own name in its reason.
const DEVICE: &str = "<device>";

/// A reason for which devices failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownFailure {
    /// In the devices' own words, with `<device>` for each one's own name; the status where a device gave none.
    pub reason: String,
    /// How many.
    pub devices: u64,
}

/// Why devices failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// The most frequent reasons first, at most [`MAX_SHOWN_REASONS`].
    pub shown: Vec<ShownFailure>,
    /// How many devices failed for other reasons.
    pub otherwise: u64,
}

impl Failures {
    /// Of the devices that failed, their names and reasons.
    fn count(failed: impl Iterator<Item = (String, String)>) -> Self {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let mut otherwise = 0;
        for (thing, reason) in failed {
            let reason = without(&reason, &thing);
            if counts.len() >= MAX_REASONS && !counts.contains_key(&reason) {
                otherwise += 1;
            } else {
                *counts.entry(reason).or_default() += 1;
            }
        }
        let shown = counts.into_iter();
        let mut shown: Vec<_> = shown
            .map(|(reason, devices)| ShownFailure { reason, devices })
            .collect();
        // Equal ones stay in the order of their words.
        shown.sort_by_key(|failure| std::cmp::Reverse(failure.devices));
        let rest = shown.split_off(shown.len().min(MAX_SHOWN_REASONS));
        otherwise += rest.iter().map(|failure| failure.devices).sum::<u64>();
        Self { shown, otherwise }
    }
}

impl Planner {
    /// Why devices failed, timed out or refused.
    #[must_use]
    pub fn failures(&self) -> Failures {
        let failed = self.devices().filter_map(|(thing, device)| {
            let status = device.install.as_ref()?.status;
            let bad = matches!(
                status,
                ExecutionStatus::Failed | ExecutionStatus::TimedOut | ExecutionStatus::Rejected
            );
            let reason = device.reason.clone().filter(|reason| !reason.is_empty());
            bad.then(|| {
                (
                    thing.to_owned(),
                    reason.unwrap_or_else(|| status.to_string()),
                )
            })
        });
        Failures::count(failed)
    }
}

/// The reason with [`DEVICE`] for the device's own name, where that stands as a word of its own.
fn without(reason: &str, thing: &str) -> String {
    let of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let mut told = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some((before, after)) = rest.split_once(thing).filter(|_| !thing.is_empty()) {
        told.push_str(before);
        let begins = !told.ends_with(of_word);
        let is_word = begins && !after.starts_with(of_word);
        told.push_str(if is_word { DEVICE } else { thing });
        rest = after;
    }
    told.push_str(rest);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(of: impl Iterator<Item = (String, String)>) -> (Vec<(String, u64)>, u64) {
        let failures = Failures::count(of);
        let shown = failures.shown.into_iter();
        let shown = shown.map(|failure| (failure.reason, failure.devices));
        (shown.collect(), failures.otherwise)
    }

    #[test]
    fn a_devices_own_name_makes_no_reason_of_its_own() {
        let dark = (0..1000).map(|n| (format!("d{n}"), format!("lamp of d{n}: dark, d{n}")));
        let late = ("d5".to_owned(), "TIMED_OUT".to_owned());
        assert_eq!(
            failed(dark.chain([late])),
            (
                vec![
                    ("lamp of <device>: dark, <device>".into(), 1000),
                    ("TIMED_OUT".into(), 1)
                ],
                0
            )
        );
        assert_eq!(
            without("d1 d11 xd1 d1-a (d1)", "d1"),
            "<device> d11 xd1 d1-a (<device>)"
        );
        assert_eq!(without("dark", ""), "dark");
    }

    #[test]
    fn however_many_reasons_there_are_so_many_are_shown_and_all_are_counted() {
        let many = (0..5000_u64).map(|n| ("lamp".into(), format!("code {:04}", n.min(4000))));
        let (shown, otherwise) = failed(many);
        assert_eq!(shown.len(), MAX_SHOWN_REASONS);
        assert_eq!(otherwise, 4900);
        let last = (0..300_u64).map(|n| ("lamp".into(), format!("code {:03}", n.min(200))));
        let (shown, otherwise) = failed(last);
        assert_eq!(shown.first(), Some(&("code 200".into(), 100)));
        assert_eq!(otherwise, 101);
    }
}
