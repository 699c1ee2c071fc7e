//! One MQTT session as a state machine: packets and time in, packets and events out; no socket, no task, no clock.
//! Both protocol versions run through the same code; they differ in [`crate::codec`] only.
//!
//! The order of calls:
//! 1. [`crate::codec::decode_first`] takes the CONNECT; [`Proposal::new`] checks what needs no identity. The shell
//!    authorises [`Proposal::client_id`] and [`Proposal::will`], fetches what is stored, then calls
//!    [`Proposal::open`] (CONNACK is written) or [`Proposal::refuse`].
//! 2. For each packet: [`Session::handle`], at most one [`Event`]. The shell decides and answers it with
//!    [`Session::published`], [`Session::subscribed`] or [`Session::unsubscribed`], now or later.
//! 3. While [`Session::owes_resend`]: [`Session::resend`], after opening and after each [`Event::Acknowledged`].
//!    Then, while [`Session::may_send`]: [`Session::send`].
//! 4. [`Session::deadline`] says when to call [`Session::handle_timeout`].
//! 5. On an error [`Session::disconnect`]; at every end of the connection [`Session::close`].
//!
//! Everything is appended to one output buffer, which the shell flushes once per wake-up.

mod event;
mod incoming;
mod outgoing;
mod proposal;
mod publication;
mod settings;
mod stored;
mod subscriptions;
mod time;

#[cfg(test)]
mod tests;

pub use event::{Disconnect, Event, Incoming};
pub use outgoing::{DropReason, SendOptions, Sent};
pub use proposal::{Proposal, refuse};
pub use publication::Publication;
pub use settings::Settings;
pub use stored::{Closed, InFlight, Stored, Token};
pub use subscriptions::{SubscribeRequest, SubscribeRequests, UnsubscribeRequests};
pub use time::Time;

use crate::codec::{Packet, PacketId, Qos, ReasonCode, SubscriptionOptions, Version, Will};
use crate::topic::{ClientId, TopicFilter};

/// A session with a connection. `M` is what the shell shares among receivers: `Arc<Publication>` or a wrapper of its
/// own that also says who published.
#[derive(Debug)]
pub struct Session<M> {
    _m: std::marker::PhantomData<M>,
}

impl<M: AsRef<Publication> + Clone> Session<M> {
    /// What the client speaks.
    pub fn version(&self) -> Version {
        todo!()
    }

    /// Whose session it is.
    pub fn client_id(&self) -> &ClientId {
        todo!()
    }

    /// The will, while it stands: it is gone after an ordinary DISCONNECT [MQTT-3.14.4-3].
    pub fn will(&self) -> Option<&Will> {
        todo!()
    }

    /// How many seconds the session outlives its connection.
    pub fn expiry_s(&self) -> u32 {
        todo!()
    }

    /// Takes one packet of the client.
    ///
    /// # Errors
    /// The client broke the protocol or asked for what is not served: pass it to [`Session::disconnect`] and close.
    pub fn handle(
        &mut self,
        packet: Packet,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Result<Event, Disconnect> {
        todo!()
    }

    /// Whether the next packet may be handled. False only in 3.1.1, which has no Receive Maximum, while as many
    /// PUBLISH packets wait for their [`Session::published`] as are held at once: stop decoding until some are answered.
    pub fn may_receive(&self) -> bool {
        todo!()
    }

    /// Answers an [`Event::Publish`] of QoS 1, in any order; the PUBACKs leave in the order in which the PUBLISH
    /// packets came [MQTT-4.6.0-2].
    pub fn published(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        todo!()
    }

    /// Answers an [`Event::Subscribe`]: what is still granted in it is now a subscription of the session.
    pub fn subscribed(
        &mut self,
        requests: SubscribeRequests,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        todo!()
    }

    /// Answers an [`Event::Unsubscribe`]: what is in it is no longer a subscription of the session.
    pub fn unsubscribed(&mut self, requests: UnsubscribeRequests, out: &mut Vec<u8>) {
        todo!()
    }

    /// The subscriptions, in no order.
    pub fn subscriptions(
        &self,
    ) -> impl ExactSizeIterator<Item = (&TopicFilter, &SubscriptionOptions)> {
        std::iter::empty()
    }

    /// Takes a subscription away whose grant is lost. Whether there was one.
    pub fn remove_subscription(&mut self, filter: &TopicFilter) -> bool {
        todo!()
    }

    /// Whether [`Session::send`] may be called: for QoS 0 always; above it only with room in the client's Receive
    /// Maximum [MQTT-3.3.4-9] and our own bound, and with nothing left to resend.
    pub fn may_send(&self, qos: Qos) -> bool {
        todo!()
    }

    /// Sends a publication. `token` comes back in [`Event::Acknowledged`]; QoS 0 has none.
    pub fn send(
        &mut self,
        message: &M,
        options: SendOptions,
        token: Token,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Sent {
        todo!()
    }

    /// Whether messages of an earlier connection still wait for [`Session::resend`].
    pub fn owes_resend(&self) -> bool {
        todo!()
    }

    /// Sends again what an earlier connection left unacknowledged, with DUP and the same packet identifiers
    /// [MQTT-4.4.0-1], as far as the client's Receive Maximum goes. `allow` judges each delivery as if it were new.
    /// Returns what is not to be delivered any more: refused by `allow`, expired, or too large for this client.
    pub fn resend(
        &mut self,
        allow: impl FnMut(&M) -> bool,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Vec<(Token, DropReason)> {
        todo!()
    }

    /// When [`Session::handle_timeout`] is due; `None` without keep alive.
    pub fn deadline(&self) -> Option<Time> {
        todo!()
    }

    /// Checks the keep alive [MQTT-3.1.2-22].
    ///
    /// # Errors
    /// The client was silent for one and a half times its keep alive.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Disconnect> {
        todo!()
    }

    /// Tells the client why its connection ends; nothing is written in 3.1.1. The will stands.
    pub fn disconnect(
        &mut self,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        todo!()
    }

    /// The connection is gone, however it ended: what outlives it.
    pub fn close(self) -> Closed<M> {
        todo!()
    }
}
