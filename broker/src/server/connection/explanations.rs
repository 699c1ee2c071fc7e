//! How often a client is told why it was refused: explaining costs much more than deciding.

use crate::session::Time;

/// Refusals of one connection that are explained in a second; those beyond are refused as well, in fewer words.
const EXPLAINED_PER_SECOND: u32 = 50;
/// Longest name that is explained to a client: what explaining costs grows with it.
const EXPLAINED_NAME_BYTES: usize = 1024;
/// What is said instead.
pub(super) const UNEXPLAINED: &str =
    "the policy does not grant this; why is said of short topics, and of so many a second";

/// What a connection has been told in this second.
#[derive(Debug, Default)]
pub(super) struct Explanations {
    second: u64,
    told: u32,
}

impl Explanations {
    /// Whether a refusal of something with this name may be explained; takes one of this second's.
    pub(super) fn take(&mut self, name: &str, now: Time) -> bool {
        if name.len() > EXPLAINED_NAME_BYTES {
            return false;
        }
        let second = now.as_millis() / 1000;
        if self.second != second {
            *self = Self { second, told: 0 };
        }
        let left = self.told < EXPLAINED_PER_SECOND;
        self.told += u32::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_only_short_names() {
        let mut explanations = Explanations::default();
        for second in [7, 8] {
            let now = Time::from_millis(second * 1000);
            let told = (0..1000).filter(|_| explanations.take("a/b", now)).count();
            assert_eq!(told, 50);
        }
        let later = Time::from_millis(9_000);
        assert!(!explanations.take(&"x".repeat(EXPLAINED_NAME_BYTES + 1), later));
        assert!(explanations.take(&"x".repeat(EXPLAINED_NAME_BYTES), later));
    }
}
