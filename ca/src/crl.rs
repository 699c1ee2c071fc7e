//! Certificate revocation lists (RFC 5280 §5), signed by the issuing key.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope,
    KeyIdMethod, RevokedCertParams, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::authority::{Authority, Issuer, IssuerNumber};
use crate::custody::{Custody, Signer};
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

            /// The CRLReason with this number.
            pub(crate) fn from_code(code: u8) -> Option<Self> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|reason| reason.encodable() as u8 == code)
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

/// Whose key signs a list.
pub(crate) struct ListSigner<'a> {
    pub(crate) der: &'a CertificateDer<'static>,
    pub(crate) key_id: &'a [u8],
    pub(crate) custody: &'a dyn Custody,
}

/// What a list says.
pub(crate) struct Content<'a> {
    pub(crate) number: u64,
    pub(crate) entries: &'a [RevokedEntry],
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: SystemTime,
    /// Where it is found, for one of several lists of leaf certificates.
    pub(crate) urls: &'a [String],
}

/// Signs a list; with it how many entries it has. An entry given twice stands with its earliest revocation.
///
/// # Errors
/// Those of [`Authority::crl`].
pub(crate) fn sign(
    signs: &ListSigner<'_>,
    content: &Content<'_>,
) -> Result<(Vec<u8>, usize), CaError> {
    check_entry_count(content.entries.len())?;
    let this_update = times::seconds(content.this_update)?;
    let next_update = times::seconds(content.next_update)?;
    if next_update <= this_update {
        let reason = "the next update of a revocation list comes after this one";
        return Err(CaError::invalid(
            "next update",
            &next_update.to_string(),
            reason,
        ));
    }
    let mut revoked: BTreeMap<&Serial, &RevokedEntry> = BTreeMap::new();
    for entry in content.entries {
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
    let urls = content.urls;
    let params = CertificateRevocationListParams {
        this_update: times::encodable(this_update)?,
        next_update: times::encodable(next_update)?,
        crl_number: SerialNumber::from(content.number),
        issuing_distribution_point: (!urls.is_empty()).then(|| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint {
                uris: urls.to_vec(),
            },
            // The issuing certificate signs no authorities.
            scope: Some(CrlScope::UserCertsOnly),
        }),
        revoked_certs,
        key_identifier_method: KeyIdMethod::PreSpecified(signs.key_id.to_vec()),
    };
    let signer = Signer::new(signs.custody);
    let signed = rcgen::Issuer::from_ca_cert_der(signs.der, &signer)
        .and_then(|issuer| params.signed_by(&issuer));
    let der = signed
        .map_err(|error| signer.explain(error))?
        .der()
        .to_vec();
    Ok((der, expected))
}

fn no(reason: &str) -> CaError {
    facts::unreadable(format!("as a revocation list, {reason}"))
}

/// What a list revokes.
///
/// # Errors
/// [`CaError::Unreadable`] for an entry that no list has.
pub(crate) fn entries(list: &CertificateRevocationList<'_>) -> Result<Vec<RevokedEntry>, CaError> {
    let entries = list.iter_revoked_certificates().map(|entry| {
        let reason = match entry.reason_code() {
            None => RevocationReason::Unspecified,
            Some((_, code)) => RevocationReason::from_code(code.0)
                .ok_or_else(|| no("an entry has a reason that is not known"))?,
        };
        Ok(RevokedEntry {
            serial: Serial::from_be_bytes(entry.raw_serial())
                .ok_or_else(|| no("an entry's serial number is not positive"))?,
            revoked_at: times::system(entry.revocation_date)?,
            reason,
        })
    });
    entries.collect()
}

