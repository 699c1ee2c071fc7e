//! What stands in the configuration file, table by table.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use broker::LostSubscription;
use ca::{CrlShards, KeyCustody, Terms};
use fleet::{AttestationTerms, DeedBounds, PolicyLimits};
use ota::server::DEFAULT_DOWNLOAD_BYTES_PER_SECOND;
use policy::UnresolvedDeny;
use serde::Deserialize;

use super::KeySettings;
use super::limits::FileLimits;

/// The lowest bound on downloads.
const MIN_DOWNLOAD_BYTES_PER_SECOND: u64 = 16 * 1024;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) mqtt: Option<SocketAddr>,
    pub(super) wss: Option<SocketAddr>,
    pub(super) https: Option<SocketAddr>,
    pub(super) http: Option<SocketAddr>,
    pub(super) public_url: Option<String>,
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) account: Option<String>,
    pub(super) region: Option<String>,
    #[serde(default)]
    pub(super) limits: FileLimits,
    #[serde(default)]
    pub(super) policy: FilePolicy,
    #[serde(default)]
    pub(super) compat: FileCompat,
    #[serde(default)]
    pub(super) ca: FileCa,
    #[serde(default)]
    pub(super) firmware: FileFirmware,
    #[serde(default)]
    pub(super) log: FileLog,
}

/// `[log]`: how much of the record of who did what is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLog {
    keep_days: Option<u64>,
    keep_entries: Option<u64>,
}

impl FileLog {
    pub(super) fn bounds(&self) -> anyhow::Result<DeedBounds> {
        let mut bounds = DeedBounds::default();
        match self.keep_days {
            Some(days) if !KEEP_DAYS.contains(&days) => bail!(
                "log.keep_days = {days}: {} to {} days",
                KEEP_DAYS.start(),
                KEEP_DAYS.end()
            ),
            Some(days) => bounds.age = Duration::from_secs(days * 86_400),
            None => {}
        }
        match self.keep_entries {
            Some(entries) if !KEEP_ENTRIES.contains(&entries) => bail!(
                "log.keep_entries = {entries}: {} to {} entries",
                KEEP_ENTRIES.start(),
                KEEP_ENTRIES.end()
            ),
            Some(entries) => bounds.entries = entries,
            None => {}
        }
        Ok(bounds)
    }
}

/// Days the record may be kept: to a hundred years.
const KEEP_DAYS: RangeInclusive<u64> = 1..=36_500;

/// Entries of it: fewer than a thousand would be gone before anybody looked.
const KEEP_ENTRIES: RangeInclusive<u64> = 1_000..=100_000_000;

/// `[firmware]`: how images reach devices.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileFirmware {
    pub(super) download_bytes_per_second: Option<u64>,
}

impl FileFirmware {
    pub(super) fn download_bytes_per_second(&self) -> anyhow::Result<u64> {
        match self.download_bytes_per_second {
            None => Ok(DEFAULT_DOWNLOAD_BYTES_PER_SECOND),
            // Less, and no image of any size comes before the certificate of the device that waits for it ends.
            Some(rate) if (1..MIN_DOWNLOAD_BYTES_PER_SECOND).contains(&rate) => bail!(
                "firmware.download_bytes_per_second = {rate}: at least {MIN_DOWNLOAD_BYTES_PER_SECOND}, or 0 for no bound"
            ),
            Some(rate) => Ok(rate),
        }
    }
}

/// `[ca]`: what the authority signs from now on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCa {
    pub(super) device_validity_seconds: Option<u64>,
    pub(super) server_validity_seconds: Option<u64>,
    pub(super) crl_shards: Option<u16>,
    backdate_seconds: Option<u64>,
    #[serde(default)]
    expired_grace_seconds: u64,
    #[serde(default)]
    pub(super) key_custody: KeyCustody,
    pub(super) key_passphrase_file: Option<PathBuf>,
    pub(super) pkcs11_module: Option<PathBuf>,
    pub(super) pkcs11_token: Option<String>,
    pub(super) pkcs11_pin_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) blocked_keys: Vec<PathBuf>,
}

impl FileCa {
    pub(super) fn expired_grace(&self) -> anyhow::Result<Duration> {
        let seconds = self.expired_grace_seconds;
        if seconds > *VALIDITY_SECONDS.end() {
            bail!(
                "ca.expired_grace_seconds = {seconds}: at most {} seconds",
                VALIDITY_SECONDS.end()
            );
        }
        Ok(Duration::from_secs(seconds))
    }

    pub(super) fn keys(&self) -> KeySettings {
        KeySettings {
            custody: self.key_custody,
            passphrase_file: self.key_passphrase_file.clone(),
            pkcs11_module: self.pkcs11_module.clone(),
            pkcs11_token: self.pkcs11_token.clone(),
            pkcs11_pin_file: self.pkcs11_pin_file.clone(),
        }
    }

