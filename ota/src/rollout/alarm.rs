//! When failures are more than usual, and not by chance.
//!
//! Wald's sequential probability ratio test, with its upper bound alone: after each device that is over,
//! the failures are weighed by how much likelier they are at twice the usual rate than at the usual one.
//! Under the usual rate (or a lower one) that ratio is a non-negative (super)martingale that begins at 1,
//! so by Ville's inequality it reaches 125 in at most 8 rollouts of 1000, however many devices there are
//! and however often one looks. At twice a usual rate of 5% it has reached it in nine rollouts of ten
//! before 500 devices are over, which is 5% of a fleet of 10,000 (the tests below show both).

/// How much likelier what was seen must be at twice the usual rate. Its reverse bounds false alarms: 8 of
/// 1000 rollouts.
pub(super) const RATIO: f64 = 125.0;
/// The usual rates that can be doubled.
pub const USUAL_PERCENT: std::ops::RangeInclusive<u8> = 1..=49;

/// The natural logarithm of how much likelier it is at twice the usual rate that so many devices failed of
/// those that are over.
pub(super) fn weight(usual_percent: u8, failed: usize, finished: usize) -> Option<f64> {
    let usual = f64::from(usual_percent) / 100.0;
    let good = finished.checked_sub(failed)?;
    // Counts of devices are far below 2^53.
    Some(failed as f64 * 2_f64.ln() + good as f64 * ((1.0 - 2.0 * usual) / (1.0 - usual)).ln())
}

/// Why a rollout must not go on in which so many failed.
pub(super) fn words(usual_percent: u8, failed: usize, finished: usize) -> String {
    format!(
        "{failed} of {finished} finished devices failed; {usual_percent}% would be usual, and so many come by chance in one rollout of a hundred at most"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(usual: u8, failed: usize, finished: usize) -> Option<String> {
        let weight = weight(usual, failed, finished)?;
        (weight >= RATIO.ln()).then(|| words(usual, failed, finished))
    }

    /// A sequence of dice; the same at each run.
    struct Dice(u64);

    impl Dice {
        fn fails(&mut self, per_thousand: u64) -> bool {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % 1000 < per_thousand
        }
    }

    /// After how many devices of `fleet` an alarm comes, if it does.
    fn alarm_after(dice: &mut Dice, usual: u8, per_thousand: u64, fleet: usize) -> Option<usize> {
        let mut failed = 0;
        (1..=fleet).find(|finished| {
            failed += usize::from(dice.fails(per_thousand));
            alarm(usual, failed, *finished).is_some()
        })
    }

    const ROLLOUTS: usize = 1000;

    fn alarms(usual: u8, per_thousand: u64, fleet: usize) -> usize {
        let mut dice = Dice(u64::from(usual) * 1000 + per_thousand);
        (0..ROLLOUTS)
            .filter(|_| alarm_after(&mut dice, usual, per_thousand, fleet).is_some())
            .count()
    }

    #[test]
    fn at_most_one_rollout_of_a_hundred_is_stopped_for_nothing() {
        for (usual, per_thousand) in [(5, 50), (20, 200)] {
            let alarms = alarms(usual, per_thousand, 10_000);
            println!(
                "{usual}% usual, {per_thousand}‰ fail: {alarms} alarms in {ROLLOUTS} rollouts of 10,000"
            );
            assert!(alarms * 100 <= ROLLOUTS, "{alarms}");
        }
    }

    #[test]
    fn a_doubled_rate_is_found_in_the_first_twentieth() {
        let alarms = alarms(5, 100, 500);
        println!(
            "10% fail: {alarms} of {ROLLOUTS} rollouts of 10,000 are stopped before 500 devices"
        );
        assert!(alarms * 100 >= 90 * ROLLOUTS, "{alarms}");
    }

    #[test]
    fn a_few_failures_at_the_start_are_weighed_like_others() {
        assert_eq!(alarm(5, 6, 6), None, "2^6 is below 125");
        assert!(alarm(5, 7, 7).unwrap().contains("7 of 7"));
        assert_eq!(alarm(5, 0, 1_000_000), None);
        assert_eq!(
            alarm(49, 3, 2),
            None,
            "more failed than finished means nothing"
        );
        assert!(alarm(49, 60, 60).is_some());
    }
}
