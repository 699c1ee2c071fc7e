//! The seam for reserved topics: what a device publishes to `$aws/…` is a request to the server and
//! goes to the room that implements [`ReservedTopics`], never to another session.

use std::sync::Arc;

use bytes::Bytes;
use ca::CertificateId;
use fleet::ThingName;

use super::mailbox::Mailbox;
use super::message::{Message, Origin};
use crate::codec::Qos;
use crate::session::{Publication, SendOptions};
use crate::topic::{ClientId, TopicName};

/// What answers `$aws/…`.
pub trait ReservedTopics: Send + Sync {
    /// Takes a request that policy has allowed. Called on a thread that serves connections, so it
    /// must not block: queue it, and answer from elsewhere through [`Request::reply`].
    fn request(&self, request: Request);
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
    pending: Option<u64>,
}

impl Reply {
    pub(crate) fn new(mailbox: Arc<Mailbox>, qos: Qos, pending: Option<u64>) -> Self {
        Self {
            mailbox,
            qos,
            pending,
        }
    }

    /// Sends a message to that session only, whether it subscribed or not. Like every delivery it
    /// is judged by the session's policy (Receive). To a session that is gone it goes nowhere.
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
        if let Some(number) = self.pending.take() {
            self.mailbox.answered(number);
        }
    }
}
