//! The server's settings: defaults, then the configuration file, then flags. The file is read whole or not at all: a
//! key that is not known is an error that names it.

mod file;
mod limits;
mod reading;
#[cfg(test)]
mod tests;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use broker::{Limits, LostSubscription};
use ca::{KeyCustody, Terms};
use fleet::{AttestationTerms, DeedBounds, PolicyLimits};
use policy::UnresolvedDeny;
use serde::Deserialize;

use self::file::File;
use self::reading::read;
use crate::cli::{RotateAtStart, Serve};

/// Everything `serve` needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// MQTT over mutual TLS.
    pub(crate) mqtt: SocketAddr,
    /// MQTT in WebSocket frames.
    pub(crate) wss: SocketAddr,
    /// API and firmware.
    pub(crate) https: SocketAddr,
    /// Revocation list and issuers, plain.
    pub(crate) http: SocketAddr,
    /// Where `http` is seen from outside; `None`: `http://NAME:PORT`.
    pub(crate) public_url: Option<String>,
    /// Names in the server's certificate; never empty. The first is what clients are told to dial.
    pub(crate) names: Vec<String>,
    /// Account in ARNs.
    pub(crate) account: String,
    /// Region in ARNs.
    pub(crate) region: String,
    /// The broker's bounds.
    pub(crate) limits: Limits,
    /// AWS IoT's deviations from the MQTT standards; subscriptions are then judged by their text
    /// alone.
    pub(crate) aws: bool,
    /// What a Deny does whose variable has no value.
    pub(crate) unresolved_deny: UnresolvedDeny,
    /// Whether decisions are recorded, for simulations and suggestions.
    pub(crate) record_decisions: bool,
    /// What becomes of a session whose policy no longer grants a subscription.
    pub(crate) lost_subscription: LostSubscription,
    /// The bounds on policies.
    pub(crate) policy_limits: PolicyLimits,
    /// How much of the record of who did what is kept.
    pub(crate) deed_bounds: DeedBounds,
    /// How long an attestation of a device counts.
    pub(crate) attestation: AttestationTerms,
    /// Bytes a second that leave as images, all downloads together; 0: as fast as they go.
    pub(crate) download_bytes_per_second: u64,
    /// Lives of certificates, number of revocation lists.
    pub(crate) terms: Terms,
    /// Where the authority's keys are.
    pub(crate) keys: KeySettings,
    /// How long after its end a device's certificate may still be renewed under itself.
    pub(crate) expired_grace: Duration,
    /// Whether the next issuing certificate is made where the one in use has ended, and by whom.
    pub(crate) rotation: RotateAtStart,
    /// Lists of keys that are not certified.
    pub(crate) blocked_keys: Vec<PathBuf>,
}

/// Where the authority's keys are kept, and where what opens them is found.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeySettings {
    /// What keeps the keys that are made from now on.
    #[serde(default, rename = "key_custody")]
    pub(crate) custody: KeyCustody,
    /// The passphrase of encrypted files.
    #[serde(rename = "key_passphrase_file")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The token's library.
    pub(crate) pkcs11_module: Option<PathBuf>,
    /// The token's label.
    pub(crate) pkcs11_token: Option<String>,
    /// The token's PIN.
    pub(crate) pkcs11_pin_file: Option<PathBuf>,
}

/// Default ports.
pub(crate) const MQTT_PORT: u16 = 8883;
/// MQTT in WebSocket frames.
pub(crate) const WSS_PORT: u16 = 8884;
/// API and firmware.
pub(crate) const HTTPS_PORT: u16 = 8443;
/// Revocation list and issuers.
pub(crate) const HTTP_PORT: u16 = 8880;
/// Default account in ARNs.
pub(crate) const ACCOUNT: &str = "000000000000";
/// Default region in ARNs.
pub(crate) const REGION: &str = "local";

/// The bounds on policies that a configuration file sets.
pub(crate) fn policy_limits(path: &Path) -> anyhow::Result<PolicyLimits> {
    read(path)?.policy.limits()
}

impl Settings {
    /// Reads the configuration file, if one is named, and lets the flags win over it.
    pub(crate) fn resolve(flags: Serve) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let mut names = if flags.names.is_empty() {
            file.names
        } else {
            flags.names
        };
        if names.is_empty() {
            names = vec!["localhost".to_owned()];
            names.extend(host_name().filter(|name| name != "localhost"));
        }
        // Before anything is made: of a name that can stand in no certificate an authority would be left over.
        if let Some(wrong) = names
            .iter()
            .find(|name| rustls::pki_types::ServerName::try_from(name.as_str()).is_err())
        {
            bail!(
                "name {wrong:?}: a DNS name or an IP address that devices dial (--name muster.example.org, or `names` in the configuration file)"
            );
        }
        let account = flags
            .account
            .or(file.account)
            .unwrap_or_else(|| ACCOUNT.into());
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            bail!("account {account:?}: 12 digits, as in an ARN (--account 123456789012)");
        }
        let region = flags
            .region
            .or(file.region)
            .unwrap_or_else(|| REGION.into());
        if region.is_empty()
            || !region
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            bail!(
                "region {region:?}: lower-case letters, digits and '-', as in an ARN (--region eu-west-1)"
            );
        }
        let public_url = flags.public_url.or(file.public_url);
        if let Some(url) = &public_url {
            ca::check_public_url(url)
                .context("--public-url, or `public_url` in the configuration file")?;
        }
        let mut limits = Limits::default();
        file.limits.apply(&mut limits)?;
        Ok(Settings {
            mqtt: flags.mqtt.or(file.mqtt).unwrap_or_else(|| any(MQTT_PORT)),
            wss: flags.wss.or(file.wss).unwrap_or_else(|| any(WSS_PORT)),
            https: flags
                .https
                .or(file.https)
                .unwrap_or_else(|| any(HTTPS_PORT)),
            http: flags.http.or(file.http).unwrap_or_else(|| any(HTTP_PORT)),
            public_url,
            names,
            account,
            region,
            limits,
            aws: file.compat.aws,
            unresolved_deny: file.policy.unresolved_deny,
            record_decisions: file.policy.record_decisions.unwrap_or(true),
            lost_subscription: file.policy.lost_subscription,
            policy_limits: file.policy.limits()?,
            deed_bounds: file.log.bounds()?,
            attestation: file.policy.attestation()?,
            download_bytes_per_second: file.firmware.download_bytes_per_second()?,
            keys: file.ca.keys(),
            expired_grace: file.ca.expired_grace()?,
            rotation: flags.rotation,
            blocked_keys: file.ca.blocked_keys.clone(),
            terms: file.ca.terms()?,
        })
    }
}

/// This host's name, as the kernel has it, where it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name != "(none)" && name.chars().all(plain)).then(|| name.to_owned())
}
