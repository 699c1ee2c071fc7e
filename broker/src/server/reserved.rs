//! The seam for reserved topics: what a device publishes to `$aws/…` is a request to the server and
//! goes to the room that implements [`ReservedTopics`], never to another session.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ca::CertificateId;
use fleet::ThingName;

use super::mailbox::Mailbox;
use super::message::{Message, Origin};
use crate::codec::{Qos, ReasonCode};
use crate::session::{Publication, SendOptions};
use crate::topic::{ClientId, TopicFilter, TopicName};

/// Most bytes of a reserved topic. AWS IoT has 256 beside the names of Basic Ingest; the longest of ours is that of a
/// job in a namespace: 128 of a thing, 64 of a job, 64 of a namespace, and what stands between them.
const RESERVED_TOPIC_BYTES: usize = 512;
/// Most levels of a reserved topic: `$aws` and seven.
const RESERVED_TOPIC_LEVELS: usize = 8;
/// Most bytes of a request's payload, as AWS IoT has it for every message. Rooms may take less.
const RESERVED_PAYLOAD_BYTES: usize = 128 * 1024;

/// What of a message to a reserved topic is too much to be taken as a request at all: how it is refused, and the words.
/// A request is queued, and its answer is sent under its topic: neither may be as long as a message of a device to others.
pub(crate) fn excess(publication: &Publication) -> Option<(ReasonCode, String)> {
    let topic = publication.topic.as_str();
    if !topic.starts_with("$aws/") {
        return None;
    }
    let (bytes, payload) = (topic.len(), publication.payload.len());
    if bytes > RESERVED_TOPIC_BYTES {
        let text = format!(
            "the reserved topic ($aws/…) has {bytes} bytes; at most {RESERVED_TOPIC_BYTES} are possible"
        );
        return Some((ReasonCode::TopicNameInvalid, text));
    }
    let levels = topic.split('/').count();
    if levels > RESERVED_TOPIC_LEVELS {
        let text = format!(
            "the reserved topic ($aws/…) has {levels} levels; at most {RESERVED_TOPIC_LEVELS} are possible"
        );
        return Some((ReasonCode::TopicNameInvalid, text));
    }
    (payload > RESERVED_PAYLOAD_BYTES).then(|| {
        let text = format!(
            "the payload of a request ($aws/…) has {payload} bytes; at most {RESERVED_PAYLOAD_BYTES} are possible"
        );
        (ReasonCode::QuotaExceeded, text)
    })
}

/// What answers `$aws/…`.
pub trait ReservedTopics: Send + Sync {
    /// Takes a request that policy has allowed. Called on a thread that serves connections, so it
    /// must not block: queue it, and answer from elsewhere through [`Request::reply`].
    fn request(&self, request: Request);

    /// Hears what happened to a session. Called on a thread that serves connections, so it must not
    /// block.
    fn lifecycle(&self, event: Lifecycle) {
        drop(event);
    }

    /// Hears of a certificate (DER) that no row of the registry is about, whose key came through a
    /// handshake; the connection ends. Called on a thread that serves connections, so it must not
    /// block.
    fn newcomer(&self, _certificate: &[u8]) {}
}

/// What happened to a session, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// Who.
    pub principal: Principal,
    /// The client id it is connected with.
    pub client_id: ClientId,
    /// The session, for its whole life.
    pub session: u64,
    /// The connection: the same in its first and its last event, higher in those of later ones.
    pub version: u64,
    /// When.
    pub at: SystemTime,
    /// Where the peer is.
    pub source: Option<IpAddr>,
    /// What.
    pub change: LifecycleChange,
}

/// What happened to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LifecycleChange {
    /// It is connected.
    Connected,
    /// It is connected no more.
    Disconnected(DisconnectReason),
    /// It has subscribed.
    Subscribed(Vec<TopicFilter>),
    /// It has unsubscribed, or lost what the policy does not grant any more.
    Unsubscribed(Vec<TopicFilter>),
}

/// Why a connection ended, in AWS IoT's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The client said goodbye.
    ClientInitiated,
    /// The socket was gone.
    ConnectionLost,
    /// The client broke the protocol.
    ClientError,
    /// Nothing was heard of it for too long.
    KeepAliveTimeout,
    /// It did what the policy does not grant.
    Forbidden,
    /// Another connection has the session.
    DuplicateClientId,
    /// Its certificate is not good any more.
    AuthError,
    /// The server ended it.
    ServerInitiated,
    /// DeleteConnection ended it.
    ApiInitiated,
}

