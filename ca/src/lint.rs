//! The second look: what was signed is read back with another library and held against what was
//! meant, before anyone gets it.

use std::time::SystemTime;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use crate::error::CaError;
use crate::facts::{self, CertificateFacts, CertificateName};
use crate::identifier::Serial;
use crate::profile::Rules;
use crate::public_key::PublicKey;

/// What a certificate was meant to be.
pub(crate) struct Meant<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) common_name: &'a str,
    pub(crate) names: &'a [CertificateName],
    pub(crate) key: &'a PublicKey,
    pub(crate) serial: &'a Serial,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// DER of the issuing certificate.
    pub(crate) issuer: &'a [u8],
}

/// Reads a certificate back.
///
/// # Errors
/// [`CaError::Lint`] naming the first rule broken.
pub(crate) fn check(der: &[u8], meant: &Meant<'_>) -> Result<CertificateFacts, CaError> {
    let certificate = facts::parse(der)?;
    let facts = CertificateFacts::of(&certificate, der)?;
    let issuer = facts::parse(meant.issuer)?;
    let issuer_facts = CertificateFacts::of(&issuer, meant.issuer)?;
    let marks = Marks::of(&certificate)?;
    let issuer_key = Marks::of(&issuer)?.subject_key;

    let rules: [(bool, &str); 12] = [
        (
            certificate
                .verify_signature(Some(issuer.public_key()))
                .is_ok(),
            "its signature does not verify with the issuing key",
        ),
        (
            certificate.issuer().as_raw() == issuer.subject().as_raw(),
            "its issuer is not the issuing certificate's subject",
        ),
        (
            certificate.public_key().raw == meant.key.der(),
            "its key is not the requested one",
        ),
        (
            facts.serial == *meant.serial,
            "its serial number is another",
        ),
        (
            facts.profile() == Some(meant.rules.profile),
            "its usages, subject or names are not those of its profile",
        ),
        (
            facts.subject_common_names == [meant.common_name],
            "its common name is another",
        ),
        (facts.names == meant.names, "its names are others"),
        (
            facts.not_before == meant.not_before && facts.not_after == meant.not_after,
            "its validity is another",
        ),
        (
            facts.not_before < facts.not_after
                && issuer_facts.not_before <= facts.not_before
                && facts.not_after <= issuer_facts.not_after,
            "it does not live within its issuer's life",
        ),
        (
            marks.critical_end_entity && marks.critical_key_usage,
            "its basicConstraints or keyUsage is not critical",
        ),
        (
            marks.subject_key.is_some()
                && issuer_key.is_some()
                && marks.authority_key == issuer_key,
            "its key identifiers do not lead to its issuer",
        ),
        (
            marks.pointers == meant.rules.points_to_authority && !marks.unknown_critical,
            "it does not say where its revocation list is, or says what it should not",
        ),
    ];
    match rules.into_iter().find(|(kept, _)| !kept) {
        None => Ok(facts),
        Some((_, rule)) => Err(CaError::Lint {
            rule: rule.to_owned(),
        }),
    }
}

/// Marks of a certificate that [`CertificateFacts`] has no use for.
#[derive(Default)]
struct Marks {
    critical_end_entity: bool,
    critical_key_usage: bool,
    subject_key: Option<Vec<u8>>,
    authority_key: Option<Vec<u8>>,
    pointers: bool,
    unknown_critical: bool,
}

impl Marks {
    fn of(certificate: &X509Certificate<'_>) -> Result<Self, CaError> {
        // RFC 5280 §4.2: no extension twice.
        certificate
            .extensions_map()
            .map_err(|_| facts::unreadable("it has an extension twice"))?;
        let mut marks = Self::default();
        let (mut list, mut issuers) = (false, false);
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    marks.critical_end_entity = extension.critical && !constraints.ca;
                }
                ParsedExtension::KeyUsage(_) => marks.critical_key_usage = extension.critical,
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    marks.subject_key = Some(id.0.to_owned());
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    marks.authority_key = id.key_identifier.as_ref().map(|id| id.0.to_owned());
                }
                ParsedExtension::CRLDistributionPoints(points) => list = !points.points.is_empty(),
                ParsedExtension::AuthorityInfoAccess(access) => {
                    issuers = !access.accessdescs.is_empty();
                }
                ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_) => {}
                _ => marks.unknown_critical |= extension.critical,
            }
        }
        marks.pointers = list && issuers;
        Ok(marks)
    }
}
