//! Counters. One block per core, added up when read, so that no core writes another's cache lines.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One core's counters.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)+ }

        /// What the broker has done since it started, summed over its cores.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)+ }

        impl Stats {
            pub(crate) fn sum<'a>(blocks: impl Iterator<Item = &'a Counters>) -> Self {
                let mut sum = Self::default();
                for block in blocks {
                    $(sum.$name = sum.$name.wrapping_add(block.$name.get());)+
                }
                sum
            }
        }
    };
}

counters! {
    /// Sockets accepted.
    accepted,
    /// Connections closed because of a bound: at accept, as one too many, or before their CONNECT, to make room for another.
    shed,
    /// TLS handshakes that failed or took too long.
    handshakes_failed,
    /// Connections refused after the handshake: registry, policy or protocol.
    connects_refused,
    /// Sessions connected, ever.
    connected,
    /// Sessions that ended their connection, ever; `connected - disconnected` are live now.
    disconnected,
    /// Connections taken over by a newer one with the same client id of the same thing.
    taken_over,
    /// Connections closed because their certificate is no longer good.
    revoked,
    /// Connections closed because the peer stopped reading.
    stalled,
    /// PUBLISH packets received.
    messages_in,
    /// PUBLISH packets sent.
    messages_out,
    /// Bytes of MQTT received.
    bytes_in,
    /// Bytes of MQTT sent.
    bytes_out,
    /// Times a connection had to let the others have their turn because what it sent was so much work.
    turns_cut,
    /// Requests to reserved topics refused: too many answers waited for the client to acknowledge them.
    refused_requests,
    /// Times a publisher was not read because the journal was behind.
    publishers_held,
    /// QoS 0 messages dropped: the receiver's mailbox was full.
    dropped_qos0_full,
    /// QoS 0 messages not kept: the receiver was offline.
    dropped_qos0_offline,
    /// Queued messages dropped, oldest first: the session's queue was full.
    dropped_queue_full,
    /// Messages dropped because their expiry passed before delivery.
    dropped_expired,
    /// Messages dropped because the receiver's packet size limit is smaller.
    dropped_too_large,
    /// CONNECTs denied by policy.
    denied_connect,
    /// PUBLISHes denied by policy.
    denied_publish,
    /// Retained PUBLISHes denied by policy.
    denied_retain,
    /// Messages not retained: as many are of their thing, or of all, as may be.
    refused_retain,
    /// Subscriptions denied by policy, at SUBSCRIBE or when the policy changed.
    denied_subscribe,
    /// Deliveries denied by policy.
    denied_receive,
    /// Wills not published because they were no longer allowed.
    denied_will,
    /// Wills not published because they would have had to wait for the disk, and as many did as may.
    dropped_will,
}

/// A session whose queue has been full.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FullQueue {
    /// The thing it belongs to, or the certificate where there is no thing.
    pub owner: String,
    /// Its client id.
    pub client_id: String,
    /// Messages that were not kept, since the session was made or the server started.
    pub dropped: u64,
    /// Messages that wait in it now.
    pub waiting: usize,
}

/// A counter that many may read and, by habit, one core writes.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn add(&self) {
        self.add_n(1);
    }

    /// Adds `n`.
    pub(crate) fn add_n(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_add_up() {
        let (a, b) = (Counters::default(), Counters::default());
        a.messages_in.add_n(3);
        b.messages_in.add();
        b.shed.add();
        let sum = Stats::sum([&a, &b].into_iter());
        assert_eq!((sum.messages_in, sum.shed, sum.messages_out), (4, 1, 0));
    }
}
