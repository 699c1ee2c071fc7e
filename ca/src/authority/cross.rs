//! Cross-certificates: a root's name and key, signed by another root (RFC 4210 §4.4, NewWithOld and
//! OldWithNew), so that who trusts the one can follow the other.

use std::time::{Duration, SystemTime};

use der::asn1::{Any, BitString, GeneralizedTime, Null, ObjectIdentifier, OctetString, UtcTime};
use der::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::{Time, Validity};

use super::issuer::subject_key_id;
use super::root::Root;
use super::{BACKDATED, fitness};
use crate::custody::Custody;
use crate::error::CaError;
use crate::facts::{self, CertificateFacts};
use crate::identifier::Serial;
use crate::public_key::KeyKind;
use crate::times;

const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

fn refused(reason: &str) -> CaError {
    CaError::invalid("cross-certificate", "(as given)", reason)
}

fn encoding(error: der::Error) -> CaError {
    facts::unreadable(error.to_string())
}

/// Signs one root's name and key with another's. All that the root says of itself stays, but its
/// life, which is what both have in common from a minute ago.
///
/// # Errors
/// [`CaError::OutsideIssuer`] where they have nothing in common; [`CaError::Custody`].
pub(super) fn sign(
    subject: &Root,
    signer: &Root,
    key: &dyn Custody,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    let begin = times::seconds(now)?.saturating_sub_unsigned(BACKDATED.as_secs());
    let (of_subject, of_signer) = (&subject.facts, &signer.facts);
    let not_before = begin
        .max(times::seconds(of_subject.not_before)?)
        .max(times::seconds(of_signer.not_before)?);
    let not_after = times::seconds(of_subject.not_after)?.min(times::seconds(of_signer.not_after)?);
    if not_before >= not_after {
        return Err(CaError::OutsideIssuer {
            now: times::readable(now),
            not_before: times::readable(of_signer.not_before),
            not_after: times::readable(of_signer.not_after),
        });
    }
    let mut tbs = Certificate::from_der(&subject.der)
        .map_err(encoding)?
        .tbs_certificate;
    let issuer = Certificate::from_der(&signer.der).map_err(encoding)?;
    tbs.issuer = issuer.tbs_certificate.subject;
    tbs.serial_number = SerialNumber::new(Serial::random()?.as_bytes()).map_err(encoding)?;
    tbs.validity = Validity {
        not_before: time(not_before)?,
        not_after: time(not_after)?,
    };
    tbs.signature = algorithm(key.public_key().kind());
    let mut extensions = tbs.extensions.take().unwrap_or_default();
    // What the root says of its own issuer, and of where its issuer's lists are, is not so of this one.
    extensions.retain(|one| one.extn_id != AUTHORITY_KEY_ID);
    if let Some(id) = subject_key_id(&signer.der)? {
        let id = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(id).map_err(encoding)?),
            ..AuthorityKeyIdentifier::default()
        };
        extensions.push(Extension {
            extn_id: AUTHORITY_KEY_ID,
            critical: false,
            extn_value: OctetString::new(id.to_der().map_err(encoding)?).map_err(encoding)?,
        });
    }
    if !extensions.iter().any(|one| one.extn_id == SUBJECT_KEY_ID) {
        return Err(refused("the root has no subject key identifier"));
    }
    tbs.extensions = Some(extensions);
    let content = tbs.to_der().map_err(encoding)?;
    let signature = key.sign(&content)?;
    let certificate = Certificate {
        signature_algorithm: tbs.signature.clone(),
        tbs_certificate: tbs,
        signature: BitString::from_bytes(&signature).map_err(encoding)?,
    };
    let der = CertificateDer::from(certificate.to_der().map_err(encoding)?);
    // The second look, by the reader that cross-certificates of others pass too.
    check(&der, subject, signer).map_err(|error| CaError::Lint {
        rule: format!("the cross-certificate does not read back as it was meant: {error}"),
    })?;
    Ok(der)
}

/// Whether a certificate says of `subject` what it says of itself, and `signer` says it.
///
/// # Errors
/// [`CaError::Invalid`], naming what does not fit.
pub(super) fn check(der: &[u8], subject: &Root, signer: &Root) -> Result<(), CaError> {
    let (certificate, root, signed_by) = (
        facts::parse(der)?,
        facts::parse(&subject.der)?,
        facts::parse(&signer.der)?,
    );
    let own = CertificateFacts::read(der)?;
    let usages = own.key_usages;
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| refused("its basicConstraints cannot be read"))?;
    let path = constraints.and_then(|one| one.value.path_len_constraint);
    let rules = [
        (
            certificate.subject().as_raw() == root.subject().as_raw()
                && certificate.public_key().raw == root.public_key().raw
                && subject_key_id(der)? == subject_key_id(&subject.der)?,
            "it is not for the other root: name, key and subject key identifier are that one's",
        ),
        (
            own.is_ca && usages.key_cert_sign && usages.crl_sign,
            "it is not an authority's (CA:TRUE, keyCertSign and cRLSign)",
        ),
        (
            path.is_none_or(|length| length > 0),
            "it allows no issuing certificate below it (pathlen)",
        ),
        (
            certificate.issuer().as_raw() == signed_by.subject().as_raw()
                && certificate
                    .verify_signature(Some(signed_by.public_key()))
                    .is_ok(),
            "it is not signed by the key of the root that it should be signed by",
        ),
        (
            own.not_after <= signer.facts.not_after,
            "it ends after the root that signed it",
        ),
    ];
    match rules.into_iter().find(|(kept, _)| !kept) {
        Some((_, rule)) => Err(refused(rule)),
        None => Ok(()),
    }
}

/// Refuses a cross-certificate that names another key than its signer's: OpenSSL and mbedTLS do not follow it.
pub(super) fn check_names_key(der: &[u8], signer: &Root) -> Result<(), CaError> {
    if fitness::names_key_of(der, &signer.der)? {
        return Ok(());
    }
    Err(refused(
        "its authorityKeyIdentifier is of another than the root that signed it, and OpenSSL and mbedTLS do not follow it",
    ))
}

fn algorithm(kind: KeyKind) -> AlgorithmIdentifierOwned {
    let (oid, parameters) = match kind {
        KeyKind::P256 => (ECDSA_WITH_SHA256, None),
        KeyKind::P384 => (ECDSA_WITH_SHA384, None),
        KeyKind::Ed25519 => (ED25519, None),
        KeyKind::Rsa(_) => (RSA_WITH_SHA256, Some(Any::from(Null))),
    };
    AlgorithmIdentifierOwned { oid, parameters }
}

/// UTCTime until 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5).
fn time(seconds: i64) -> Result<Time, CaError> {
    let since = Duration::from_secs(seconds.unsigned_abs());
    match UtcTime::from_unix_duration(since) {
        Ok(at) => Ok(Time::UtcTime(at)),
        Err(_) => GeneralizedTime::from_unix_duration(since)
            .map(Time::GeneralTime)
            .map_err(encoding),
    }
}
