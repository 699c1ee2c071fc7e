use proptest::prelude::*;

use super::arbitrary::version;
use super::properties::mutated;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn every_difference_to_the_second_opinion_is_known(
        (version, bytes) in version().prop_flat_map(|v| (Just(v), mutated(v))),
    ) {
        let compared = second_opinion::compare(&bytes, version);
        prop_assert!(compared.is_ok(), "{compared:?}");
    }
}
