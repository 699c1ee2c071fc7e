//! What is known of a connection when it is judged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use crate::key::{Field, Holder, Key, Place};
use crate::name::PolicyName;
use crate::networks::Networks;

/// Characters of the longest certificate value that stands for a variable, as in AWS.
pub const VARIABLE_MAX_CHARS: usize = 1024;

/// Values of one certificate field that count; AWS ignores the rest.
pub const FIELD_MAX_VALUES: usize = 5;

/// All that statements can ask of a connection. What is absent or empty leaves its variable
/// unresolved: a resource that holds it matches nothing.
///
/// Values are text: a `*` or `?` in one is no wildcard. Two things are held back besides:
/// - A certificate value with `*`, `$`, `+`, `?` or `#` in it or of more than
///   [`VARIABLE_MAX_CHARS`] is never substituted, as in AWS.
/// - On a live server a value with `+` or `#` in it opens no topic filter: as part of a filter it
///   would be a wildcard to MQTT, so a client that names itself `+` would read everybody's
///   topics. A Deny still takes it literally. A test file decides as AWS documents, which lets
///   that client through.
///
/// A `/` in a client id is text like any other: `dt/${iot:ClientId}/*` for client `a/b` opens
/// `dt/a/b/…`, which also lies under `dt/a/`. Thing names cannot hold one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// `iot:ClientId`; empty where there is none, as over HTTPS.
    pub client_id: Arc<str>,
    /// The thing that the certificate is attached to, where this connection speaks as that thing.
    pub thing: Option<Arc<ThingFacts>>,
    /// The certificate it came with.
    pub certificate: Arc<CertificateValues>,
    /// `aws:SourceIp`: the peer's address.
    pub source_ip: Option<IpAddr>,
    /// `iot:DomainName`: the server name of the TLS handshake.
    pub domain_name: Option<Arc<str>>,
    /// What CONNECT asked for.
    pub connect: ConnectAttributes,
    /// `aws:CurrentTime` and `aws:EpochTime`, in whole seconds since 1970; without it conditions
    /// on time are not met.
    pub now: Option<i64>,
    /// The networks that the operator has named.
    pub networks: Arc<Networks>,
    /// Where the connection came in.
    pub listener: Option<Listener>,
    /// What its handshake agreed on.
    pub tls_version: Option<TlsVersion>,
    /// What is known of the device's health.
    pub posture: Arc<Posture>,
    /// Policies that allow nothing here and of which only what denies counts: those of a thing's groups where the
    /// connection does not speak as that thing.
    pub only_denying: Option<Arc<[PolicyName]>>,
}

/// Where a connection comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// MQTT over TLS.
    Mqtt,
    /// MQTT in WebSocket frames.
    Wss,
    /// The HTTPS face.
    Https,
}

impl Listener {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Listener::Mqtt => "mqtt",
            Listener::Wss => "wss",
            Listener::Https => "https",
        }
    }
}

/// A version of TLS that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are the versions")]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsVersion {
    pub(crate) fn name(self) -> &'static str {
        match self {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        }
    }
}

/// What is known of a device's health now. What is not known meets no condition of an Allow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Posture {
    /// Name of the firmware that it last installed.
    pub firmware_name: Option<Arc<str>>,
    /// The version of that.
    pub firmware_version: Option<Arc<str>>,
    /// Whether it is set apart.
    pub quarantined: Option<bool>,
    /// Whether it has proven what it runs.
    pub attested: Option<bool>,
    /// The second since 1970 from which on it has not any more; without one that proof has no end.
    pub attested_until: Option<i64>,
    /// When it last did what no sound device does, in seconds since 1970.
    pub last_violation: Option<i64>,
}

/// What is known of the message, or of the subscription, that is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageFacts {
    /// Bytes of the payload.
    pub size_bytes: Option<usize>,
    /// The quality of service of the PUBLISH, or the one that a SUBSCRIBE asks for.
    pub qos: Option<u8>,
    /// The retain flag of the PUBLISH.
    pub retain: Option<bool>,
}

impl Posture {
    /// Whether the device has proven what it runs, and that proof still counts.
    pub(crate) fn is_attested(&self, now: Option<i64>) -> Option<bool> {
        match (self.attested, self.attested_until) {
            // Without a clock nobody knows whether it has ended.
            (Some(true), Some(until)) => Some(now? < until),
            (word, _) => word,
        }
    }
}

/// The features that CONNECT asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectAttributes {
    /// `PersistentConnect`: the session outlives the connection.
    pub persistent: bool,
    /// `LastWill`, and the will's topic as an ARN for `iot:LastWillTopic`, where it is known.
    pub last_will: Option<Arc<str>>,
}

/// What policies can ask of a thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ThingFacts {
    /// `iot:Connection.Thing.ThingName`.
    pub name: Arc<str>,
    /// `iot:Connection.Thing.ThingTypeName`.
    pub type_name: Option<Arc<str>>,
    /// `iot:Connection.Thing.Attributes[…]`.
    pub attributes: BTreeMap<Box<str>, Arc<str>>,
}

