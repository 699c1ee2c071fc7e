//! Where a certificate says that its status and its issuer are found, and which of the revocation
//! lists speaks of it.

use std::fmt;

use rcgen::CustomExtension;
use yasna::Tag;
use yasna::models::ObjectIdentifier;

use crate::authority::IssuerNumber;
use crate::error::CaError;
use crate::identifier::Serial;

/// Most lists that revocations are spread over: one per value of a serial number's last octet.
const MAX_SHARDS: u16 = 256;

/// A number of revocation lists: a power of two up to 256. A certificate belongs to the list whose
/// index is its serial number modulo that number. Serial numbers are random, so lists are even.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlShards(u16);

impl CrlShards {
    /// The number `count`.
    ///
    /// # Errors
    /// [`CaError::Invalid`] when it is not a power of two from 1 to 256.
    pub fn new(count: u16) -> Result<Self, CaError> {
        if count.is_power_of_two() && count <= MAX_SHARDS {
            return Ok(Self(count));
        }
        let reason = "it is a power of two from 1 to 256, e.g. 16";
        Err(CaError::invalid(
            "number of revocation lists",
            &count.to_string(),
            reason,
        ))
    }

    /// How many lists there are.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// The list that speaks of a serial number of the first issuer ([`CrlShard::by`] names another).
    #[must_use]
    pub fn of(self, serial: &Serial) -> CrlShard {
        CrlShard {
            issuer: IssuerNumber::FIRST,
            shards: self,
            index: u16::from(serial.last_octet()) % self.0,
        }
    }

    /// Every list of the first issuer, in order.
    pub fn all(self) -> impl Iterator<Item = CrlShard> {
        (0..self.0).map(move |index| CrlShard {
            issuer: IssuerNumber::FIRST,
            shards: self,
            index,
        })
    }
}

impl Default for CrlShards {
    /// 16 lists: with 10,000 revocations each is about 25 KB.
    fn default() -> Self {
        Self(16)
    }
}

/// One of the revocation lists. Its path names how many there are, so that certificates of before
/// a change of that number are spoken of as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlShard {
    issuer: IssuerNumber,
    shards: CrlShards,
    index: u16,
}

impl CrlShard {
    /// List `index` of `count` of the first issuer; `None` where there is no such list.
    #[must_use]
    pub fn new(count: u16, index: u16) -> Option<Self> {
        let shards = CrlShards::new(count).ok()?;
        (index < count).then_some(Self {
            issuer: IssuerNumber::FIRST,
            shards,
            index,
        })
    }

    /// The same list of another issuer's certificates.
    #[must_use]
    pub const fn by(mut self, issuer: IssuerNumber) -> Self {
        self.issuer = issuer;
        self
    }

    /// Whose certificates it speaks of.
    #[must_use]
    pub const fn issuer(self) -> IssuerNumber {
        self.issuer
    }

    /// How many lists there are.
    #[must_use]
    pub const fn shards(self) -> CrlShards {
        self.shards
    }

    /// The last octets of the serial numbers that this list speaks of.
    pub fn octets(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |octet| u16::from(*octet) % self.shards.0 == self.index)
    }
}

impl fmt::Display for CrlShard {
    /// The path below the public URL, without a slash at its beginning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.issuer == IssuerNumber::FIRST {
            write!(f, "crl/{}/{}.crl", self.shards.0, self.index)
        } else {
            let Self { issuer, index, .. } = self;
            write!(f, "crl/{issuer}/{}/{index}.crl", self.shards.0)
        }
    }
}

/// The URLs in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// The revocation list that speaks of it (RFC 5280 §4.2.1.13).
    pub crl: String,
    /// The OCSP responder (RFC 5280 §4.2.2.1).
    pub ocsp: String,
    /// The issuing certificate (RFC 5280 §4.2.2.1).
    pub issuer: String,
}

impl Pointers {
    pub(crate) fn at(
        public_url: &str,
        issuer: IssuerNumber,
        shards: CrlShards,
        serial: &Serial,
    ) -> Self {
        Self {
            crl: format!("{public_url}/{}", shards.of(serial).by(issuer)),
            ocsp: format!("{public_url}/ocsp"),
            issuer: if issuer == IssuerNumber::FIRST {
                format!("{public_url}/issuing.crt")
            } else {
                format!("{public_url}/issuing/{issuer}.crt")
            },
        }
    }
}

/// Authority information access (RFC 5280 §4.2.2.1). The URLs are ASCII, as the public URL is.
pub(crate) fn authority_information_access(pointers: &Pointers) -> CustomExtension {
    const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
    const OCSP: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1];
    const CA_ISSUERS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 2];
    /// GeneralName's uniformResourceIdentifier.
    const URI_TAG: u64 = 6;
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|descriptions| {
            for (method, url) in [(OCSP, &pointers.ocsp), (CA_ISSUERS, &pointers.issuer)] {
                descriptions.next().write_sequence(|description| {
                    description
                        .next()
                        .write_oid(&ObjectIdentifier::from_slice(method));
                    description
                        .next()
                        .write_tagged_implicit(Tag::context(URI_TAG), |uri| {
                            uri.write_ia5_string(url);
                        });
                });
            }
        });
    });
    CustomExtension::from_oid_content(AUTHORITY_INFO_ACCESS, content)
}

/// id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1): nobody is to ask for the responder's own status.
pub(crate) fn ocsp_no_check() -> CustomExtension {
    const OCSP_NO_CHECK: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 5];
    let null = yasna::construct_der(|writer| writer.write_null());
    CustomExtension::from_oid_content(OCSP_NO_CHECK, null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_serial_number_has_one_list_of_each_number_of_lists() {
        for count in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
            let shards = CrlShards::new(count).unwrap();
            let mut seen = std::collections::HashSet::new();
            for shard in shards.all() {
                for octet in shard.octets() {
                    assert!(seen.insert(octet), "{octet} of {count}");
                    let serial = Serial::from_be_bytes(&[1, octet]).unwrap();
                    assert_eq!(shards.of(&serial), shard);
                }
            }
            assert_eq!(seen.len(), 256);
        }
    }

    #[test]
    fn numbers_of_lists() {
        for bad in [0, 3, 12, 257, 512, u16::MAX] {
            assert!(CrlShards::new(bad).is_err(), "{bad}");
        }
        assert_eq!(CrlShard::new(8, 8), None);
        assert_eq!(CrlShard::new(5, 1), None);
        let shard = CrlShard::new(8, 7).unwrap();
        assert_eq!(shard.to_string(), "crl/8/7.crl");
        let next = shard.by(IssuerNumber::new(2).unwrap());
        assert_eq!(next.to_string(), "crl/2/8/7.crl");
    }
}
