//! The server's settings: defaults, then the configuration file, then flags. The file is read whole or not at all: a
//! key that is not known is an error that names it.

use crate::cli::Serve;
use anyhow::{Context as _, bail};
use broker::{Limits, SessionBounds};
use ca::{CrlShards, KeyCustody, Terms};
use fleet::{GroupName, ThingName};
use ota::server::DEFAULT_DOWNLOAD_BYTES_PER_SECOND;
use policy::UnresolvedDeny;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

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
    /// Bytes a second that leave as images, all downloads together; 0: as fast as they go.
    pub(crate) download_bytes_per_second: u64,
    /// Lives of certificates, number of revocation lists.
    pub(crate) terms: Terms,
    /// Where the authority's keys are.
    pub(crate) keys: KeySettings,
    /// How long after its end a device's certificate may still be renewed under itself.
    pub(crate) expired_grace: Duration,
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

/// The lowest bound on downloads.
const MIN_DOWNLOAD_BYTES_PER_SECOND: u64 = 16 * 1024;
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mqtt: Option<SocketAddr>,
    wss: Option<SocketAddr>,
    https: Option<SocketAddr>,
    http: Option<SocketAddr>,
    public_url: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    account: Option<String>,
    region: Option<String>,
    #[serde(default)]
    limits: FileLimits,
    #[serde(default)]
    policy: FilePolicy,
    #[serde(default)]
    compat: FileCompat,
    #[serde(default)]
    ca: FileCa,
    #[serde(default)]
    firmware: FileFirmware,
}

/// `[firmware]`: how images reach devices.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFirmware {
    download_bytes_per_second: Option<u64>,
}

impl FileFirmware {
    fn download_bytes_per_second(&self) -> anyhow::Result<u64> {
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
struct FileCa {
    device_validity_seconds: Option<u64>,
    server_validity_seconds: Option<u64>,
    crl_shards: Option<u16>,
    #[serde(default)]
    expired_grace_seconds: u64,
    #[serde(default)]
    key_custody: KeyCustody,
    key_passphrase_file: Option<PathBuf>,
    pkcs11_module: Option<PathBuf>,
    pkcs11_token: Option<String>,
    pkcs11_pin_file: Option<PathBuf>,
    #[serde(default)]
    blocked_keys: Vec<PathBuf>,
}

impl FileCa {
    fn expired_grace(&self) -> anyhow::Result<Duration> {
        let seconds = self.expired_grace_seconds;
        if seconds > *VALIDITY_SECONDS.end() {
            bail!(
                "ca.expired_grace_seconds = {seconds}: at most {} seconds",
                VALIDITY_SECONDS.end()
            );
        }
        Ok(Duration::from_secs(seconds))
    }

    fn keys(&self) -> KeySettings {
        KeySettings {
            custody: self.key_custody,
            passphrase_file: self.key_passphrase_file.clone(),
            pkcs11_module: self.pkcs11_module.clone(),
            pkcs11_token: self.pkcs11_token.clone(),
            pkcs11_pin_file: self.pkcs11_pin_file.clone(),
        }
    }

    fn terms(self) -> anyhow::Result<Terms> {
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
        if let Some(count) = self.crl_shards {
            terms.crl_shards = CrlShards::new(count).context("ca.crl_shards")?;
        }
        Ok(terms)
    }
}

/// Lives a certificate may be given: half a minute, because renewing takes time, to ten years.
const VALIDITY_SECONDS: std::ops::RangeInclusive<u64> = 30..=315_576_000;

/// `[policy]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePolicy {
    /// `"open"`, as AWS has it, or `"closed"`.
    #[serde(default)]
    unresolved_deny: UnresolvedDeny,
    /// Whether what devices do is recorded, for `policy simulate` and `policy suggest`.
    record_decisions: Option<bool>,
}

/// `[compat]`: ways of others that devices may count on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCompat {
    #[serde(default)]
    aws: bool,
}

/// `[limits]`, one key per bound of the broker; units stand in the names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    connections: Option<usize>,
    handshakes_in_flight: Option<usize>,
    handshake_seconds: Option<u64>,
    packet_bytes: Option<usize>,
    packet_seconds: Option<u64>,
    topic_bytes: Option<usize>,
    topic_levels: Option<usize>,
    session_subscriptions: Option<usize>,
    session_subscription_bytes: Option<usize>,
    topic_aliases: Option<u16>,
    topic_aliases_outgoing: Option<u16>,
    session_held_bytes: Option<usize>,
    session_inflight_messages: Option<u16>,
    session_queue_messages: Option<usize>,
    session_queue_bytes: Option<usize>,
    session_expiry_seconds: Option<u64>,
    parked_sessions: Option<usize>,
    keep_alive_seconds: Option<u64>,
    retained_messages: Option<usize>,
    retained_bytes: Option<usize>,
    thing_retained_messages: Option<usize>,
    thing_retained_bytes: Option<usize>,
    #[serde(default)]
    mqtt: FileBounds,
    #[serde(default)]
    wss: FileBounds,
    #[serde(default)]
    groups: BTreeMap<GroupName, FileBounds>,
    #[serde(default)]
    things: BTreeMap<ThingName, FileBounds>,
}

