//! The client's side of the wire, for MQTT 3.1.1 and 5.0: what a client sends and what a server
//! does. Written from the standards, apart from the broker's codec.

use std::fmt;

/// Protocol level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// A message as it travels.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) packet_id: u16,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) alias: Option<u16>,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) user: Vec<(String, String)>,
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.payload);
        let number = text.split(' ').next().unwrap_or_default();
        let Self {
            topic,
            qos,
            packet_id,
            ..
        } = self;
        write!(f, "#{number} {topic:?} QoS {qos} id {packet_id}")?;
        for (is, word) in [(self.dup, " dup"), (self.retain, " retain")] {
            f.write_str(if is { word } else { "" })?;
        }
        if let Some(alias) = self.alias {
            write!(f, " alias {alias}")?;
        }
        if let Some(expiry_s) = self.expiry_s {
            write!(f, " expiry {expiry_s}")?;
        }
        if !self.subscription_ids.is_empty() {
            write!(f, " for {:?}", self.subscription_ids)?;
        }
        Ok(())
    }
}

/// A will in a CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) delay_s: u32,
    pub(crate) expiry_s: Option<u32>,
}

/// A CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
    /// Version 5.
    pub(crate) expiry_s: u32,
    pub(crate) receive_max: u16,
    pub(crate) alias_max: u16,
    pub(crate) packet_max: Option<u32>,
    pub(crate) will: Option<Will>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: u8,
}

/// Which acknowledgement, by packet type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    Pub = 4,
    Rec = 5,
    Rel = 6,
    Comp = 7,
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    ConnAck {
        present: bool,
        code: u8,
        receive_max: u16,
        alias_max: u16,
        keep_alive_s: Option<u16>,
        expiry_s: Option<u32>,
    },
    Publish(Publish),
    Ack(Ack, u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16),
    PingResp,
    Disconnect(u8),
}

/// What a server sent that no server may.
#[derive(Debug)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        out.push(if value > 0 { byte | 128 } else { byte });
        if value == 0 {
            return;
        }
    }
}

fn short(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    short(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

fn properties(body: &mut Vec<u8>, version: Version, properties: &[u8]) {
    if version == Version::V5 {
        varint(body, properties.len());
        body.extend_from_slice(properties);
    }
}

impl Connect {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let v5 = self.version == Version::V5;
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(if v5 { 5 } else { 4 });
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        body.push(flags);
        short(&mut body, self.keep_alive_s);
        let mut props = Vec::new();
        props.push(17);
        props.extend_from_slice(&self.expiry_s.to_be_bytes());
        props.push(33);
        short(&mut props, self.receive_max);
        props.push(34);
        short(&mut props, self.alias_max);
        if let Some(max) = self.packet_max {
            props.push(39);
            props.extend_from_slice(&max.to_be_bytes());
        }
        properties(&mut body, self.version, &props);
        text(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            let mut props = vec![24];
            props.extend_from_slice(&will.delay_s.to_be_bytes());
            if let Some(expiry_s) = will.expiry_s {
                props.push(2);
                props.extend_from_slice(&expiry_s.to_be_bytes());
            }
            properties(&mut body, self.version, &props);
            text(&mut body, will.topic.as_bytes());
            text(&mut body, &will.payload);
        }
        packet(0x10, &body)
    }
}

impl Publish {
    pub(crate) fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            short(&mut body, self.packet_id);
        }
        let mut props = Vec::new();
        if let Some(expiry_s) = self.expiry_s {
            props.push(2);
            props.extend_from_slice(&expiry_s.to_be_bytes());
        }
        if let Some(alias) = self.alias {
            props.push(35);
            short(&mut props, alias);
        }
        for (name, value) in &self.user {
            props.push(38);
            text(&mut props, name.as_bytes());
            text(&mut props, value.as_bytes());
        }
        properties(&mut body, version, &props);
        body.extend_from_slice(&self.payload);
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        packet(0x30 | flags, &body)
    }
}

