//! Certificate revocation lists (RFC 5280 §5), signed by the issuing key.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::Authority;
use crate::custody::Signer;
use crate::error::CaError;
use crate::identifier::{InvalidIdentifier, Serial};
use crate::{facts, times};

/// Entries of the longest list: about 40 MB of DER.
pub const MAX_CRL_ENTRIES: usize = 1_000_000;

/// One revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedEntry {
    /// The certificate's serial number.
    pub serial: Serial,
    /// When it was revoked, to the second.
    pub revoked_at: SystemTime,
    /// Why.
    pub reason: RevocationReason,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why a certificate was revoked, by the names of RFC 5280 §5.3.1 (`removeFromCRL`, which
        /// only delta lists know, left out).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum RevocationReason {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }

        impl RevocationReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in RFC 5280.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            const fn encodable(self) -> rcgen::RevocationReason {
                match self { $(Self::$variant => rcgen::RevocationReason::$variant,)+ }
            }
        }
    };
}

reasons! {
    /// No reason given; the list then carries none.
    #[default]
    Unspecified = "unspecified",
    /// Someone else may hold the private key.
    KeyCompromise = "keyCompromise",
    /// The same of the authority's key.
    CaCompromise = "cACompromise",
    /// The subject's name or other facts changed.
    AffiliationChanged = "affiliationChanged",
    /// Another certificate took its place.
    Superseded = "superseded",
    /// It is no longer needed.
    CessationOfOperation = "cessationOfOperation",
    /// Held back for now.
    CertificateHold = "certificateHold",
    /// A privilege in it was withdrawn.
    PrivilegeWithdrawn = "privilegeWithdrawn",
    /// The attribute authority's key may be in other hands.
    AaCompromise = "aACompromise",
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RevocationReason {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == text)
            .ok_or_else(|| {
                InvalidIdentifier::new(
                    "revocation reason",
                    text,
                    "a reason is one of RFC 5280's: unspecified, keyCompromise, cACompromise, \
                     affiliationChanged, superseded, cessationOfOperation, certificateHold, \
                     privilegeWithdrawn, aACompromise",
                )
            })
    }
}

impl Authority {
    /// The list of what is revoked, as DER, signed by the issuing key. An entry given twice stands
    /// with its earliest revocation; `number` must grow with every list (RFC 5280 §5.2.3).
    ///
    /// # Errors
    /// [`CaError::Invalid`] for more than [`MAX_CRL_ENTRIES`] entries or a `next_update` that is
    /// not after `this_update`; [`CaError::Custody`] when the key cannot be used.
    pub fn crl(
        &self,
        number: u64,
        entries: &[RevokedEntry],
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, CaError> {
        check_entry_count(entries.len())?;
        let this_update = times::seconds(this_update)?;
        let next_update = times::seconds(next_update)?;
        if next_update <= this_update {
            let reason = "the next update of a revocation list comes after this one";
            return Err(CaError::invalid(
                "next update",
                &next_update.to_string(),
                reason,
            ));
        }
        let mut revoked: BTreeMap<&Serial, &RevokedEntry> = BTreeMap::new();
        for entry in entries {
            let kept = revoked.entry(&entry.serial).or_insert(entry);
            if entry.revoked_at < kept.revoked_at {
                *kept = entry;
            }
        }
        let revoked_certs = revoked
            .values()
            .map(|entry| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(entry.serial.as_bytes()),
                    revocation_time: times::encodable(times::seconds(entry.revoked_at)?)?,
                    reason_code: Some(entry.reason.encodable()),
                    invalidity_date: None,
                })
            })
            .collect::<Result<Vec<_>, CaError>>()?;
        let expected = revoked_certs.len();
        let params = CertificateRevocationListParams {
            this_update: times::encodable(this_update)?,
            next_update: times::encodable(next_update)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::PreSpecified(self.issuing_key_id().to_owned()),
        };
        let signer = Signer::new(self.custody());
        let signed = rcgen::Issuer::from_ca_cert_der(self.issuing_der(), &signer)
            .and_then(|issuer| params.signed_by(&issuer));
        let der = signed
            .map_err(|error| signer.explain(error))?
            .der()
            .to_vec();
        self.check_list(&der, expected)?;
        Ok(der)
    }

    /// The second look at a signed list.
    fn check_list(&self, der: &[u8], entries: usize) -> Result<(), CaError> {
        let issuing = facts::parse(self.issuing_der())?;
        let kept = CertificateRevocationList::from_der(der).is_ok_and(|(rest, list)| {
            rest.is_empty()
                && list.verify_signature(issuing.public_key()).is_ok()
                && list.issuer().as_raw() == issuing.subject().as_raw()
                && list.iter_revoked_certificates().count() == entries
        });
        if kept {
            return Ok(());
        }
        Err(CaError::Lint {
            rule: "the revocation list does not read back as it was meant".to_owned(),
        })
    }
}

