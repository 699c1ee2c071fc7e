//! One MQTT session as a state machine: packets and time in, packets and events out; no socket, no task, no clock.
//! Both protocol versions run through the same code; they differ in [`crate::codec`] only.
//!
//! The order of calls:
//! 1. [`crate::codec::decode_first`] takes the CONNECT; [`Proposal::new`] checks what needs no identity. The shell
//!    authorises [`Proposal::client_id`] and [`Proposal::will`], fetches what is stored, then calls
//!    [`Proposal::open`] (CONNACK is written) or [`Proposal::refuse`].
//! 2. For each packet: [`Session::handle`], at most one [`Event`]. The shell decides and answers it with
//!    [`Session::published`], [`Session::completed`], [`Session::release`], [`Session::subscribed`] or
//!    [`Session::unsubscribed`], now or later.
//! 3. While [`Session::owes_resend`]: [`Session::resend`], after opening and after each [`Event::Acknowledged`].
//!    Then, while [`Session::may_send`]: [`Session::send`].
//! 4. [`Session::deadline`] says when to call [`Session::handle_timeout`].
//! 5. On an error [`Session::disconnect`]; at every end of the connection [`Session::close`].
//!
//! Everything is appended to one output buffer, which the shell flushes once per wake-up.

mod aliases;
mod event;
mod incoming;
mod outgoing;
mod proposal;
mod publication;
mod settings;
mod stored;
mod subscription_list;
mod subscriptions;
mod time;

#[cfg(test)]
mod tests;

pub use event::{Disconnect, Event, Incoming};
pub use incoming::V311_PENDING_MAX_MESSAGES;
pub use outgoing::{DropReason, SendOptions, Sent, UNNUMBERED_FROM};
pub use proposal::{Proposal, refuse};
pub use publication::{Publication, PublicationRef, Published};
pub use settings::Settings;
pub use stored::{Closed, InFlight, Progress, Stored, Token};
pub use subscription_list::Subscriptions;
pub use subscriptions::{SubscribeRequest, SubscribeRequests, UnsubscribeRequests};
pub use time::Time;

use bytes_utils::Str;

use crate::codec::{self, Limits, Packet, PacketId, Qos, ReasonCode, Version, Will};
use crate::topic::ClientId;
use aliases::{IncomingAliases, OutgoingAliases};
use incoming::{Held, PendingAcks};
use outgoing::Outgoing;

/// Longest reason string sent, in bytes.
pub const REASON_STRING_MAX_BYTES: usize = 1024;

/// Longest packet the wire can carry, in bytes.
const WIRE_PACKET_MAX_BYTES: usize = 5 + codec::REMAINING_MAX_BYTES;

/// A session with a connection. `M` is what the shell shares among receivers: `Arc<Publication>` or a wrapper of its
/// own that also says who published.
///
/// What each packet needs comes first, so that it lies in few lines of the cache.
#[derive(Debug)]
#[repr(C)]
pub struct Session<M> {
    version: Version,
    ended: bool,
    /// The client asked for 0 in its CONNECT and may not ask for more in its DISCONNECT (§3.14.2.2.2).
    asked_for_no_expiry: bool,
    request_problem_information: bool,
    keep_alive_s: u16,
    last_heard: Time,
    packet_max_bytes: usize,
    pending_acks: PendingAcks,
    /// Survives the connection, as `held`, `subscriptions` and `expiry_s` do.
    outgoing: Outgoing<M>,
    settings: Settings,
    aliases_out: OutgoingAliases,
    aliases_in: IncomingAliases,
    held: Held,
    subscriptions: Subscriptions,
    client_id: ClientId,
    expiry_s: u32,
    /// Most have none, and it is large.
    will: Option<Box<Will>>,
}