impl DisconnectReason {
    /// AWS's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientInitiated => "CLIENT_INITIATED_DISCONNECT",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::ClientError => "CLIENT_ERROR",
            Self::KeepAliveTimeout => "MQTT_KEEP_ALIVE_TIMEOUT",
            Self::Forbidden => "FORBIDDEN_ACCESS",
            Self::DuplicateClientId => "DUPLICATE_CLIENTID",
            Self::AuthError => "AUTH_ERROR",
            Self::ServerInitiated => "SERVER_INITIATED_DISCONNECT",
            Self::ApiInitiated => "API_INITIATED_DISCONNECT",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The certificate that was judged.
    pub certificate: CertificateId,
    /// The thing it belongs to.
    pub thing: Option<ThingName>,
}

/// One message published to a reserved topic.
#[derive(Debug)]
pub struct Request {
    /// The topic, beginning with `$aws/`.
    pub topic: TopicName,
    /// The payload.
    pub payload: Bytes,
    /// Who published it.
    pub principal: Principal,
    /// The client id it is connected with.
    pub client_id: ClientId,
    /// Where it is connected from, where that is known.
    pub source: Option<IpAddr>,
    /// The way back.
    pub reply: Reply,
}

/// The way back to the session that asked, and the release of its PUBACK.
///
/// The PUBACK of a QoS 1 request follows when this is dropped or [`Reply::done`]: answer first, and
/// what is acknowledged is also durable.
#[derive(Debug)]
pub struct Reply {
    mailbox: Arc<Mailbox>,
    qos: Qos,
    number: u64,
}

impl Reply {
    pub(crate) fn new(mailbox: Arc<Mailbox>, qos: Qos, number: u64) -> Self {
        Self {
            mailbox,
            qos,
            number,
        }
    }

    /// Sends a message to that session only, whether it subscribed or not. Like every delivery it
    /// is judged by the session's policy (Receive). To a session that is gone it goes nowhere, and neither does it where
    /// too many bytes of answers wait already.
    pub fn send(&self, topic: TopicName, payload: Bytes) {
        let publication = Publication::new(topic, payload);
        let message = Message::new(publication, self.qos, false, Origin::Service);
        let options = SendOptions {
            qos: self.qos,
            retain: false,
            subscription_ids: None,
        };
        self.mailbox.reply(&message, options);
    }

    /// Releases the request's PUBACK, as dropping does.
    pub fn done(self) {}
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.mailbox.answered(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(topic: &str, payload: usize) -> Option<ReasonCode> {
        let topic = topic.parse().unwrap();
        let publication = Publication::new(topic, Bytes::from(vec![0; payload]));
        excess(&publication).map(|(reason, _)| reason)
    }

    #[test]
    fn requests_are_as_long_as_their_names_can_be() {
        let (thing, job, namespace) = ("t".repeat(128), "j".repeat(64), "n".repeat(64));
        let longest = format!("$aws/things/{thing}/jobs/{job}/namespace-{namespace}/update");
        assert_eq!(refused(&longest, RESERVED_PAYLOAD_BYTES), None);
        let longer = format!("$aws/{}", "x".repeat(RESERVED_TOPIC_BYTES - 4));
        assert_eq!(refused(&longer, 0), Some(ReasonCode::TopicNameInvalid));
        assert_eq!(refused(&longer[..RESERVED_TOPIC_BYTES], 0), None);
        assert_eq!(refused("$aws/1/2/3/4/5/6/7", 0), None);
        let deeper = refused("$aws/1/2/3/4/5/6/7/8", 0);
        assert_eq!(deeper, Some(ReasonCode::TopicNameInvalid));
        let heavier = refused(&longest, RESERVED_PAYLOAD_BYTES + 1);
        assert_eq!(heavier, Some(ReasonCode::QuotaExceeded));
    }

    #[test]
    fn what_goes_to_other_devices_may_be_longer() {
        for topic in [
            format!("dt/{}", "x".repeat(4000)),
            "$awsx/y".repeat(100),
            "a/".repeat(60),
        ] {
            assert_eq!(refused(&topic, RESERVED_PAYLOAD_BYTES + 1), None);
        }
    }
}