/// `[limits.mqtt]`, `[limits.wss]`, `[limits.groups.NAME]`, `[limits.things.NAME]`: bounds of sessions that come by this
/// listener, or whose thing this is or is in this group. The thing's go before its groups' (of which the largest
/// holds), these before the listener's, these before `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBounds {
    packet_bytes: Option<usize>,
    topic_bytes: Option<usize>,
    topic_levels: Option<usize>,
    session_subscriptions: Option<usize>,
    session_subscription_bytes: Option<usize>,
    topic_aliases: Option<u16>,
    topic_aliases_outgoing: Option<u16>,
    session_inflight_messages: Option<u16>,
    session_expiry_seconds: Option<u64>,
    keep_alive_seconds: Option<u64>,
    thing_retained_messages: Option<usize>,
    thing_retained_bytes: Option<usize>,
}

impl FileBounds {
    /// `table` is where it stands in the file.
    fn read(self, table: &str) -> anyhow::Result<SessionBounds> {
        let numbers = [
            ("packet_bytes", self.packet_bytes),
            ("topic_bytes", self.topic_bytes),
            ("topic_levels", self.topic_levels),
            ("session_subscriptions", self.session_subscriptions),
            (
                "session_subscription_bytes",
                self.session_subscription_bytes,
            ),
            ("topic_aliases", self.topic_aliases.map(usize::from)),
            (
                "topic_aliases_outgoing",
                self.topic_aliases_outgoing.map(usize::from),
            ),
            (
                "session_inflight_messages",
                self.session_inflight_messages.map(usize::from),
            ),
            ("thing_retained_messages", self.thing_retained_messages),
            ("thing_retained_bytes", self.thing_retained_bytes),
        ];
        let times = [
            ("session_expiry_seconds", self.session_expiry_seconds),
            ("keep_alive_seconds", self.keep_alive_seconds),
        ];
        let zero = numbers
            .iter()
            .find_map(|(key, value)| (*value == Some(0)).then_some(key))
            .or_else(|| {
                let zero = times.iter().find(|(_, value)| *value == Some(0));
                zero.map(|(key, _)| key)
            });
        if let Some(key) = zero {
            bail!("{table}.{key} = 0: nothing would be let in; leave it out for the default");
        }
        Ok(SessionBounds {
            packet_bytes: self.packet_bytes,
            topic_bytes: self.topic_bytes,
            topic_levels: self.topic_levels,
            session_subscriptions: self.session_subscriptions,
            session_subscription_bytes: self.session_subscription_bytes,
            topic_aliases: self.topic_aliases,
            topic_aliases_outgoing: self.topic_aliases_outgoing,
            session_inflight_messages: self.session_inflight_messages,
            session_expiry: self.session_expiry_seconds.map(Duration::from_secs),
            keep_alive: self.keep_alive_seconds.map(Duration::from_secs),
            thing_retained_messages: self.thing_retained_messages,
            thing_retained_bytes: self.thing_retained_bytes,
        })
    }
}

