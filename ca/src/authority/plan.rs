//! What an authority is founded of: names, keys and lives, or certificates that an organisation
//! has already.

use std::time::Duration;

use crate::error::CaError;
use crate::profile::check_common_name;
use crate::public_key::KeyKind;
use crate::secret_key::SecretKey;

const YEAR: Duration = Duration::from_secs(31_557_600);
/// Life of the root.
pub(super) const ROOT_VALIDITY: Duration = YEAR.saturating_mul(20);
/// Life of the issuing certificate.
pub(super) const ISSUING_VALIDITY: Duration = YEAR.saturating_mul(5);

/// A certificate that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its common name.
    pub common_name: String,
    /// The kind of its key.
    pub key: KeyKind,
    /// Its life; that of an issuing certificate ends with the root's at the latest.
    pub validity: Duration,
}

/// Where the root comes from.
#[derive(Debug)]
pub enum RootPlan {
    /// It is made, self-signed.
    Made(Made),
    /// It is there already.
    Existing {
        /// The certificate, PEM.
        certificate: String,
        /// Its key; without it the root is offline from the beginning.
        key: Option<SecretKey>,
    },
}

/// Where the issuing certificate comes from.
#[derive(Debug)]
pub enum IssuingPlan {
    /// The root's key signs it.
    Made {
        /// What it is.
        certificate: Made,
        /// DNS names (with all below them) that servers it certifies may have (RFC 5280
        /// §4.2.1.10); none for any.
        permitted_dns: Vec<String>,
        /// Addresses and networks that they may have beside those names, where there are any.
        permitted_ip: Vec<String>,
    },
    /// It is there already.
    Existing {
        /// The certificate, PEM, and behind it what stands between it and the root.
        chain: String,
        /// Its key.
        key: SecretKey,
    },
}

/// What an authority is founded of.
#[derive(Debug)]
pub struct Plan {
    /// The root.
    pub root: RootPlan,
    /// The issuing certificate.
    pub issuing: IssuingPlan,
    /// Whether the root's key, which is made or brought, does not stay: it is in memory while the authority is founded, and
    /// never in a file of it.
    pub root_leaves: bool,
    /// Where the server's lists are found: an issuing certificate that is made names the root's list there, or none.
    pub public_url: Option<String>,
}

impl Plan {
    /// Root and issuing certificate of a name, with what is usual.
    pub(super) fn usual(name: &str) -> Result<Self, CaError> {
        /// So that `<name> Issuing CA` fits into 64 characters (RFC 5280, ub-common-name).
        const MAX_NAME_CHARS: usize = 48;
        check_common_name("authority's name", name)?;
        if name.chars().count() > MAX_NAME_CHARS {
            let reason = format!("it has at most {MAX_NAME_CHARS} characters");
            return Err(CaError::invalid("authority's name", name, reason));
        }
        let made = |what: &str, validity| Made {
            common_name: format!("{name} {what} CA"),
            key: KeyKind::P256,
            validity,
        };
        Ok(Self {
            root: RootPlan::Made(made("Root", ROOT_VALIDITY)),
            issuing: IssuingPlan::Made {
                certificate: made("Issuing", ISSUING_VALIDITY),
                permitted_dns: Vec::new(),
                permitted_ip: Vec::new(),
            },
            root_leaves: false,
            public_url: None,
        })
    }
}