pub(crate) fn subscribe(
    version: Version,
    packet_id: u16,
    id: Option<u32>,
    filters: &[Filter],
) -> Vec<u8> {
    let mut body = Vec::new();
    short(&mut body, packet_id);
    let mut props = Vec::new();
    if let Some(id) = id {
        props.push(11);
        varint(&mut props, id as usize);
    }
    properties(&mut body, version, &props);
    for filter in filters {
        text(&mut body, filter.filter.as_bytes());
        body.push(match version {
            Version::V311 => filter.qos,
            Version::V5 => {
                filter.qos
                    | u8::from(filter.no_local) << 2
                    | u8::from(filter.retain_as_published) << 3
                    | filter.retain_handling << 4
            }
        });
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(version: Version, packet_id: u16, filter: &str) -> Vec<u8> {
    let mut body = Vec::new();
    short(&mut body, packet_id);
    properties(&mut body, version, &[]);
    text(&mut body, filter.as_bytes());
    packet(0xA2, &body)
}

pub(crate) fn ack(kind: Ack, packet_id: u16) -> Vec<u8> {
    let flags = if kind == Ack::Rel { 2 } else { 0 };
    packet((kind as u8) << 4 | flags, &packet_id.to_be_bytes())
}

pub(crate) fn ping() -> Vec<u8> {
    vec![0xC0, 0]
}

pub(crate) fn disconnect(version: Version, reason: u8) -> Vec<u8> {
    match (version, reason) {
        (Version::V5, 1..) => vec![0xE0, 1, reason],
        _ => vec![0xE0, 0],
    }
}

/// What is left to read of a packet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u32, Malformed> {
        let bytes = self.take(bytes)?;
        Ok(bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.number(1)? as u8)
    }

    fn short(&mut self) -> Result<u16, Malformed> {
        Ok(self.number(2)? as u16)
    }

    fn varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = u32::from(self.byte()?);
            value |= (byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(Malformed("a length of five bytes"))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.short()?;
        let bytes = self.take(length.into())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// All properties that a server sends.
    fn properties(&mut self, version: Version) -> Result<Properties, Malformed> {
        let mut found = Properties::default();
        if version == Version::V311 {
            return Ok(found);
        }
        let length = self.varint()?;
        let mut rest = Rest(self.take(length as usize)?);
        while !rest.0.is_empty() {
            match rest.byte()? {
                1 | 36 | 37 | 40 | 41 | 42 => drop(rest.byte()?),
                2 => found.message_expiry_s = Some(rest.number(4)?),
                11 => found.subscription_ids.push(rest.varint()?),
                17 => found.session_expiry_s = Some(rest.number(4)?),
                19 => found.keep_alive_s = Some(rest.short()?),
                33 => found.receive_max = Some(rest.short()?),
                34 => found.alias_max = Some(rest.short()?),
                35 => found.alias = Some(rest.short()?),
                38 => found.user.push((rest.text()?, rest.text()?)),
                39 => drop(rest.number(4)?),
                3 | 8 | 18 | 26 | 28 | 31 => drop(rest.text()?),
                9 => {
                    let length = rest.short()?;
                    rest.take(length.into())?;
                }
                _ => return Err(Malformed("an unknown property")),
            }
        }
        Ok(found)
    }
}

#[derive(Default)]
struct Properties {
    message_expiry_s: Option<u32>,
    session_expiry_s: Option<u32>,
    keep_alive_s: Option<u16>,
    receive_max: Option<u16>,
    alias_max: Option<u16>,
    alias: Option<u16>,
    subscription_ids: Vec<u32>,
    user: Vec<(String, String)>,
}

/// The first packet in `bytes` and its length; `None` where it is not whole.
pub(crate) fn decode(version: Version, bytes: &[u8]) -> Result<Option<(Packet, usize)>, Malformed> {
    let mut rest = Rest(bytes);
    let (Ok(first), Ok(length)) = (rest.byte(), rest.varint()) else {
        return if bytes.len() < 5 {
            Ok(None)
        } else {
            Err(Malformed("a length of five bytes"))
        };
    };
    let header = bytes.len() - rest.0.len();
    let Ok(body) = rest.take(length as usize) else {
        return Ok(None);
    };
    let mut rest = Rest(body);
    let kind = first >> 4;
    let found = match kind {
        2 => {
            let present = rest.byte()? & 1 == 1;
            let code = rest.byte()?;
            let props = rest.properties(version)?;
            Packet::ConnAck {
                present,
                code,
                receive_max: props.receive_max.unwrap_or(65_535),
                alias_max: props.alias_max.unwrap_or(0),
                keep_alive_s: props.keep_alive_s,
                expiry_s: props.session_expiry_s,
            }
        }
        3 => {
            let qos = first >> 1 & 3;
            let topic = rest.text()?;
            let packet_id = if qos > 0 { rest.short()? } else { 0 };
            let props = rest.properties(version)?;
            Packet::Publish(Publish {
                topic,
                payload: rest.0.to_vec(),
                qos,
                retain: first & 1 == 1,
                dup: first & 8 == 8,
                packet_id,
                expiry_s: props.message_expiry_s,
                alias: props.alias,
                subscription_ids: props.subscription_ids,
                user: props.user,
            })
        }
        4..=7 => {
            let kind = match kind {
                4 => Ack::Pub,
                5 => Ack::Rec,
                6 => Ack::Rel,
                _ => Ack::Comp,
            };
            let packet_id = rest.short()?;
            let reason = rest.byte().unwrap_or(0);
            Packet::Ack(kind, packet_id, reason)
        }
        9 => {
            let packet_id = rest.short()?;
            rest.properties(version)?;
            Packet::SubAck(packet_id, rest.0.to_vec())
        }
        11 => Packet::UnsubAck(rest.short()?),
        13 => Packet::PingResp,
        14 => Packet::Disconnect(rest.byte().unwrap_or(0)),
        _ => return Err(Malformed("a packet no server sends")),
    };
    Ok(Some((found, header + body.len())))
}