impl FileLimits {
    fn apply(self, to: &mut Limits) -> anyhow::Result<()> {
        fn set<T: PartialEq + Default>(
            to: &mut T,
            key: &str,
            value: Option<T>,
        ) -> anyhow::Result<()> {
            match value {
                Some(zero) if zero == T::default() => {
                    bail!("limits.{key} = 0: nothing would be let in; leave it out for the default")
                }
                Some(value) => *to = value,
                None => {}
            }
            Ok(())
        }
        fn seconds(to: &mut Duration, key: &str, value: Option<u64>) -> anyhow::Result<()> {
            set(to, key, value.map(Duration::from_secs))
        }
        set(&mut to.connections, "connections", self.connections)?;
        set(
            &mut to.handshakes_in_flight,
            "handshakes_in_flight",
            self.handshakes_in_flight,
        )?;
        seconds(
            &mut to.handshake_time,
            "handshake_seconds",
            self.handshake_seconds,
        )?;
        set(&mut to.packet_bytes, "packet_bytes", self.packet_bytes)?;
        seconds(&mut to.packet_time, "packet_seconds", self.packet_seconds)?;
        set(&mut to.topic_bytes, "topic_bytes", self.topic_bytes)?;
        set(&mut to.topic_levels, "topic_levels", self.topic_levels)?;
        set(
            &mut to.session_subscriptions,
            "session_subscriptions",
            self.session_subscriptions,
        )?;
        set(
            &mut to.session_subscription_bytes,
            "session_subscription_bytes",
            self.session_subscription_bytes,
        )?;
        set(&mut to.topic_aliases, "topic_aliases", self.topic_aliases)?;
        set(
            &mut to.topic_aliases_outgoing,
            "topic_aliases_outgoing",
            self.topic_aliases_outgoing,
        )?;
        set(
            &mut to.session_held_bytes,
            "session_held_bytes",
            self.session_held_bytes,
        )?;
        set(
            &mut to.session_inflight_messages,
            "session_inflight_messages",
            self.session_inflight_messages,
        )?;
        set(
            &mut to.session_queue_messages,
            "session_queue_messages",
            self.session_queue_messages,
        )?;
        set(
            &mut to.session_queue_bytes,
            "session_queue_bytes",
            self.session_queue_bytes,
        )?;
        seconds(
            &mut to.session_expiry,
            "session_expiry_seconds",
            self.session_expiry_seconds,
        )?;
        set(
            &mut to.parked_sessions,
            "parked_sessions",
            self.parked_sessions,
        )?;
        seconds(
            &mut to.keep_alive,
            "keep_alive_seconds",
            self.keep_alive_seconds,
        )?;
        set(
            &mut to.retained_messages,
            "retained_messages",
            self.retained_messages,
        )?;
        set(
            &mut to.retained_bytes,
            "retained_bytes",
            self.retained_bytes,
        )?;
        set(
            &mut to.thing_retained_messages,
            "thing_retained_messages",
            self.thing_retained_messages,
        )?;
        set(
            &mut to.thing_retained_bytes,
            "thing_retained_bytes",
            self.thing_retained_bytes,
        )?;
        to.own.mqtt = self.mqtt.read("limits.mqtt")?;
        to.own.wss = self.wss.read("limits.wss")?;
        for (name, bounds) in self.groups {
            let bounds = bounds.read(&format!("limits.groups.{name}"))?;
            to.own.groups.insert(name, bounds);
        }
        for (name, bounds) in self.things {
            let bounds = bounds.read(&format!("limits.things.{name}"))?;
            to.own.things.insert(name, bounds);
        }
        Ok(())
    }
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
            public_url: flags.public_url.or(file.public_url),
            names,
            account,
            region,
            limits,
            aws: file.compat.aws,
            unresolved_deny: file.policy.unresolved_deny,
            record_decisions: file.policy.record_decisions.unwrap_or(true),
            download_bytes_per_second: file.firmware.download_bytes_per_second()?,
            keys: file.ca.keys(),
            expired_grace: file.ca.expired_grace()?,
            blocked_keys: file.ca.blocked_keys.clone(),
            terms: file.ca.terms()?,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("read configuration file {}", path.display()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(at);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!(
            "configuration file {}, line {line} (byte {at}): not UTF-8; save the file as UTF-8",
            path.display()
        )
    })?;
    toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
}