    pub(super) fn terms(self) -> anyhow::Result<Terms> {
        let mut terms = Terms::default();
        for (to, key, value) in [
            (
                &mut terms.device_validity,
                "device_validity_seconds",
                self.device_validity_seconds,
            ),
            (
                &mut terms.server_validity,
                "server_validity_seconds",
                self.server_validity_seconds,
            ),
        ] {
            match value {
                Some(seconds) if !VALIDITY_SECONDS.contains(&seconds) => bail!(
                    "ca.{key} = {seconds}: {} to {} seconds (a day has 86400)",
                    VALIDITY_SECONDS.start(),
                    VALIDITY_SECONDS.end()
                ),
                Some(seconds) => *to = Duration::from_secs(seconds),
                None => {}
            }
        }
        match self.backdate_seconds {
            Some(seconds) if seconds > MAX_BACKDATE_SECONDS => bail!(
                "ca.backdate_seconds = {seconds}: at most {MAX_BACKDATE_SECONDS}; a device whose clock is later than that sets it first"
            ),
            Some(seconds) => terms.backdated = Duration::from_secs(seconds),
            None => {}
        }
        if let Some(count) = self.crl_shards {
            terms.crl_shards = CrlShards::new(count).context("ca.crl_shards")?;
        }
        Ok(terms)
    }
}

/// Lives a certificate may be given: half a minute, because renewing takes time, to ten years.
const VALIDITY_SECONDS: RangeInclusive<u64> = 30..=315_576_000;

/// How far lives may reach back.
const MAX_BACKDATE_SECONDS: u64 = 3_600;

/// How long an attestation may count: to a year.
const ATTESTATION_SECONDS: RangeInclusive<u64> = 1..=31_536_000;

/// `[policy]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilePolicy {
    /// `"open"`, as AWS has it, or `"closed"`.
    #[serde(default)]
    pub(super) unresolved_deny: UnresolvedDeny,
    /// Whether what devices do is recorded, for `policy simulate` and `policy suggest`.
    pub(super) record_decisions: Option<bool>,
    /// `"remove"`, or `"disconnect"` the session that had it.
    #[serde(default)]
    pub(super) lost_subscription: LostSubscription,
    document_bytes: Option<usize>,
    document_visible_chars: Option<usize>,
    versions: Option<usize>,
    attached: Option<usize>,
    attestation_seconds: Option<u64>,
    attestation_max_seconds: Option<u64>,
}

impl FilePolicy {
    /// How long an attestation counts, where its end is not said, and at the most.
    pub(super) fn attestation(&self) -> anyhow::Result<AttestationTerms> {
        let mut terms = AttestationTerms::default();
        for (to, key, value) in [
            (
                &mut terms.longest,
                "attestation_max_seconds",
                self.attestation_max_seconds,
            ),
            (
                &mut terms.default,
                "attestation_seconds",
                self.attestation_seconds,
            ),
        ] {
            match value {
                Some(seconds) if !ATTESTATION_SECONDS.contains(&seconds) => bail!(
                    "policy.{key} = {seconds}: {} to {} seconds (a day has 86400)",
                    ATTESTATION_SECONDS.start(),
                    ATTESTATION_SECONDS.end()
                ),
                Some(seconds) => *to = Duration::from_secs(seconds),
                None => {}
            }
        }
        if self.attestation_seconds.is_none() {
            terms.default = terms.default.min(terms.longest);
        }
        if terms.default > terms.longest {
            bail!(
                "policy.attestation_seconds = {}: at most policy.attestation_max_seconds, which is {}",
                terms.default.as_secs(),
                terms.longest.as_secs()
            );
        }
        Ok(terms)
    }

    /// The bounds on policies, each within what the server can bear.
    pub(super) fn limits(&self) -> anyhow::Result<PolicyLimits> {
        let within =
            |key: &str, value: Option<usize>, default, range: RangeInclusive<usize>| match value {
                Some(value) if !range.contains(&value) => bail!(
                    "policy.{key} = {value}: from {} to {}",
                    range.start(),
                    range.end()
                ),
                value => Ok(value.unwrap_or(default)),
            };
        let default = PolicyLimits::default();
        let document_bytes = within(
            "document_bytes",
            self.document_bytes,
            default.document_bytes,
            2_048..=404_600,
        )?;
        Ok(PolicyLimits {
            document_bytes,
            // Without a word every one may be visible.
            document_visible_chars: within(
                "document_visible_chars",
                self.document_visible_chars,
                document_bytes,
                2_048..=404_600,
            )?,
            versions: within("versions", self.versions, default.versions, 2..=100)?,
            attached: within("attached", self.attached, default.attached, 1..=100)?,
        })
    }
}

/// `[compat]`: ways of others that devices may count on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCompat {
    #[serde(default)]
    pub(super) aws: bool,
}