fn check_entry_count(entries: usize) -> Result<(), CaError> {
    if entries <= MAX_CRL_ENTRIES {
        return Ok(());
    }
    let reason = format!("a revocation list has at most {MAX_CRL_ENTRIES}");
    Err(CaError::invalid(
        "number of entries",
        &entries.to_string(),
        reason,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::tests::{authority, now};
    use std::time::Duration;

    fn entry(serial: u8, seconds: u64, reason: RevocationReason) -> RevokedEntry {
        RevokedEntry {
            serial: Serial::from_be_bytes(&[serial]).unwrap(),
            revoked_at: now() + Duration::from_secs(seconds),
            reason,
        }
    }

    #[test]
    fn entries_reasons_and_number() {
        let (_dir, authority) = authority();
        let mut entries: Vec<_> = (1..)
            .zip(RevocationReason::ALL)
            .map(|(serial, reason)| entry(serial, 50, *reason))
            .collect();
        entries.push(entry(2, 10, RevocationReason::Superseded));
        entries.push(entry(2, 90, RevocationReason::Superseded));
        let der = authority
            .crl(7, &entries, now(), now() + Duration::from_secs(3600))
            .unwrap();
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        assert_eq!(list.crl_number().unwrap().to_string(), "7");
        assert_eq!(
            list.next_update().unwrap().timestamp() - list.last_update().timestamp(),
            3600
        );
        let revoked: Vec<_> = list.iter_revoked_certificates().collect();
        assert_eq!(revoked.len(), RevocationReason::ALL.len());
        assert!(
            revoked[0].reason_code().is_none(),
            "unspecified is left out, RFC 5280 §5.3.1"
        );
        assert_eq!(
            revoked[1].reason_code().unwrap().1.0,
            4,
            "the earliest revocation stands"
        );
        let earliest = times::seconds(now()).unwrap() + 10;
        assert_eq!(revoked[1].revocation_date.timestamp(), earliest);
        assert_eq!(revoked[8].reason_code().unwrap().1.0, 10);
    }

    #[test]
    fn an_empty_list_and_a_list_without_future() {
        let (_dir, authority) = authority();
        let hour = Duration::from_secs(3600);
        authority.crl(1, &[], now(), now() + hour).unwrap();
        assert!(authority.crl(1, &[], now(), now()).is_err());
        assert!(authority.crl(1, &[], now(), now() - hour).is_err());
    }

    #[test]
    fn number_of_entries_is_bounded() {
        assert!(check_entry_count(MAX_CRL_ENTRIES).is_ok());
        assert!(check_entry_count(MAX_CRL_ENTRIES + 1).is_err());
    }

    #[test]
    fn reasons_by_name() {
        for reason in RevocationReason::ALL {
            assert_eq!(
                reason.to_string().parse::<RevocationReason>().unwrap(),
                *reason
            );
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(json, format!("\"{reason}\""));
        }
        assert!("removeFromCRL".parse::<RevocationReason>().is_err());
        assert!("KEYCOMPROMISE".parse::<RevocationReason>().is_err());
    }
}