impl<M: Published + Clone> Session<M> {
    fn open(proposal: Proposal, stored: Option<Stored<M>>, now: Time) -> Self {
        let expiry_s = proposal.expiry_s();
        let stored = stored.unwrap_or_else(|| Stored {
            // A session that outlives its connection has tokens for what it keeps.
            next_packet_id: match expiry_s {
                0 => PacketId::MIN,
                _ => UNNUMBERED_FROM,
            },
            ..Stored::default()
        });
        let Proposal {
            connect,
            client_id,
            settings,
            ..
        } = proposal;
        // [MQTT-3.1.2-21, 3.2.2-21, -22]
        let keep_alive_s = settings
            .server_keep_alive_s(&connect)
            .unwrap_or(connect.keep_alive_s);
        Self {
            settings,
            client_id,
            subscriptions: stored.subscriptions,
            outgoing: Outgoing::new(
                stored.in_flight,
                stored.next_packet_id,
                // [MQTT-4.9.0-1]
                connect.receive_max.min(settings.in_flight_max_messages),
            ),
            held: Held::resumed(stored.held),
            expiry_s,
            version: connect.version,
            asked_for_no_expiry: connect.session_expiry_s == 0,
            request_problem_information: connect.request_problem_information,
            packet_max_bytes: connect
                .packet_max_bytes
                .map_or(WIRE_PACKET_MAX_BYTES, |max| max.get() as usize)
                .min(WIRE_PACKET_MAX_BYTES),
            keep_alive_s,
            last_heard: now,
            pending_acks: PendingAcks::default(),
            aliases_in: IncomingAliases::default(), // [MQTT-3.3.2-7]
            aliases_out: OutgoingAliases::new(
                connect
                    // [MQTT-3.3.2-11]
                    .topic_alias_max
                    .min(settings.topic_alias_outgoing_max),
            ),
            will: connect.will.map(Box::new),
            ended: false,
        }
    }

    /// What the decoder holds the client to.
    #[must_use]
    pub const fn decode_limits(&self) -> Limits {
        self.settings.limits()
    }