impl Authority {
    /// The list of what is revoked of an issuer's certificates, as DER, signed by its key. An entry given twice stands
    /// with its earliest revocation; `number` must grow with every list (RFC 5280 §5.2.3).
    ///
    /// # Errors
    /// [`CaError::Invalid`] for more than [`MAX_CRL_ENTRIES`] entries or a `next_update` that is
    /// not after `this_update`; [`CaError::Custody`] when the key cannot be used.
    pub fn crl(
        &self,
        issuer: IssuerNumber,
        number: u64,
        entries: &[RevokedEntry],
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, CaError> {
        self.sign_list(issuer, number, entries, (this_update, next_update), &[])
    }

    /// As [`Self::crl`], for one of several lists: `urls` is where certificates say that it is
    /// found, and stands in the list as its critical issuing distribution point (RFC 5280 §5.2.5),
    /// so that it is not taken for another.
    ///
    /// # Errors
    /// Those of [`Self::crl`], and [`CaError::Invalid`] for no URL at all.
    pub fn crl_shard(
        &self,
        issuer: IssuerNumber,
        urls: &[String],
        number: u64,
        entries: &[RevokedEntry],
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, CaError> {
        if urls.is_empty() {
            let reason = "a list that is one of several says where it is found";
            return Err(CaError::invalid("URLs", "none", reason));
        }
        self.sign_list(issuer, number, entries, (this_update, next_update), urls)
    }

    fn sign_list(
        &self,
        issuer: IssuerNumber,
        number: u64,
        entries: &[RevokedEntry],
        (this_update, next_update): (SystemTime, SystemTime),
        urls: &[String],
    ) -> Result<Vec<u8>, CaError> {
        let issuer = self.issuer(issuer)?;
        let signer = ListSigner {
            der: &issuer.der,
            key_id: &issuer.key_id,
            custody: issuer.custody.as_ref(),
        };
        let content = Content {
            number,
            entries,
            this_update,
            next_update,
            urls,
        };
        let (der, expected) = sign(&signer, &content)?;
        // The second look.
        let slip = |what: String| CaError::Lint {
            rule: format!("the revocation list does not read back as it was meant: {what}"),
        };
        let read = self
            .read_crl(&der)
            .map_err(|error| slip(error.to_string()))?;
        if read.entries.len() != expected
            || read.urls != urls
            || read.number != number
            || read.issuer != issuer.number
        {
            return Err(slip(
                "its entries, URLs, number or issuer are others".to_owned(),
            ));
        }
        Ok(der)
    }

    /// Reads a list that this authority signed.
    ///
    /// # Errors
    /// [`CaError::Unreadable`] when it is none, or what is critical in it is not known here.
    pub fn read_crl(&self, der: &[u8]) -> Result<RevocationList, CaError> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(no("it is truncated or followed by something else"));
        };
        let signed = |issuer: &Issuer| {
            facts::parse(&issuer.der).is_ok_and(|issuing| {
                list.issuer().as_raw() == issuing.subject().as_raw()
                    && list.verify_signature(issuing.public_key()).is_ok()
            })
        };
        let Some(issuer) = self.every_issuer().into_iter().find(|one| signed(one)) else {
            return Err(no("it was not signed by the issuing key"));
        };
        let (mut urls, mut number) = (Vec::new(), None);
        for extension in list.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::CRLNumber(found) => number = u64::try_from(found).ok(),
                ParsedExtension::IssuingDistributionPoint(point)
                    if extension.critical && !point.indirect_crl =>
                {
                    let Some(DistributionPointName::FullName(names)) = &point.distribution_point
                    else {
                        return Err(no("its distribution point has no name"));
                    };
                    urls.extend(names.iter().filter_map(|name| match name {
                        GeneralName::URI(uri) => Some((*uri).to_owned()),
                        _ => None,
                    }));
                }
                ParsedExtension::AuthorityKeyIdentifier(_) => {}
                _ => return Err(no("it has an extension that no list of ours has")),
            }
        }
        Ok(RevocationList {
            issuer: issuer.number,
            number: number.ok_or_else(|| no("it has no number"))?,
            this_update: times::system(list.last_update())?,
            next_update: list
                .next_update()
                .ok_or_else(|| no("it does not say when the next comes"))
                .and_then(times::system)?,
            urls,
            entries: entries(&list)?,
        })
    }
}

/// What a revocation list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// Whose certificates it speaks of.
    pub issuer: IssuerNumber,
    /// Its number, which grows from one list of a kind to the next.
    pub number: u64,
    /// When it was made.
    pub this_update: SystemTime,
    /// When the next comes, at the latest.
    pub next_update: SystemTime,
    /// Where it is found; empty for a list that speaks of every certificate.
    pub urls: Vec<String>,
    /// What is revoked.
    pub entries: Vec<RevokedEntry>,
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
            .crl(
                IssuerNumber::FIRST,
                7,
                &entries,
                now(),
                now() + Duration::from_secs(3600),
            )
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
    fn one_of_several_lists_says_which() {
        let (_dir, authority) = authority();
        let hour = Duration::from_secs(3600);
        let urls = ["http://a/crl/16/1.crl", "http://b/crl/16/1.crl"].map(str::to_owned);
        let entries = [entry(1, 50, RevocationReason::KeyCompromise)];
        let der = authority
            .crl_shard(IssuerNumber::FIRST, &urls, 9, &entries, now(), now() + hour)
            .unwrap();
        let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
        let critical: Vec<_> = list
            .extensions()
            .iter()
            .filter(|one| one.critical)
            .collect();
        assert_eq!(critical.len(), 1);
        assert_eq!(critical[0].oid.to_id_string(), "2.5.29.28");
        let read = authority.read_crl(&der).unwrap();
        assert_eq!(
            (read.number, &read.urls[..], &read.entries[..]),
            (9, &urls[..], &entries[..])
        );
        assert_eq!((read.this_update, read.next_update), (now(), now() + hour));
        assert!(
            authority
                .crl_shard(IssuerNumber::FIRST, &[], 9, &[], now(), now() + hour)
                .is_err()
        );
        let (_dir, other) = super::super::authority::tests::authority();
        assert!(
            other
                .read_crl(&der)
                .unwrap_err()
                .to_string()
                .contains("issuing key")
        );
        assert!(authority.read_crl(&der[..der.len() - 1]).is_err());
    }

    #[test]
    fn an_empty_list_and_a_list_without_future() {
        let (_dir, authority) = authority();
        let hour = Duration::from_secs(3600);
        authority
            .crl(IssuerNumber::FIRST, 1, &[], now(), now() + hour)
            .unwrap();
        assert!(
            authority
                .crl(IssuerNumber::FIRST, 1, &[], now(), now())
                .is_err()
        );
        assert!(
            authority
                .crl(IssuerNumber::FIRST, 1, &[], now(), now() - hour)
                .is_err()
        );
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
