//! Whether clients follow an issuing certificate for what it is to sign here: devices' certificates, servers' and those of
//! OCSP responders. Looked at before it is taken, because afterwards nobody could come to say so: what clients refuse
//! under it, they refuse of this server too.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};

use super::constraints::Permitted;
use super::issuer::{Issuer, subject_key_id};
use super::root::Root;
use crate::error::CaError;
use crate::facts::{self, CertificateFacts};
use crate::times;

/// Signatures that TLS clients believe: ECDSA and RSA with SHA-256 to SHA-512, RSA-PSS, Ed25519.
const BELIEVED_SIGNATURES: [&str; 8] = [
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.2.840.10045.4.3.4",
    "1.2.840.113549.1.1.10",
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.3.101.112",
];

fn refused(reason: &str) -> CaError {
    CaError::invalid("issuing certificate", "(as given)", reason)
}

/// Refuses an issuing certificate that clients would not follow from what it signs to its root.
///
/// # Errors
/// [`CaError::Invalid`], with what is in the way and what is asked for.
pub(super) fn check(issuer: &Issuer, root: &Root, now: SystemTime) -> Result<(), CaError> {
    for (place, der) in issuer.chain().enumerate() {
        let certificate = facts::parse(der)?;
        let signature = certificate.signature_algorithm.algorithm.to_id_string();
        if !BELIEVED_SIGNATURES.contains(&&*signature) {
            return Err(refused(
                "a certificate in the chain is signed in a way that clients do not believe (SHA-1, for one): have it signed with SHA-256 or longer",
            ));
        }
        if certificate.subject().iter().next().is_none() {
            return Err(refused(
                "a certificate in the chain has an empty subject: what it signs would name no issuer",
            ));
        }
        check_extensions(&certificate, place == 0)?;
        let signer = issuer.chain().nth(place + 1).unwrap_or(&root.der);
        if !names_key_of(der, signer)? {
            return Err(refused(
                "a certificate in the chain has an authorityKeyIdentifier of another than the one that signed it, and OpenSSL and mbedTLS do not follow it: have it signed anew with that one's subjectKeyIdentifier",
            ));
        }
        check_life("a certificate in the chain", der, now)?;
    }
    check_life("the root", &root.der, now)?;
    if !names_key_of(&root.der, &root.der)? {
        return Err(refused(
            "the root has an authorityKeyIdentifier of another than itself, and so is no root to OpenSSL and mbedTLS",
        ));
    }
    check_root(&root.der, issuer.chain().count())
}

fn check_life(what: &str, der: &[u8], now: SystemTime) -> Result<(), CaError> {
    let facts = CertificateFacts::read(der)?;
    if facts.is_valid_at(now) {
        return Ok(());
    }
    Err(refused(&format!(
        "{what} is valid from {} until {}, and it is {} now: clients would not follow it",
        times::readable(facts.not_before),
        times::readable(facts.not_after),
        times::readable(now)
    )))
}

/// Whether a certificate's authorityKeyIdentifier, where it has one, is of `signer` (RFC 5280 §4.2.1.1): the key, and the
/// serial number and its issuer where those are named. What a signer does not say of itself is held against nothing.
pub(super) fn names_key_of(der: &[u8], signer: &[u8]) -> Result<bool, CaError> {
    let (certificate, signed_by) = (facts::parse(der)?, facts::parse(signer)?);
    let own = subject_key_id(signer)?;
    for extension in certificate.iter_extensions() {
        if let ParsedExtension::AuthorityKeyIdentifier(named) = extension.parsed_extension() {
            let other_key = match (&named.key_identifier, &own) {
                (Some(named), Some(own)) => named.0 != &own[..],
                _ => false,
            };
            let other_serial = named
                .authority_cert_serial
                .is_some_and(|serial| serial != signed_by.raw_serial());
            // As OpenSSL has it, of the names the first directory name, which is the signer's own issuer's.
            let named_issuer =
                (named.authority_cert_issuer.iter().flatten()).find_map(|name| match name {
                    GeneralName::DirectoryName(name) => Some(name),
                    _ => None,
                });
            let other_issuer = named_issuer.is_some_and(|name| name != signed_by.issuer());
            if other_key || other_serial || other_issuer {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn check_root(root: &CertificateDer<'_>, below: usize) -> Result<(), CaError> {
    let certificate = facts::parse(root)?;
    check_extensions(&certificate, false)?;
    let constraints = certificate.basic_constraints().ok().flatten();
    let allowed = constraints.and_then(|one| one.value.path_len_constraint);
    if allowed.is_some_and(|allowed| usize::try_from(allowed).is_ok_and(|allowed| allowed < below))
    {
        return Err(refused(
            "the root allows fewer authorities below it than there are (pathlen): it takes a root with a longer one, or none",
        ));
    }
    Ok(())
}

fn check_extensions(certificate: &X509Certificate<'_>, is_issuing: bool) -> Result<(), CaError> {
    for extension in certificate.iter_extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(_) | ParsedExtension::KeyUsage(_) => {}
            ParsedExtension::ExtendedKeyUsage(usage)
                if !(usage.client_auth && usage.server_auth) =>
            {
                return Err(refused(
                    "a certificate in the chain or the root has an extendedKeyUsage without clientAuth and serverAuth, and so its devices or this server would be refused: leave it out, or name both",
                ));
            }
            ParsedExtension::ExtendedKeyUsage(_) => {}
            ParsedExtension::NameConstraints(constraints) => {
                check_constraints(constraints, is_issuing)?;
            }
            _ if extension.critical => {
                return Err(refused(&format!(
                    "a certificate in the chain or the root has the critical extension {}, which clients do not know: only basicConstraints, keyUsage, extendedKeyUsage and nameConstraints may be",
                    extension.oid.to_id_string()
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What this server holds names against, and nothing else: it would issue what clients refuse.
fn check_constraints(found: &NameConstraints<'_>, is_issuing: bool) -> Result<(), CaError> {
    if is_issuing && let Some(permitted) = Permitted::read_extension(found) {
        // The next issuing certificate permits the same.
        Permitted::of_names(&permitted.names())?;
        return Ok(());
    }
    Err(refused(
        "a certificate in the chain or the root has nameConstraints other than permitted DNS names and addresses, and all other addresses excluded, in the issuing certificate itself: what they leave of devices' and servers' names is not looked at when certificates are issued, so leave them out",
    ))
}

#[cfg(test)]
mod tests;
