use bytes::BytesMut;

use super::*;

/// A decoded packet.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    /// §3.1
    Connect(Box<Connect>),
    /// §3.2
    ConnAck(Box<ConnAck>),
    /// §3.3
    Publish(Publish),
    /// §3.4
    PubAck(PubAck),
    /// §3.5
    PubRec(PubRec),
    /// §3.6
    PubRel(PubRel),
    /// §3.7
    PubComp(PubComp),
    /// §3.8
    Subscribe(Subscribe),
    /// §3.9
    SubAck(SubAck),
    /// §3.10
    Unsubscribe(Unsubscribe),
    /// §3.11
    UnsubAck(UnsubAck),
    /// §3.12
    PingReq,
    /// §3.13
    PingResp,
    /// §3.14
    Disconnect(Disconnect),
    /// §3.15
    Auth(Auth),
}

/// What a peer may make the decoder hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest packet in bytes, fixed header included: what Maximum Packet Size announces.
    pub packet_max_bytes: u32,
    /// Most user properties in one packet, will properties counted apart.
    pub user_properties_max: usize,
    /// Most filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_max: usize,
}

/// Takes one packet off the front of what was read; `None` until it is whole.
///
/// # Errors
/// Says what is wrong and how to answer. The buffer's content has no meaning after an error: close the connection.
pub fn decode(
    buffer: &mut BytesMut,
    version: Version,
    limits: &Limits,
) -> Result<Option<Packet>, DecodeError> {
    todo!()
}

/// Takes the CONNECT that every connection begins with [MQTT-3.1.0-1]; `None` until it is whole. Anything else is
/// refused at its first byte, before more of it is read.
///
/// # Errors
/// As [`decode`]; the error says in which version, if any, a CONNACK is understood.
pub fn decode_first(
    buffer: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<Connect>, DecodeError> {
    todo!()
}
