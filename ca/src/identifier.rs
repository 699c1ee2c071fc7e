//! Names of certificates: the registry's id and the issuer's serial number.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{CaError, shorten};

/// Text that is no certificate id or serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is refused: {expected}")]
pub struct InvalidIdentifier {
    what: &'static str,
    value: String,
    expected: &'static str,
}

impl InvalidIdentifier {
    pub(crate) fn new(what: &'static str, value: &str, expected: &'static str) -> Self {
        Self {
            what,
            value: shorten(value),
            expected,
        }
    }
}

/// The id of a certificate: SHA-256 of its DER, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateId([u8; 32]);

impl CertificateId {
    /// The id of the certificate with this DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let mut octets = [0; 32];
        octets
            .iter_mut()
            .zip(digest.as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(octets)
    }

    /// The 32 octets of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for CertificateId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                let expected = "an id is 64 lower-case hexadecimal digits";
                InvalidIdentifier::new("certificate id", text, expected)
            })
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateId({self})")
    }
}

/// Octets in the longest serial number (RFC 5280 §4.1.2.2).
const MAX_SERIAL_BYTES: usize = 20;

/// A certificate's serial number: positive, at most 20 octets (RFC 5280 §4.1.2.2), written in
/// lower-case hexadecimal with an even number of digits and no leading `00`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// A fresh serial: 159 random bits, never zero.
    ///
    /// # Errors
    /// [`CaError::Cryptography`] when there are no random octets to be had.
    pub fn random() -> Result<Self, CaError> {
        loop {
            let mut octets = [0u8; MAX_SERIAL_BYTES];
            aws_lc_rs::rand::fill(&mut octets)
                .map_err(|_| CaError::Cryptography("give random octets"))?;
            let [first, ..] = &mut octets;
            // An INTEGER with the top bit set would be negative, or take a 21st octet.
            *first &= 0x7f;
            if let Some(serial) = Self::from_be_bytes(&octets) {
                return Ok(serial);
            }
        }
    }

    /// The serial with these big-endian octets; `None` when zero or longer than 20 octets.
    #[must_use]
    pub fn from_be_bytes(octets: &[u8]) -> Option<Self> {
        let start = octets.iter().position(|octet| *octet != 0)?;
        let significant = octets.get(start..)?;
        let sign_octet = usize::from(significant.first().is_some_and(|first| *first >= 0x80));
        (significant.len() + sign_octet <= MAX_SERIAL_BYTES).then(|| Self(significant.into()))
    }

    /// As a decimal number, the form in which AWS IoT's policies compare it.
    #[must_use]
    pub fn to_decimal(&self) -> String {
        // Digits from the last to the first: each octet multiplies what is there and adds itself.
        let mut digits = vec![0u8];
        for octet in &self.0 {
            let mut carry = u32::from(*octet);
            for digit in &mut digits {
                carry += u32::from(*digit) * 256;
                *digit = (carry % 10) as u8;
                carry /= 10;
            }
            while carry > 0 {
                digits.push((carry % 10) as u8);
                carry /= 10;
            }
        }
        digits.iter().rev().map(|d| char::from(b'0' + d)).collect()
    }

    /// The last, least significant octet.
    #[must_use]
    pub fn last_octet(&self) -> u8 {
        // A serial number is not zero, so there is one.
        self.0.last().copied().unwrap_or_default()
    }

    /// Big-endian octets without leading zeros.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .filter(|octets| octets.first() != Some(&0))
            .and_then(|octets| Self::from_be_bytes(&octets))
            .ok_or_else(|| {
                let expected =
                    "a serial number is up to 20 octets in lower-case hexadecimal, not zero";
                InvalidIdentifier::new("serial number", text, expected)
            })
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(CertificateId);
serde_as_text!(Serial);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_written_in_decimal_as_aws_documents_it() {
        for (hex, decimal) in [
            ("921285cbb7a5e086", "10525622389124227206"),
            ("01", "1"),
            ("0100", "256"),
            ("ff", "255"),
        ] {
            let serial: Serial = hex.parse().unwrap();
            assert_eq!(serial.to_decimal(), decimal);
        }
    }

    #[test]
    fn id_is_the_hash_in_lower_case_hex() {
        let id = CertificateId::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse::<CertificateId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<CertificateId>(&json).unwrap(), id);
        for bad in [
            "",
            &text.to_uppercase(),
            &text[1..],
            &format!("{text}00"),
            "zz",
        ] {
            assert!(bad.parse::<CertificateId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serial_is_positive_and_at_most_twenty_octets() {
        assert!(Serial::from_be_bytes(&[0; 20]).is_none());
        assert!(Serial::from_be_bytes(&[]).is_none());
        assert!(Serial::from_be_bytes(&[0x7f; 20]).is_some());
        assert!(
            Serial::from_be_bytes(&[0x80; 20]).is_none(),
            "needs a 21st octet"
        );
        assert!(Serial::from_be_bytes(&[1; 21]).is_none());
        assert_eq!(Serial::from_be_bytes(&[0, 0, 1]).unwrap().to_string(), "01");
        assert!("0001".parse::<Serial>().is_err(), "one way to write each");
        assert_eq!("0a01".parse::<Serial>().unwrap().as_bytes(), [10, 1]);
    }

    #[test]
    fn random_serials_differ() {
        let all: std::collections::HashSet<_> =
            (0..1000).map(|_| Serial::random().unwrap()).collect();
        assert_eq!(all.len(), 1000);
    }
}
