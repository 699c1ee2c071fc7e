//! Jittered exponential backoff: a fleet that lost its server does not come back as one.

use std::time::Duration;

/// Waits that double from `first` to `most`, each drawn from the upper half of its bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    attempt: u32,
}

impl Backoff {
    /// A backoff that begins at `first` and never exceeds `most`.
    #[must_use]
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            attempt: 0,
        }
    }

    /// Begins again: something worked.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// How many waits have been drawn since the last reset.
    #[must_use]
    pub(crate) fn attempts(&self) -> u32 {
        self.attempt
    }

    /// The next wait. `random` is any random number; the wait lies between half of the bound
    /// and the bound, so it is never zero and never in step with the neighbours'.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let factor = 2u32.saturating_pow(self.attempt.min(20));
        self.attempt = self.attempt.saturating_add(1);
        let bound = self.first.saturating_mul(factor).min(self.most);
        let half = bound / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// A random number for [`Backoff::next`], from the operating system's generator. Where that
/// fails the waits are merely not spread.
#[must_use]
pub(crate) fn random() -> u32 {
    let mut bytes = [0u8; 4];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_bound_and_are_never_nothing(
            randoms in prop::collection::vec(any::<u32>(), 1..60)
        ) {
            let (first, most) = (Duration::from_millis(500), Duration::from_secs(60));
            let mut backoff = Backoff::new(first, most);
            for (n, random) in randoms.into_iter().enumerate() {
                let bound = first.saturating_mul(1 << n.min(20)).min(most);
                let wait = backoff.next(random);
                prop_assert!(wait >= bound / 2 && wait <= bound, "{n}: {wait:?} of {bound:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next(u32::MAX) <= first);
        }
    }
}
