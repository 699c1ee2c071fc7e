//! Whether clients follow an issuing certificate for what it is to sign here: devices' certificates, servers' and those of
//! OCSP responders. Looked at before it is taken, because afterwards nobody could come to say so: what clients refuse
//! under it, they refuse of this server too.

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};

use super::issuer::Issuer;
use super::root::Root;
use crate::error::CaError;
use crate::facts;

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
pub(super) fn check(issuer: &Issuer, root: &Root) -> Result<(), CaError> {
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
    }
    check_root(&root.der, issuer.chain().count())
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
fn check_constraints(constraints: &NameConstraints<'_>, is_issuing: bool) -> Result<(), CaError> {
    let permitted = constraints.permitted_subtrees.iter().flatten();
    let only_dns = permitted
        .map(|one| &one.base)
        .all(|base| matches!(base, GeneralName::DNSName(_)));
    let excludes = constraints
        .excluded_subtrees
        .iter()
        .flatten()
        .next()
        .is_some();
    if is_issuing && only_dns && !excludes {
        return Ok(());
    }
    Err(refused(
        "a certificate in the chain or the root has nameConstraints other than permitted DNS names in the issuing certificate itself: what they leave of devices' and servers' names is not looked at when certificates are issued, so leave them out",
    ))
}

#[cfg(test)]
mod tests;