/// What policies can ask of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateValues {
    /// `iot:CertificateId`.
    pub id: Option<Arc<str>>,
    /// `iot:Certificate.SerialNumber`, a decimal number.
    pub serial_number: Option<Arc<str>>,
    /// The values of subject and issuer in the certificate's order.
    pub fields: Vec<(Holder, Field, Arc<str>)>,
    /// First second of its life, since 1970.
    pub not_before: Option<i64>,
    /// Last second of its life, since 1970.
    pub not_after: Option<i64>,
    /// The kind of its key, as in `P-256` or `RSA-2048`.
    pub key_kind: Option<Arc<str>>,
    /// How it was enrolled.
    pub enrolled_by: Option<Arc<str>>,
}

impl CertificateValues {
    fn values(&self, holder: Holder, field: Field) -> impl Iterator<Item = &Arc<str>> {
        self.fields
            .iter()
            .filter(move |(h, f, _)| *h == holder && *f == field)
            .map(|(_, _, value)| value)
            .take(FIELD_MAX_VALUES)
    }

    fn available_keys(&self) -> Vec<Arc<str>> {
        let mut keys = Vec::new();
        if self.serial_number.is_some() {
            keys.push(Key::SerialNumber.to_string().into());
        }
        for holder in Holder::ALL {
            for field in Field::ALL {
                if self.values(holder, field).next().is_some() {
                    let key = Key::Certificate(holder, field, Place::First);
                    keys.push(key.to_string().into());
                }
            }
        }
        keys
    }
}

impl Context {
    /// Of a client id, the thing it speaks as, and the first common name of its certificate.
    #[must_use]
    pub fn of(client_id: &str, thing: Option<&str>, common_name: Option<&str>) -> Self {
        let thing = thing.map(|name| {
            Arc::new(ThingFacts {
                name: name.into(),
                ..ThingFacts::default()
            })
        });
        let common_name = common_name.map(|name| (Holder::Subject, Field::CommonName, name.into()));
        Self {
            client_id: client_id.into(),
            thing,
            certificate: Arc::new(CertificateValues {
                fields: common_name.into_iter().collect(),
                ..CertificateValues::default()
            }),
            ..Self::default()
        }
    }

    /// Whether only what denies counts of a policy.
    pub(crate) fn only_denies(&self, name: &PolicyName) -> bool {
        let some = self.only_denying.as_ref();
        some.is_some_and(|names| names.contains(name))
    }

    /// Every value of a key; none where the key is not there, as those of a message are not.
    pub(crate) fn values(&self, key: &Key) -> Vec<Arc<str>> {
        self.values_for(key, &MessageFacts::default())
    }

    /// Every value of a key for a message.
    pub(crate) fn values_for(&self, key: &Key, message: &MessageFacts) -> Vec<Arc<str>> {
        let one = |value: Option<Arc<str>>| value.into_iter().collect();
        let thing = self.thing.as_deref();
        match key {
            Key::ClientId => one(Some(Arc::clone(&self.client_id)).filter(|id| !id.is_empty())),
            // A listener on both families sees IPv4 peers as mapped addresses.
            Key::SourceIp => one(self
                .source_ip
                .map(|ip| ip.to_canonical().to_string().into())),
            Key::DomainName => one(self.domain_name.clone()),
            Key::CertificateId => one(self.certificate.id.clone()),
            Key::SerialNumber => one(self.certificate.serial_number.clone()),
            Key::AvailableKeys => self.certificate.available_keys(),
            Key::ThingName => one(thing.map(|thing| Arc::clone(&thing.name))),
            Key::ThingTypeName => one(thing.and_then(|thing| thing.type_name.clone())),
            Key::IsAttached => vec![thing.is_some().to_string().into()],
            Key::Attribute(name) => {
                one(thing.and_then(|thing| thing.attributes.get(name).map(Arc::clone)))
            }
            Key::Certificate(holder, field, place) => {
                let mut values = self.certificate.values(*holder, *field).cloned();
                match place {
                    Place::First => one(values.next()),
                    Place::Nth(n) => one(values.nth(usize::from(*n))),
                    Place::List => values.collect(),
                }
            }
            Key::ConnectAttributes => {
                let mut values = Vec::new();
                if self.connect.persistent {
                    values.push("PersistentConnect".into());
                }
                if self.connect.last_will.is_some() {
                    values.push("LastWill".into());
                }
                values
            }
            Key::LastWillTopic => one(self
                .connect
                .last_will
                .clone()
                .filter(|topic| !topic.is_empty())),
            Key::CurrentTime => one(self
                .now
                .and_then(|now| jiff::Timestamp::from_second(now).ok())
                .map(|now| now.to_string().into())),
            Key::EpochTime => one(self.now.map(|now| now.to_string().into())),
            Key::SecureTransport => vec!["true".into()],
            Key::Own(own) => own.values(self, message),
            Key::Foreign(_) => Vec::new(),
        }
    }

    /// What a key stands for in a resource or in a condition's value, if it may stand there.
    pub(crate) fn substitute(&self, key: &Key) -> Option<Arc<str>> {
        if key.is_list() {
            return None;
        }
        let value = self.values(key).into_iter().next()?;
        let fit = match key {
            Key::Certificate(..) | Key::SerialNumber => fit_certificate_value(&value),
            // A moment is no name: it would be another one at the next message.
            key if key.is_moving() || key.is_of_message() => false,
            _ => !value.is_empty(),
        };
        fit.then_some(value)
    }
}

/// Whether a certificate's value may stand in a resource; AWS's rule.
fn fit_certificate_value(value: &str) -> bool {
    !value.is_empty()
        && !value.contains(['*', '$', '+', '?', '#'])
        && value.chars().nth(VARIABLE_MAX_CHARS).is_none()
}
