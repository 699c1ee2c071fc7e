//! What each kind of certificate carries: a table, and the subjects that fit it.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::ServerName;

use crate::error::CaError;
use crate::facts::CertificateName;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Life of a device's certificate: one year.
pub const DEVICE_VALIDITY: Duration = DAY.saturating_mul(365);
/// Life of a server's certificate: below the 397 days that strict clients allow.
pub const SERVER_VALIDITY: Duration = DAY.saturating_mul(396);
/// Life of an operator's certificate: one year.
pub const OPERATOR_VALIDITY: Duration = DAY.saturating_mul(365);
/// Life of the OCSP responder's certificate. Nobody can revoke it (RFC 6960 §4.2.2.2.1), so it is short.
pub const OCSP_RESPONDER_VALIDITY: Duration = DAY.saturating_mul(7);
/// The organization (O) in the subject of every operator's certificate and of no other.
pub const OPERATOR_ORGANIZATION: &str = "Muster operators";
/// Characters of the longest common name: that of the longest thing name. RFC 5280 has 64
/// (ub-common-name); TLS libraries read more, and a name over 64 is its owner's choice.
pub const MAX_COMMON_NAME_CHARS: usize = 128;
/// Names in one server certificate.
pub const MAX_SERVER_NAMES: usize = 64;

/// The kinds of certificate the authority issues. The extended key usage sets servers apart from
/// clients, the subject's organization sets operators apart from devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A thing: subject `CN=<thing>` and nothing else, client authentication only.
    Device,
    /// A listener: names as subject alternative names, server authentication only.
    Server,
    /// A person or program that operates the fleet: subject
    /// `O=Muster operators, CN=<operator>`, client authentication only.
    Operator,
    /// The responder that signs OCSP answers in the issuing key's place: OCSP signing only, and
    /// the extension that ends the chain of questions (RFC 6960 §4.2.2.2).
    OcspResponder,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) profile: Profile,
    pub(crate) usage: Usage,
    pub(crate) organization: Option<&'static str>,
    pub(crate) validity: Duration,
    /// Says where its revocation list, its OCSP responder and its issuer's certificate are.
    pub(crate) points_to_authority: bool,
}

/// The one extended key usage of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
    OcspSigning,
}

impl Profile {
    pub(crate) const fn rules(self) -> &'static Rules {
        match self {
            Self::Device => &Rules {
                profile: Self::Device,
                usage: Usage::Client,
                organization: None,
                validity: DEVICE_VALIDITY,
                points_to_authority: true,
            },
            Self::Server => &Rules {
                profile: Self::Server,
                usage: Usage::Server,
                organization: None,
                validity: SERVER_VALIDITY,
                points_to_authority: true,
            },
            Self::Operator => &Rules {
                profile: Self::Operator,
                usage: Usage::Client,
                organization: Some(OPERATOR_ORGANIZATION),
                validity: OPERATOR_VALIDITY,
                points_to_authority: true,
            },
            Self::OcspResponder => &Rules {
                profile: Self::OcspResponder,
                usage: Usage::OcspSigning,
                organization: None,
                validity: OCSP_RESPONDER_VALIDITY,
                points_to_authority: false,
            },
        }
    }
}

/// Whom a certificate is for, as the registry or the operator decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The thing's, server's or operator's name.
    pub common_name: String,
    /// DNS names and IP addresses; for [`Profile::Server`] at least one, for others none.
    pub names: Vec<String>,
}

/// Checks a common name: printable, 1 to [`MAX_COMMON_NAME_CHARS`] characters.
pub(crate) fn check_common_name(field: &'static str, name: &str) -> Result<(), CaError> {
    let chars = name.chars().count();
    if chars == 0 || chars > MAX_COMMON_NAME_CHARS {
        let reason =
            format!("a name has 1 to {MAX_COMMON_NAME_CHARS} characters, this has {chars}");
        return Err(CaError::invalid(field, name, reason));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        let reason = "a name has no control characters and no space at either end";
        return Err(CaError::invalid(field, name, reason));
    }
    Ok(())
}

/// Reads the names a server certificate is to cover, without repetition, in the order given.
pub(crate) fn server_names(names: &[String]) -> Result<Vec<CertificateName>, CaError> {
    if names.is_empty() || names.len() > MAX_SERVER_NAMES {
        let reason = format!("a server certificate covers 1 to {MAX_SERVER_NAMES} names");
        return Err(CaError::invalid("names", &names.join(", "), reason));
    }
    let mut read = Vec::with_capacity(names.len());
    for name in names {
        let name = server_name(name)?;
        if !read.contains(&name) {
            read.push(name);
        }
    }
    Ok(read)
}

fn server_name(name: &str) -> Result<CertificateName, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(CertificateName::Address(address));
    }
    match ServerName::try_from(name) {
        Ok(ServerName::DnsName(dns)) if !name.ends_with('.') => {
            Ok(CertificateName::Dns(dns.as_ref().to_ascii_lowercase()))
        }
        _ => Err(CaError::invalid(
            "name",
            name,
            "a server's name is a DNS name (no wildcard, no port, no dot at its end) or an IP \
             address without brackets",
        )),
    }
}

impl Subject {
    /// The names as the profile has them.
    pub(crate) fn check(&self, rules: &Rules) -> Result<Vec<CertificateName>, CaError> {
        check_common_name("common name", &self.common_name)?;
        if rules.profile == Profile::Server {
            return server_names(&self.names);
        }
        match self.names.first() {
            None => Ok(Vec::new()),
            Some(name) => Err(CaError::invalid(
                "name",
                name,
                "only a server certificate carries names",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(common_name: &str, names: &[&str]) -> Subject {
        Subject {
            common_name: common_name.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    #[test]
    fn common_names() {
        let rules = Profile::Device.rules();
        for good in ["lamp-1", "a", &"x".repeat(128), "é"] {
            subject(good, &[]).check(rules).unwrap();
        }
        for bad in ["", &"x".repeat(129), "a\0b", "a\nb", " a", "a "] {
            assert!(subject(bad, &[]).check(rules).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_belong_to_servers() {
        assert!(
            subject("lamp-1", &["localhost"])
                .check(Profile::Device.rules())
                .is_err()
        );
        assert!(
            subject("ada", &["localhost"])
                .check(Profile::Operator.rules())
                .is_err()
        );
        let rules = Profile::Server.rules();
        let names = subject("m", &["LocalHost", "localhost", "::1", "10.0.0.1"]).check(rules);
        let expected = [
            CertificateName::Dns("localhost".to_owned()),
            CertificateName::Address("::1".parse().unwrap()),
            CertificateName::Address("10.0.0.1".parse().unwrap()),
        ];
        assert_eq!(names.unwrap(), expected);
        for bad in [
            "",
            "*.example",
            "a b",
            "host:8883",
            "[::1]",
            "a..b",
            "host.",
            "ü.example",
        ] {
            let error = subject("m", &[bad]).check(rules).unwrap_err().to_string();
            assert!(error.contains("DNS name"), "{error}");
        }
    }

    #[test]
    fn number_of_names_is_bounded() {
        let names = |count: usize| (0..count).map(|n| format!("h{n}")).collect::<Vec<_>>();
        assert_eq!(server_names(&names(MAX_SERVER_NAMES)).unwrap().len(), 64);
        assert!(server_names(&names(MAX_SERVER_NAMES + 1)).is_err());
        assert!(server_names(&[]).is_err());
    }
}
