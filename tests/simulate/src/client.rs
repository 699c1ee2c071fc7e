//! A simulated client: its connections, and the session state a client keeps (§4.1.0).

use std::collections::{BTreeMap, VecDeque};

use crate::link::Link;
use crate::model::Step;
use crate::wire::{Ack, Version};

/// A SUBSCRIBE or UNSUBSCRIBE whose answer is owed.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Places in the model's subscriptions.
    Subscribe(Vec<usize>),
    Unsubscribe(String, Step),
}

/// A message of QoS 1 or 2 on its way to the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    pub(crate) packet_id: u16,
    pub(crate) message: usize,
    /// PUBREC has come.
    pub(crate) released: bool,
}

/// An acknowledgement the client owes, or has given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) kind: Ack,
    pub(crate) packet_id: u16,
    /// Ends this delivery.
    pub(crate) settles: Option<usize>,
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) number: u64,
    pub(crate) link: Link,
    pub(crate) opened: Step,
    pub(crate) opened_ms: u64,
    pub(crate) clean: bool,
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<usize>,
    pub(crate) will_delay_s: u32,
    /// Written by the client and not at the server yet.
    pub(crate) up: VecDeque<u8>,
    /// Bytes written, ever.
    pub(crate) written: u64,
    /// Received and not a whole packet yet, beginning at `input_at` of the server's stream.
    pub(crate) input: Vec<u8>,
    pub(crate) input_at: u64,
    /// CONNACK has come, at this step.
    pub(crate) accepted: Option<Step>,
    pub(crate) receive_max: usize,
    pub(crate) alias_max: u16,
    /// Names of the server's aliases.
    pub(crate) aliases: BTreeMap<u16, String>,
    /// The client's own.
    pub(crate) own_aliases: Vec<String>,
    pub(crate) asked: BTreeMap<u16, Asked>,
    pub(crate) replies: VecDeque<Reply>,
    /// Delivered by the server and not acknowledged by the client.
    pub(crate) in_flight: BTreeMap<u16, Option<usize>>,
    /// What is certain once the server has read so far.
    pub(crate) quiet: VecDeque<(u64, Certain)>,
    /// The wall clock when bytes last arrived at the server.
    pub(crate) heard_ms: u64,
    /// The wall clock when everything the server wrote was last taken.
    pub(crate) emptied_ms: u64,
    pub(crate) keep_alive_s: u16,
    /// DISCONNECT was written, so far in the stream; whether with the will.
    pub(crate) goodbye: Option<(u64, bool)>,
    /// The server has a reason to close.
    pub(crate) may_close: bool,
    /// Since when the server has had a reason of time to close, at the earliest.
    pub(crate) ended_ms: Option<u64>,
    /// It said goodbye when nothing else could end the connection.
    pub(crate) polite: bool,
    /// The server's close has been noticed.
    pub(crate) over: bool,
}

/// Something that is certain once the server has read the bytes and all is quiet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Certain {
    /// A message of QoS 0 has been routed.
    Routed(usize),
    /// An acknowledgement has been taken.
    Settled(usize),
}

impl Connection {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.up.extend(bytes);
        self.written += bytes.len() as u64;
    }
}

/// What is known of the session on the server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    /// There may be one.
    pub(crate) possible: bool,
    /// There is one, unless it has expired.
    pub(crate) certain: bool,
    pub(crate) expiry_s: u32,
    /// It expires no earlier than so long after this moment of the wall clock...
    pub(crate) lost_ms: Option<u64>,
    /// ...and no later than so long after this one.
    pub(crate) noticed_ms: Option<u64>,
}

impl Kept {
    /// Whether it may have expired by now.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        let expiry_ms = u64::from(self.expiry_s) * 1000;
        self.lost_ms
            .is_some_and(|lost_ms| lost_ms.saturating_add(expiry_ms) <= now_ms)
    }

    /// Its connection was lost at this moment, or before.
    pub(crate) fn lose(&mut self, at_ms: u64) {
        self.lost_ms = Some(self.lost_ms.map_or(at_ms, |ms| ms.min(at_ms)));
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) principal: usize,
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) expiry_s: u32,
    pub(crate) receive_max: u16,
    pub(crate) alias_max: u16,
    pub(crate) packet_max: Option<u32>,
    pub(crate) keep_alive_s: u16,
    /// A clean start was asked for and not confirmed: what there was is gone on this side.
    pub(crate) must_clean: bool,
    pub(crate) room: usize,
    pub(crate) connection: Option<Connection>,
    /// Connections the client has given up and the server may not know of yet.
    pub(crate) old: Vec<Connection>,
    pub(crate) kept: Kept,
    // What a client keeps of its session.
    pub(crate) life: u64,
    pub(crate) next_id: u16,
    pub(crate) outgoing: VecDeque<Outgoing>,
    /// QoS 2: received and not released.
    pub(crate) incoming: BTreeMap<u16, Option<usize>>,
}

impl Client {
    /// A packet identifier that is not in use.
    pub(crate) fn packet_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let id = self.next_id;
            let asked = self.connection.iter().any(|c| c.asked.contains_key(&id));
            if !asked && self.outgoing.iter().all(|out| out.packet_id != id) {
                return id;
            }
        }
    }

    /// The connection, where the server has accepted it and both are there.
    pub(crate) fn live(&mut self) -> Option<&mut Connection> {
        self.connection
            .as_mut()
            .filter(|c| c.accepted.is_some() && c.goodbye.is_none() && !c.over)
    }
}
