//! Name constraints (RFC 5280 §4.2.1.10) of issuing certificates: the DNS names that servers may
//! have.

use rcgen::GeneralSubtree;
use rustls_pki_types::DnsName;
use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};

use crate::error::CaError;
use crate::facts::{self, CertificateName};

/// Names in one certificate's constraints.
const MAX_NAMES: usize = 64;

/// The names as they are encoded.
pub(super) fn subtrees(names: &[String]) -> Result<Vec<GeneralSubtree>, CaError> {
    if names.len() > MAX_NAMES {
        let reason = "an issuing certificate is constrained to 64 names at most";
        return Err(CaError::invalid(
            "permitted names",
            &names.join(", "),
            reason,
        ));
    }
    names
        .iter()
        .map(|name| match DnsName::try_from(name.as_str()) {
            Ok(_) if !name.ends_with('.') && *name == name.to_ascii_lowercase() => {
                Ok(GeneralSubtree::DnsName(name.clone()))
            }
            _ => Err(CaError::invalid(
                "permitted name",
                name,
                "it is a DNS name in lower case, without a dot at either end; all names below it are meant too",
            )),
        })
        .collect()
}

/// The DNS names that constraints permit, in lower case: DNS names know none (RFC 5280 §7.2).
pub(super) fn permitted(constraints: &NameConstraints<'_>) -> Vec<String> {
    let permitted = constraints.permitted_subtrees.iter().flatten();
    let names = permitted.filter_map(|one| match &one.base {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// The DNS names that a certificate permits, in lower case; none for any.
pub(super) fn permitted_dns(der: &[u8]) -> Result<Vec<String>, CaError> {
    let certificate = facts::parse(der)?;
    let mut names = Vec::new();
    for extension in certificate.iter_extensions() {
        if let ParsedExtension::NameConstraints(constraints) = extension.parsed_extension() {
            names.extend(permitted(constraints));
        }
    }
    Ok(names)
}

/// Refuses a server's names that clients would refuse under such an issuing certificate.
pub(super) fn check_names(issuer: &[u8], names: &[CertificateName]) -> Result<(), CaError> {
    let permitted = permitted_dns(issuer)?;
    let below = |name: &str| {
        let mut permitted = permitted.iter();
        permitted.any(|one| {
            name.strip_suffix(one.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    for name in names {
        if let CertificateName::Dns(name) = name
            && !permitted.is_empty()
            && !below(name)
        {
            let reason = format!(
                "the issuing certificate permits only {} and what is below",
                permitted.join(", ")
            );
            return Err(CaError::invalid("name", name, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_constrain() {
        let names = |list: &[&str]| list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            subtrees(&names(&["works.example", "localhost"]))
                .unwrap()
                .len(),
            2
        );
        for bad in [
            "",
            ".works.example",
            "works.example.",
            "Works.example",
            "a b",
            "*.a",
        ] {
            assert!(subtrees(&names(&[bad])).is_err(), "{bad:?}");
        }
        assert!(subtrees(&vec!["a".to_owned(); 65]).is_err());
    }
}
