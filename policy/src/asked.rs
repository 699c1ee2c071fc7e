//! What policies ask for of a connection, beyond its client id and its thing.

use std::net::IpAddr;
use std::sync::Arc;

use crate::condition::Condition;
use crate::context::{
    CertificateValues, ConnectAttributes, Context, Listener, Posture, TlsVersion,
};
use crate::document::Statement;
use crate::key::Key;
use crate::networks::Networks;
use crate::own::Own;
use crate::tokens::Variable;

/// Kinds of what can be asked for, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked(u16);

const CERTIFICATE: u16 = 1;
const SOURCE_IP: u16 = 1 << 1;
const DOMAIN_NAME: u16 = 1 << 2;
const CONNECT: u16 = 1 << 3;
const NOW: u16 = 1 << 4;
const NETWORKS: u16 = 1 << 5;
const LISTENER: u16 = 1 << 6;
const TLS_VERSION: u16 = 1 << 7;
const POSTURE: u16 = 1 << 8;

/// One thing that is known of a connection.
#[derive(Debug)]
pub(crate) enum Fact {
    Certificate(Arc<CertificateValues>),
    SourceIp(IpAddr),
    DomainName(Arc<str>),
    Connect(Box<ConnectAttributes>),
    Now(i64),
    Networks(Arc<Networks>),
    Listener(Listener),
    TlsVersion(TlsVersion),
    Posture(Arc<Posture>),
}

impl Asked {
    /// What a document's statements ask for, by their conditions and the variables of their
    /// resources.
    pub(crate) fn by(statements: &[Statement], variables: &[Variable]) -> Self {
        let conditions = statements
            .iter()
            .flat_map(|statement| &statement.conditions);
        let keys = conditions.flat_map(Condition::keys);
        let keys = keys.chain(variables.iter().map(|variable| &variable.key));
        Self(keys.fold(0, |all, key| all | bits(key)))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// As much of it as is known.
    pub(crate) fn of(self, context: &Context) -> Box<[Fact]> {
        let connect = context.connect != ConnectAttributes::default();
        let facts = [
            (
                CERTIFICATE,
                Some(Fact::Certificate(Arc::clone(&context.certificate))),
            ),
            (SOURCE_IP, context.source_ip.map(Fact::SourceIp)),
            (
                DOMAIN_NAME,
                context.domain_name.clone().map(Fact::DomainName),
            ),
            (
                CONNECT,
                connect.then(|| Fact::Connect(Box::new(context.connect.clone()))),
            ),
            (NOW, context.now.map(Fact::Now)),
            (
                NETWORKS,
                Some(Fact::Networks(Arc::clone(&context.networks))),
            ),
            (LISTENER, context.listener.map(Fact::Listener)),
            (TLS_VERSION, context.tls_version.map(Fact::TlsVersion)),
            (POSTURE, Some(Fact::Posture(Arc::clone(&context.posture)))),
        ];
        let asked = facts.into_iter().filter(|(bit, _)| self.0 & bit != 0);
        asked.filter_map(|(_, fact)| fact).collect()
    }
}

impl Fact {
    pub(crate) fn tell(&self, context: &mut Context) {
        match self {
            Fact::Certificate(values) => context.certificate = Arc::clone(values),
            Fact::SourceIp(address) => context.source_ip = Some(*address),
            Fact::DomainName(name) => context.domain_name = Some(Arc::clone(name)),
            Fact::Connect(attributes) => context.connect = (**attributes).clone(),
            Fact::Now(second) => context.now = Some(*second),
            Fact::Networks(networks) => context.networks = Arc::clone(networks),
            Fact::Listener(listener) => context.listener = Some(*listener),
            Fact::TlsVersion(version) => context.tls_version = Some(*version),
            Fact::Posture(posture) => context.posture = Arc::clone(posture),
        }
    }
}

fn bits(key: &Key) -> u16 {
    match key {
        Key::ClientId
        | Key::ThingName
        | Key::ThingTypeName
        | Key::Attribute(_)
        | Key::IsAttached
        | Key::SecureTransport
        | Key::Foreign(_) => 0,
        Key::SourceIp => SOURCE_IP,
        Key::DomainName => DOMAIN_NAME,
        Key::CertificateId | Key::SerialNumber | Key::AvailableKeys | Key::Certificate(..) => {
            CERTIFICATE
        }
        Key::ConnectAttributes | Key::LastWillTopic => CONNECT,
        Key::CurrentTime | Key::EpochTime => NOW,
        Key::Own(own) => match own {
            Own::SourceNetwork => SOURCE_IP | NETWORKS,
            Own::Listener => LISTENER,
            Own::TlsVersion => TLS_VERSION,
            Own::TimeOfDay(_) | Own::Weekday(_) => NOW,
            Own::MessageSize | Own::Qos | Own::Retain => 0,
            Own::CertificateAge | Own::CertificateRemainingLife => CERTIFICATE | NOW,
            Own::CertificateKeyKind | Own::EnrolmentWay => CERTIFICATE,
            Own::FirmwareName | Own::FirmwareVersion | Own::Quarantined => POSTURE,
            Own::Attested | Own::LastViolationAge => POSTURE | NOW,
        },
    }
}
