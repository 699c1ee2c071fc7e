//! The fingerprint of RSA keys that a broken library made (CVE-2017-15361, "ROCA").
//!
//! Its primes were k·M + (65537^a mod M), M a product of the first primes. So their product is a
//! power of 65537 modulo each of those primes, which a modulus of another origin is with a chance
//! of one in 2^27 or less (Nemec et al., "The Return of Coppersmith's Attack", §2.3). Small numbers
//! only: nothing secret and nothing cryptographic is computed here.

/// The generator that the library used.
const GENERATOR: u32 = 65_537;

/// Primes of M, for the smallest keys it made. Of the others the fingerprint would say less.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus (big-endian) has the fingerprint.
pub(crate) fn has_fingerprint(modulus: &[u8]) -> bool {
    PRIMES
        .iter()
        .all(|prime| is_power_of_generator(remainder(modulus, *prime), *prime))
}

fn remainder(modulus: &[u8], prime: u32) -> u32 {
    modulus
        .iter()
        .fold(0, |rest, octet| (rest * 256 + u32::from(*octet)) % prime)
}

fn is_power_of_generator(rest: u32, prime: u32) -> bool {
    let step = GENERATOR % prime;
    let mut power = 1;
    loop {
        if power == rest {
            return true;
        }
        power = power * step % prime;
        if power == 1 {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 65537^`power` modulo each prime, put together by adding up: a number with the fingerprint.
    fn fingerprinted(power: u32) -> Vec<u8> {
        // Chinese remainders, prime by prime, in big-endian octets.
        let mut number = vec![0u8; 32];
        let mut product = vec![0u8; 32];
        product[31] = 1;
        for prime in PRIMES {
            let mut wanted = 1;
            for _ in 0..power {
                wanted = wanted * (GENERATOR % prime) % prime;
            }
            while remainder(&number, prime) != wanted {
                add(&mut number, &product);
            }
            let before = product.clone();
            for _ in 1..prime {
                add(&mut product, &before);
            }
        }
        number
    }

    fn add(to: &mut [u8], other: &[u8]) {
        let mut carry = 0u16;
        for (octet, more) in to.iter_mut().zip(other).rev() {
            carry += u16::from(*octet) + u16::from(*more);
            *octet = (carry & 0xff) as u8;
            carry >>= 8;
        }
        assert_eq!(carry, 0);
    }

    #[test]
    fn numbers_made_that_way_are_known() {
        for power in [0, 1, 2, 77, 4096] {
            let number = fingerprinted(power);
            assert!(has_fingerprint(&number), "{power}");
            let mut other = number;
            other[31] ^= 2;
            assert!(!has_fingerprint(&other), "{power}");
        }
    }

    #[test]
    fn keys_of_another_origin_are_not_taken_for_one() {
        use aws_lc_rs::encoding::AsDer;
        use aws_lc_rs::rsa::{KeyPair, KeySize};
        use aws_lc_rs::signature::KeyPair as _;
        for _ in 0..3 {
            let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
            let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
                pair.public_key().as_der().unwrap();
            crate::PublicKey::from_der(der.as_ref()).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_moduli_have_no_fingerprint(mut modulus in prop::collection::vec(any::<u8>(), 256)) {
            modulus[255] |= 1;
            prop_assert!(!has_fingerprint(&modulus));
        }
    }
}
