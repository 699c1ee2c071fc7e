//! What is kept of a session while no connection holds it.

use std::sync::Arc;

use fleet::WatchGuard;

use super::connection::Owed;
use super::groups::Shared;
use super::identity::Identity;
use super::layout::BodyRef;
use super::mailbox::Mailbox;
use super::record::SessionRecord;
use super::sessions::{Owner, SessionKey};
use crate::codec::PacketId;
use crate::session::{SendOptions, Subscriptions, Time, Token};

/// A session between two connections. Messages are in the journal; here are only their numbers.
pub(crate) struct Parked {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) identity: Identity,
    /// The standing's generation when it was last looked at.
    pub(crate) generation: u64,
    /// Wakes the janitor when the standing changes.
    pub(crate) _watch: WatchGuard,
    pub(crate) subscriptions: Subscriptions,
    /// Sent and not acknowledged, in the order of sending.
    pub(crate) in_flight: Vec<ParkedFlight>,
    /// Messages of QoS 2 that the client has not released.
    pub(crate) held: Vec<PacketId>,
    /// What is retained under its subscriptions and has not come to its queue yet.
    pub(crate) owed: Option<Box<Owed>>,
    pub(crate) next_packet_id: PacketId,
    pub(crate) expiry_s: u32,
    /// `None` never expires.
    pub(crate) expires_at: Option<Time>,
    /// When its will is due, if it has one, unless the client is back before. The journal has it: there may be a million of
    /// 64 KiB.
    pub(crate) will_due: Option<Time>,
}

/// A delivery that waits for its acknowledgement.
#[derive(Debug, Clone)]
pub(crate) struct ParkedFlight {
    pub(crate) token: Token,
    pub(crate) progress: ParkedProgress,
    /// Of QoS 1 by a shared subscription: who else can have it.
    pub(crate) shared: Option<Box<Shared>>,
}

/// How far it has come.
#[derive(Debug, Clone)]
pub(crate) enum ParkedProgress {
    /// PUBLISH was sent.
    Sent { options: SendOptions, body: BodyRef },
    /// QoS 2: PUBREC has come.
    Received,
}

impl ParkedFlight {
    /// Where its message is.
    pub(crate) fn body(&self) -> BodyRef {
        match &self.progress {
            ParkedProgress::Sent { body, .. } => *body,
            ParkedProgress::Received => BodyRef::Inline,
        }
    }
}

impl Parked {
    /// What the journal is told of it.
    pub(crate) fn record(&self, key: &SessionKey) -> SessionRecord {
        let thing = match &key.owner {
            Owner::Thing(thing) => Some(thing.to_string()),
            Owner::Certificate(_) => None,
        };
        let mut record = SessionRecord::new(
            thing,
            self.identity.certificate(),
            key.client_id.as_str().to_owned(),
            self.expiry_s,
        );
        record.common_name = self.identity.common_name.as_deref().map(str::to_owned);
        record.connected = false;
        record.expires_at_ms = self.expires_at.map(Time::as_millis);
        record.will_at_ms = self.will_due.map(Time::as_millis);
        record.next_packet_id = self.next_packet_id;
        record.next_token = self.mailbox.next_token();
        record.in_flight = self.in_flight.iter().map(|flight| flight.token).collect();
        record
    }
}