    /// What the client speaks.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whose session it is.
    #[must_use]
    pub const fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The will, while it stands: it is gone after an ordinary DISCONNECT [MQTT-3.14.4-3].
    #[must_use]
    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    /// How many seconds the session outlives its connection.
    #[must_use]
    pub const fn expiry_s(&self) -> u32 {
        self.expiry_s
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
        if self.ended {
            // [MQTT-3.14.4-1] [MQTT311-3.14.4-2]: nothing after DISCONNECT.
            return Ok(Event::Disconnect);
        }
        self.last_heard = now;
        // However full the window is, what comes is answered [MQTT-3.3.4-10, 4.9.0-3].
        match packet {
            Packet::Publish(publish) => self.publish(publish, now, out),
            Packet::PubAck(ack) => self.puback(&ack.0),
            Packet::PubRec(ack) => self.pubrec(&ack.0, out),
            Packet::PubRel(release) => self.pubrel(release.0.packet_id, out),
            Packet::PubComp(ack) => self.pubcomp_received(&ack.0),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Packet::PingReq => {
                Packet::PingResp.encode(self.version, out); // [MQTT-3.12.4-1] [MQTT311-3.12.4-1]
                Ok(Event::None)
            }
            Packet::Disconnect(disconnect) => self.disconnected(&disconnect),
            Packet::Connect(_) => Err(protocol("a second CONNECT came")), // [MQTT-3.1.0-2, 3.2.0-2] [MQTT311-3.1.0-2]
            Packet::Auth(_) => Err(protocol(
                "AUTH came without an authentication method in CONNECT",
            )), // [MQTT-4.12.0-7, 4.12.1-2]
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(protocol("this packet is sent by servers only"))
            }
        }
    }

    fn disconnected(&mut self, disconnect: &codec::Disconnect) -> Result<Event, Disconnect> {
        if disconnect.server_reference.is_some() {
            return Err(protocol("a client's DISCONNECT has no server reference"));
        }
        if let Some(seconds) = disconnect.session_expiry_s {
            if self.asked_for_no_expiry && seconds != 0 {
                // §3.14.2.2.2
                return Err(protocol(
                    "session expiry was 0 in CONNECT and cannot be set in DISCONNECT",
                ));
            }
            self.expiry_s = seconds.min(self.settings.session_expiry_max_s);
        }
        if disconnect.reason == ReasonCode::Success {
            self.will = None; // [MQTT-3.1.2-10, 3.14.4-3] [MQTT311-3.1.2-10, 3.14.4-3]
        }
        self.ended = true;
        Ok(Event::Disconnect)
    }

    /// Whether [`Session::send`] may be called: for QoS 0 while the connection lasts; above it only with room in the
    /// client's Receive Maximum [MQTT-3.3.4-9, 4.9.0-2] and our own bound, with nothing left to resend, and with the packet
    /// identifier free that belongs to the token.
    #[must_use]
    pub fn may_send(&self, qos: Qos, token: Token) -> bool {
        !self.ended && (qos == Qos::AtMostOnce || self.outgoing.has_room_for(token))
    }

    /// Whether messages of an earlier connection still wait for [`Session::resend`].
    #[must_use]
    pub const fn owes_resend(&self) -> bool {
        self.outgoing.owes_resend()
    }

    /// When [`Session::handle_timeout`] is due; `None` without keep alive. It moves with every packet handled.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        // [MQTT-3.1.2-20, -22] [MQTT311-3.1.2-23, -24]: one and a half times the keep alive.
        (self.keep_alive_s != 0).then(|| {
            self.last_heard
                .plus_millis(u64::from(self.keep_alive_s) * 1500)
        })
    }

    /// Checks the keep alive [MQTT-3.1.2-22].
    ///
    /// # Errors
    /// The client was silent for one and a half times its keep alive.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), Disconnect> {
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(Disconnect::new(
                ReasonCode::KeepAliveTimeout,
                format!(
                    "nothing came for one and a half times the keep alive of {} s",
                    self.keep_alive_s
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Tells the client why its connection ends; nothing is written in 3.1.1, nor to a client that has said DISCONNECT
    /// itself. The will stands. It says no session expiry [MQTT-3.14.2-2], and nothing follows it [MQTT-3.14.4-1].
    pub fn disconnect(
        &mut self,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if std::mem::replace(&mut self.ended, true) || self.version == Version::V311 {
            return;
        }
        let reason = if codec::Disconnect::allows(reason) {
            reason
        } else {
            ReasonCode::ProtocolError
        };
        let mut packet = codec::Disconnect::new(reason);
        packet.reason_string = reason_string.map(cut_reason);
        self.write_within(out, |out, with_string| {
            if !with_string {
                packet.reason_string = None;
            }
            packet.encode(Version::V5, out);
        });
    }

    /// The connection is gone, however it ended: what outlives it.
    #[must_use]
    pub fn close(self) -> Closed<M> {
        let expiry_s = self.expiry_s;
        let (in_flight, next_packet_id) = self.outgoing.into_stored();
        Closed {
            will: self.will.map(|will| {
                let mut will = *will;
                will.delay_s = will.delay_s.min(expiry_s); // §3.1.3.2.2: or the session ends, whichever is first
                will
            }),
            expiry_s,
            stored: Stored {
                subscriptions: self.subscriptions,
                in_flight,
                next_packet_id,
                held: self.held.into_packet_ids(),
            },
        }
    }

    /// The reason string for an acknowledgement: only for a client that asks for them [MQTT-3.1.2-29].
    fn reason_string(&self, text: Option<&str>) -> Option<Str> {
        text.filter(|_| self.version == Version::V5 && self.request_problem_information)
            .map(cut_reason)
    }

    /// Writes a packet with its reason string, or without where it would be longer than the client takes
    /// [MQTT-3.2.2-19, 3.4.2-2, 3.5.2-2, 3.9.2-1, 3.14.2-3].
    fn write_within(&self, out: &mut Vec<u8>, write: impl FnMut(&mut Vec<u8>, bool)) {
        write_within(self.packet_max_bytes, out, write);
    }
}

/// Calls `write` with true; where the result is longer than `max_bytes`, takes it back and calls it with false. Where that
/// is too long as well nothing is written [MQTT-3.1.2-24].
fn write_within(max_bytes: usize, out: &mut Vec<u8>, mut write: impl FnMut(&mut Vec<u8>, bool)) {
    let start = out.len();
    write(out, true);
    if out.len() - start > max_bytes {
        out.truncate(start);
        write(out, false);
    }
    if out.len() - start > max_bytes {
        out.truncate(start);
    }
}

fn cut_reason(text: &str) -> Str {
    let end = text.floor_char_boundary(REASON_STRING_MAX_BYTES);
    Str::from(text.get(..end).unwrap_or_default())
}

fn protocol(text: &'static str) -> Disconnect {
    Disconnect::new(ReasonCode::ProtocolError, text)
}
