//! Every bound of the broker, with its unit in its name.

use std::time::Duration;

use super::bounds::OwnBounds;
use crate::topic::{TOPIC_MAX_BYTES, TOPIC_MAX_LEVELS};

/// The bounds a broker keeps. [`Limits::default`] is what `muster serve` uses where the
/// configuration names nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections held at once, over all listeners; one more is closed as it is accepted, or has the place of one that has
    /// no session yet or none any more.
    pub connections: usize,
    /// File descriptors for them and for what is held elsewhere ([`crate::Broker::hold_elsewhere`]).
    pub descriptors: usize,
    /// TLS handshakes and CONNECTs in flight; one more waits until one is through, or has been silent for a second: that
    /// one is closed then. So overload is felt by newcomers before live sessions suffer.
    pub handshakes_in_flight: usize,
    /// From accept to the end of the TLS handshake, and from there to the whole CONNECT.
    pub handshake_time: Duration,
    /// Bytes of one MQTT packet, header included.
    pub packet_bytes: usize,
    /// How long one packet may take from its first byte to its last: who drips holds memory and a place, also with no
    /// keep alive. Enough for the largest over a link of a few kilobytes a second.
    pub packet_time: Duration,
    /// Bytes of the first packet, which comes before anybody is known by client id.
    pub connect_packet_bytes: usize,
    /// Bytes of a topic name or filter.
    pub topic_bytes: usize,
    /// Levels of a topic name or filter.
    pub topic_levels: usize,
    /// Subscriptions of one session.
    pub session_subscriptions: usize,
    /// Bytes of the filters of one session's subscriptions, all together.
    pub session_subscription_bytes: usize,
    /// Of a session's subscriptions, shared ones: each is a choice and a copy for every message it matches.
    pub session_shared_subscriptions: usize,
    /// Highest topic alias a client may use.
    pub topic_aliases: u16,
    /// Highest topic alias used towards a client that allows any.
    pub topic_aliases_outgoing: u16,
    /// Bytes of QoS 2 messages a session has published and not released.
    pub session_held_bytes: usize,
    /// Messages of QoS 1 and 2 in flight each way.
    pub session_inflight_messages: u16,
    /// Messages waiting for one session.
    pub session_queue_messages: usize,
    /// Bytes (topic, payload, properties) waiting for one session.
    pub session_queue_bytes: usize,
    /// The same of a session that ends with its connection: all of it is in memory.
    pub session_memory_bytes: usize,
    /// QoS 0 messages waiting for one connected session; one more is dropped.
    pub session_qos0_messages: usize,
    /// Bytes waiting for one connected session beyond which QoS 0 is dropped.
    pub session_qos0_bytes: usize,
    /// Bytes of a live session's durable queue kept in memory; the rest is read from the journal
    /// when its turn comes.
    pub session_resident_bytes: usize,
    /// The longest session expiry granted.
    pub session_expiry: Duration,
    /// Sessions parked without a connection.
    pub parked_sessions: usize,
    /// Of them, sessions of one thing: beyond it the one that was parked first ends.
    pub thing_parked_sessions: usize,
    /// Connections of one thing, all its client identifiers together; it always leaves 64 to others, or half of fewer
    /// than 128. What it has beside them, without a session, makes room for whoever comes.
    pub thing_connections: usize,
    /// The longest keep alive; 0 asked for is this.
    pub keep_alive: Duration,
    /// Retained messages held.
    pub retained_messages: usize,
    /// Bytes of retained messages held.
    pub retained_bytes: usize,
    /// Of them, messages of one thing.
    pub thing_retained_messages: usize,
    /// Of them, bytes of one thing (topic, payload, properties, and 96 for each message).
    pub thing_retained_bytes: usize,
    /// Bytes read from one connection before the others of its core have their turn.
    pub read_share_bytes: usize,
    /// Work that one connection may do before the others of its core have their turn, once for what it sends and once for
    /// what it is sent; a unit is about what it costs to look at one node of a tree.
    pub turn_work: usize,
    /// Bytes encoded and not yet taken by the peer; deliveries wait in the mailbox beyond it.
    pub output_bytes: usize,
    /// How long a peer may leave a full output buffer untouched.
    pub write_stall: Duration,
    /// How long a new connection waits for the one it takes over to let go of the session.
    pub takeover_time: Duration,
    /// Topics whose decision and receivers a connection remembers.
    pub route_cache_topics: usize,
    /// What listeners, groups and things have of their own.
    pub own: OwnBounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            descriptors: usize::MAX,
            handshakes_in_flight: 1_000,
            handshake_time: Duration::from_secs(10),
            packet_bytes: 1024 * 1024,
            packet_time: Duration::from_secs(300),
            connect_packet_bytes: 256 * 1024,
            topic_bytes: TOPIC_MAX_BYTES,
            topic_levels: TOPIC_MAX_LEVELS,
            session_subscriptions: 20_000,
            session_subscription_bytes: 1024 * 1024,
            session_shared_subscriptions: 50,
            topic_aliases: 10,
            topic_aliases_outgoing: 16,
            session_held_bytes: 32 * 1024 * 1024,
            session_inflight_messages: 20,
            session_queue_messages: 100_000,
            session_queue_bytes: 256 * 1024 * 1024,
            session_memory_bytes: 16 * 1024 * 1024,
            session_qos0_messages: 10_000,
            session_qos0_bytes: 16 * 1024 * 1024,
            session_resident_bytes: 1024 * 1024,
            session_expiry: Duration::from_secs(7 * 24 * 3600),
            parked_sessions: 1_000_000,
            thing_parked_sessions: 10_000,
            thing_connections: 100_000,
            keep_alive: Duration::from_secs(1200),
            retained_messages: 1_000_000,
            retained_bytes: 1024 * 1024 * 1024,
            thing_retained_messages: 10_000,
            thing_retained_bytes: 32 * 1024 * 1024,
            read_share_bytes: 64 * 1024,
            turn_work: 32 * 1024,
            output_bytes: 64 * 1024,
            write_stall: Duration::from_secs(20),
            takeover_time: Duration::from_secs(5),
            route_cache_topics: 64,
            own: OwnBounds::default(),
        }
    }
}