/// This host's name, as the kernel has it, where it can stand in a certificate.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!name.is_empty() && name != "(none)" && name.chars().all(plain)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(toml: &str, flags: Serve) -> anyhow::Result<Settings> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Settings::resolve(Serve {
            config: Some(file.path().to_owned()),
            ..flags
        })
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = Serve {
            mqtt: Some("127.0.0.1:1".parse().unwrap()),
            ..Serve::default()
        };
        let settings = resolve(
            "mqtt = \"127.0.0.1:2\"\nwss = \"127.0.0.1:3\"\n[limits]\nconnections = 7\n",
            flags,
        )
        .unwrap();
        assert_eq!(settings.mqtt.port(), 1);
        assert_eq!(settings.wss.port(), 3);
        assert_eq!(settings.https, "[::]:8443".parse().unwrap());
        assert_eq!(settings.limits.connections, 7);
        assert_eq!(settings.unresolved_deny, UnresolvedDeny::Open);
        let closed = "[policy]\nunresolved_deny = \"closed\"\n";
        let closed = resolve(closed, Serve::default()).unwrap();
        assert_eq!(closed.unresolved_deny, UnresolvedDeny::Closed);
        assert_eq!(settings.limits.packet_bytes, Limits::default().packet_bytes);
    }

    #[test]
    fn the_documentation_names_every_key_with_its_default() {
        let text = include_str!("../../docs/configuration.md");
        let mut examples = text
            .split("```toml\n")
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap());
        let all = examples.next().unwrap();
        let settings = resolve(all, Serve::default()).unwrap();
        assert_eq!(settings, resolve("", Serve::default()).unwrap());
        // A key that stands in no example is one that serde would name as missing if it had to be there.
        let source = include_str!("config.rs");
        for table in ["File", "FileCa", "FilePolicy", "FileCompat", "FileLimits"] {
            let fields = source
                .split(&format!("struct {table} {{\n"))
                .nth(1)
                .unwrap()
                .split("\n}\n")
                .next()
                .unwrap();
            let keys = fields
                .lines()
                .filter_map(|line| line.trim().split_once(": "))
                .map(|(key, _)| key)
                .filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            for key in keys {
                assert!(text.contains(key), "{table}.{key} is not documented");
            }
        }
        let own = resolve(examples.next().unwrap(), Serve::default()).unwrap();
        assert_eq!(own.limits.own.groups.len(), 1);
    }

    #[test]
    fn a_name_that_can_stand_in_no_certificate_is_refused_by_its_flag() {
        for wrong in ["a b", "", "http://a", "a:1"] {
            let flags = Serve {
                names: vec!["localhost".into(), wrong.into()],
                ..Serve::default()
            };
            let said = resolve("", flags).unwrap_err().to_string();
            assert!(
                said.contains(&format!("{wrong:?}")) && said.contains("--name"),
                "{said}"
            );
        }
        let names = [
            "muster.example.org",
            "192.0.2.7",
            "2001:db8::1",
            "lamp_host",
        ];
        let flags = Serve {
            names: names.map(str::to_owned).to_vec(),
            ..Serve::default()
        };
        assert_eq!(resolve("", flags).unwrap().names, names);
    }

    #[test]
    fn bytes_that_are_no_text_are_placed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"account = '1'\nregion = '\xff'\n").unwrap();
        let said = read(file.path()).unwrap_err().to_string();
        assert!(
            said.contains("line 2 (byte 24)") && said.contains("UTF-8"),
            "{said}"
        );
    }

    #[test]
    fn listeners_groups_and_things_have_bounds_of_their_own() {
        let toml = "[limits]\npacket_bytes = 9\n[limits.wss]\npacket_bytes = 8\n\
                    [limits.groups.gateways]\nkeep_alive_seconds = 7\n\
                    [limits.things.'pump:1']\ntopic_levels = 6\nthing_retained_messages = 5\n";
        let limits = resolve(toml, Serve::default()).unwrap().limits;
        let own = &limits.own;
        assert_eq!(limits.packet_bytes, 9);
        assert_eq!(own.mqtt, SessionBounds::default());
        assert_eq!(own.wss.packet_bytes, Some(8));
        let gateways = own.groups[&"gateways".parse().unwrap()];
        assert_eq!(gateways.keep_alive, Some(Duration::from_secs(7)));
        let pump = own.things[&"pump:1".parse().unwrap()];
        assert_eq!(pump.topic_levels, Some(6));
        assert_eq!(pump.thing_retained_messages, Some(5));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (toml, word) in [
            ("mqqt = \"x\"", "mqqt"),
            ("[limits]\nconections = 1", "conections"),
            ("[limits]\nconnections = 0", "limits.connections"),
            ("[limits.wss]\nconnections = 1", "connections"),
            (
                "[limits.groups.a]\nthing_retained_bytes = 0",
                "limits.groups.a.thing_retained_bytes",
            ),
            (
                "[limits.things.a]\ntopic_levels = 0",
                "limits.things.a.topic_levels",
            ),
            ("[limits.groups.'a b']\ntopic_levels = 1", "a b"),
            ("mqtt = 5", "mqtt"),
            (
                "[firmware]\ndownload_bytes_per_second = 100",
                "firmware.download_bytes_per_second = 100: at least 16384, or 0",
            ),
            ("[ca]\ncrl_shards = 12", "crl_shards"),
            (
                "[ca]\nexpired_grace_seconds = 315576001",
                "ca.expired_grace_seconds",
            ),
            ("[ca]\nkey_custody = \"paper\"", "paper"),
            (
                "[ca]\ndevice_validity_seconds = 29",
                "ca.device_validity_seconds",
            ),
            ("[ca]\nserver_validity_seconds = 315576001", "315576000"),
            ("[compat]\naws = 1", "aws"),
            ("[compat]\nazure = true", "azure"),
            ("[policy]\nunresolved_deny = \"shut\"", "shut"),
            ("account = \"1\"", "account"),
            ("region = \"EU\"", "region"),
            ("mqtt = \"127.0.0.1:2\"\n[lim", "configuration file"),
        ] {
            let error = format!("{:#}", resolve(toml, Serve::default()).unwrap_err());
            assert!(error.contains(word), "{toml}: {error}");
        }
        let missing = Serve {
            config: Some("/nonexistent.toml".into()),
            ..Serve::default()
        };
        assert!(
            format!("{:#}", Settings::resolve(missing).unwrap_err()).contains("/nonexistent.toml")
        );
    }
}
