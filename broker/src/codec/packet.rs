use bytes::{Buf, BytesMut};

use super::reader::{Reader, varint};
use super::{
    Auth, ConnAck, Connect, DecodeError, Disconnect, PubAck, PubComp, PubRec, PubRel, Publish, Qos,
    ReasonCode, SubAck, Subscribe, UnsubAck, Unsubscribe, Version,
};

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

impl Packet {
    /// Appends the packet.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) => packet.encode(version, out),
            Self::PubRec(packet) => packet.encode(version, out),
            Self::PubRel(packet) => packet.encode(version, out),
            Self::PubComp(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq => out.extend([0xc0, 0]),
            Self::PingResp => out.extend([0xd0, 0]),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(out),
        }
    }
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
    let Some(frame) = Frame::take(buffer, version, limits)? else {
        return Ok(None);
    };
    let Frame { first, body } = frame;
    let packet = match first >> 4 {
        3 => Packet::Publish(Publish::read(first, body, version, limits)?),
        1 => Packet::Connect(Box::new(Connect::read(body, limits)?)),
        2 => Packet::ConnAck(Box::new(ConnAck::read(body, version, limits)?)),
        4 => Packet::PubAck(PubAck::read(body, version, limits)?),
        5 => Packet::PubRec(PubRec::read(body, version, limits)?),
        6 => Packet::PubRel(PubRel::read(body, version, limits)?),
        7 => Packet::PubComp(PubComp::read(body, version, limits)?),
        8 => Packet::Subscribe(Subscribe::read(body, version, limits)?),
        9 => Packet::SubAck(SubAck::read(body, version, limits)?),
        10 => Packet::Unsubscribe(Unsubscribe::read(body, version, limits)?),
        11 => Packet::UnsubAck(UnsubAck::read(body, version, limits)?),
        12 => body.finish().map(|()| Packet::PingReq)?,
        13 => body.finish().map(|()| Packet::PingResp)?,
        14 => Packet::Disconnect(Disconnect::read(body, version, limits)?),
        _ => Packet::Auth(Auth::read(body, limits)?),
    };
    Ok(Some(packet))
}

/// Takes the CONNECT that every connection begins with [MQTT-3.1.0-1] [MQTT311-3.1.0-1]; `None` until it is whole. Anything else is
/// refused at its first byte, before more of it is read.
///
/// # Errors
/// As [`decode`]; the error says in which version, if any, a CONNACK is understood.
pub fn decode_first(
    buffer: &mut BytesMut,
    limits: &Limits,
) -> Result<Option<Connect>, DecodeError> {
    match buffer.first() {
        None => return Ok(None),
        Some(first) if first >> 4 == 1 => {}
        Some(_) => return Err(DecodeError::protocol("the first packet is not CONNECT")),
    }
    Frame::take(buffer, Version::V5, limits)?
        .map(|frame| Connect::read(frame.body, limits))
        .transpose()
}

/// A packet cut out of the stream.
struct Frame {
    first: u8,
    body: Reader,
}

impl Frame {
    fn take(
        buffer: &mut BytesMut,
        version: Version,
        limits: &Limits,
    ) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = buffer.split_first() else {
            return Ok(None);
        };
        check_first(first, version)?;
        let Some((remaining, len)) = varint(rest)? else {
            return Ok(None);
        };
        // Said before the body is waited for, so that a large claim costs nothing [MQTT-3.2.2-15].
        let total = 1 + len + remaining as usize;
        if total > limits.packet_max_bytes as usize {
            return Err(DecodeError::new(
                ReasonCode::PacketTooLarge,
                format!(
                    "the packet has {total} bytes: at most {} are taken",
                    limits.packet_max_bytes
                ),
            ));
        }
        if matches!(first >> 4, 12 | 13) && remaining != 0 {
            return Err(DecodeError::malformed("PINGREQ and PINGRESP have no body"));
        }
        if buffer.len() < total {
            return Ok(None);
        }
        let mut frame = buffer.split_to(total).freeze();
        frame.advance(1 + len);
        Ok(Some(Self {
            first,
            body: Reader::new(frame),
        }))
    }
}

/// Packet type and its reserved flags (§2.1.2, §2.1.3) [MQTT-2.1.3-1, 3.14.1-1, 3.15.1-1]
/// [MQTT311-2.2.2-1, -2, 3.14.1-1].
fn check_first(first: u8, version: Version) -> Result<(), DecodeError> {
    let flags = first & 0x0f;
    let expected = match first >> 4 {
        0 => return Err(DecodeError::malformed("packet type 0 does not exist")),
        15 if version == Version::V311 => {
            return Err(DecodeError::malformed(
                "packet type 15 does not exist in MQTT 3.1.1",
            ));
        }
        3 => {
            // [MQTT-3.3.1-4] [MQTT311-3.3.1-4]
            let qos = Reader::qos((flags >> 1) & 0b11)?;
            if qos == Qos::AtMostOnce && flags & 0b1000 != 0 {
                // [MQTT-3.3.1-2] [MQTT311-3.3.1-2]
                return Err(DecodeError::malformed("DUP is set on a PUBLISH of QoS 0"));
            }
            return Ok(());
        }
        // [MQTT-3.6.1-1, 3.8.1-1, 3.10.1-1] [MQTT311-3.6.1-1, 3.8.1-1, 3.10.1-1]
        6 | 8 | 10 => 0b0010,
        _ => 0,
    };
    if flags == expected {
        Ok(())
    } else {
        Err(DecodeError::malformed(
            "the reserved flags of the packet are wrong",
        ))
    }
}
