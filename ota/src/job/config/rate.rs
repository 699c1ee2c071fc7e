//! How fast: what is possible, and how it grows.

use super::{ExponentialRate, MAX_PER_MINUTE, RolloutConfig, refuse};
use crate::Error;
use crate::rollout::{Counted, Growth};

impl ExponentialRate {
    pub(super) fn growth(&self) -> Growth {
        let criteria = &self.rate_increase_criteria;
        let (every, counts) = match (
            criteria.number_of_succeeded_things,
            criteria.number_of_notified_things,
        ) {
            (Some(every), _) => (every, Counted::Succeeded),
            (None, every) => (every.unwrap_or(1), Counted::Told),
        };
        Growth {
            // Checked to be 1.1 to 5.
            factor_tenths: (self.increment_factor * 10.0).round() as u16,
            every,
            counts,
            // Where the configuration says less, that holds.
            most: MAX_PER_MINUTE,
        }
    }
}

impl RolloutConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let per_minute = 1..=MAX_PER_MINUTE;
        if self
            .maximum_per_minute
            .is_some_and(|rate| !per_minute.contains(&rate))
        {
            return refuse(
                "maximumPerMinute",
                format!("1 to {MAX_PER_MINUTE} are possible"),
            );
        }
        let Some(rate) = &self.exponential_rate else {
            return Ok(());
        };
        if !per_minute.contains(&rate.base_rate_per_minute) {
            return refuse(
                "baseRatePerMinute",
                format!("1 to {MAX_PER_MINUTE} are possible"),
            );
        }
        let tenths = rate.increment_factor * 10.0;
        let is_whole = (tenths - tenths.round()).abs() < f64::from(f32::EPSILON);
        if !(1.1..=5.0).contains(&rate.increment_factor) || !is_whole {
            return refuse("incrementFactor", "1.1 to 5 are possible, with one decimal");
        }
        let criteria = &rate.rate_increase_criteria;
        match (
            criteria.number_of_notified_things,
            criteria.number_of_succeeded_things,
        ) {
            (Some(1..), None) | (None, Some(1..)) => Ok(()),
            _ => refuse("rateIncreaseCriteria", "give one of the two, 1 or more"),
        }
    }
}
