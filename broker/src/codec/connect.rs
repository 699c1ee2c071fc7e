use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use bytes_utils::Str;

use super::property::{self, id, put_seconds, put_user};
use super::reader::Reader;
use super::writer::{self, put_binary, put_u16};
use super::{
    Authentication, DecodeError, Limits, MessageProperties, Qos, ReasonCode, UserProperties,
    Version,
};
use crate::topic::{ClientId, TopicName};

/// Session Expiry Interval of a session that never expires (§3.1.2.11.2).
pub const SESSION_NEVER_EXPIRES: u32 = u32::MAX;

/// A password or authentication data; `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// CONNECT (§3.1). Both versions are told in the words of MQTT 5: Clean Session 0 of 3.1.1 is a session that is resumed
/// and never expires, Clean Session 1 one that starts clean and ends with the connection (MQTT 5 §3.1.2.11.2).
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// What the client speaks.
    pub version: Version,
    /// Clean Start; Clean Session in 3.1.1.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// `None` where the client sent an empty one.
    pub client_id: Option<ClientId>,
    /// The will.
    pub will: Option<Will>,
    /// User name.
    pub user_name: Option<Str>,
    /// Password.
    pub password: Option<Secret>,
    /// Session Expiry Interval in seconds; [`SESSION_NEVER_EXPIRES`].
    pub session_expiry_s: u32,
    /// Receive Maximum in messages; 65,535 when absent, always in 3.1.1.
    pub receive_max: NonZeroU16,
    /// Maximum Packet Size in bytes; `None` is no limit.
    pub packet_max_bytes: Option<NonZeroU32>,
    /// Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Request Response Information.
    pub request_response_information: bool,
    /// Request Problem Information; true when absent.
    pub request_problem_information: bool,
    /// Authentication Method and Data.
    pub authentication: Option<Authentication>,
    /// User properties.
    pub user: UserProperties,
}

/// The will of a CONNECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Will {
    /// Will Topic.
    pub topic: TopicName,
    /// Will Payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds, counted from publication.
    pub expiry_s: Option<u32>,
    /// What is forwarded unchanged.
    pub properties: Option<Box<MessageProperties>>,
}

type Result<T> = std::result::Result<T, DecodeError>;

mod flag {
    pub(super) const RESERVED: u8 = 0x01;
    pub(super) const CLEAN_START: u8 = 0x02;
    pub(super) const WILL: u8 = 0x04;
    pub(super) const WILL_QOS: u8 = 0x18;
    pub(super) const WILL_RETAIN: u8 = 0x20;
    pub(super) const PASSWORD: u8 = 0x40;
    pub(super) const USER_NAME: u8 = 0x80;
}

impl Connect {
    /// What a client says that wishes for nothing in particular.
    #[must_use]
    pub fn new(version: Version, client_id: Option<ClientId>) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            session_expiry_s: 0,
            receive_max: NonZeroU16::MAX,
            packet_max_bytes: None,
            topic_alias_max: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication: None,
            user: UserProperties::new(),
        }
    }

    /// [MQTT-3.1.4-1] [MQTT311-3.1.4-1]: what is malformed has no return code in 3.1.1, so nothing is answered there.
    pub(super) fn read(mut body: Reader, limits: &Limits) -> Result<Self> {
        let version = read_version(&mut body)?;
        Self::read_for(version, body, limits).map_err(|error| error.answered_in(version))
    }

    fn read_for(version: Version, mut body: Reader, limits: &Limits) -> Result<Self> {
        let flags = body.u8()?;
        check_flags(version, flags)?;
        let mut connect = Self::new(version, None);
        connect.clean_start = flags & flag::CLEAN_START != 0;
        connect.keep_alive_s = body.u16()?;
        match version {
            Version::V5 => connect.read_properties(&mut body, limits)?,
            // MQTT 5 §3.1.2.11.2: Clean Session 0 is a session that does not expire.
            Version::V311 if !connect.clean_start => {
                connect.session_expiry_s = SESSION_NEVER_EXPIRES
            }
            Version::V311 => {}
        }
        // [MQTT-3.1.3-1, -3, -4] [MQTT311-3.1.3-1, -3, -4]
        let client_id = body.string()?;
        if !client_id.is_empty() {
            let parsed = client_id.parse().map_err(|error| {
                let text = format!("the client identifier is invalid: {error}");
                DecodeError::new(ReasonCode::ClientIdentifierNotValid, text)
            });
            connect.client_id = Some(parsed?);
        }
        // [MQTT-3.1.2-9] [MQTT311-3.1.2-9, -11]
        if flags & flag::WILL != 0 {
            connect.will = Some(Will::read(&mut body, version, flags, limits)?);
        }
        // [MQTT-3.1.2-16, -17, 3.1.3-12] [MQTT311-3.1.2-18, -19, 3.1.3-11]
        if flags & flag::USER_NAME != 0 {
            connect.user_name = Some(body.string()?);
        }
        // [MQTT-3.1.2-18, -19] [MQTT311-3.1.2-20, -21]
        if flags & flag::PASSWORD != 0 {
            connect.password = Some(body.secret()?);
        }
        body.finish()?;
        Ok(connect)
    }

    fn read_properties(&mut self, body: &mut Reader, limits: &Limits) -> Result<()> {
        let (mut method, mut data) = (None, None);
        property::read(body, limits, &mut self.user, |id, reader| {
            match id {
                id::SESSION_EXPIRY => self.session_expiry_s = reader.u32()?,
                id::RECEIVE_MAXIMUM => {
                    self.receive_max = property::not_zero(NonZeroU16::new(reader.u16()?))?
                }
                id::MAXIMUM_PACKET_SIZE => {
                    self.packet_max_bytes =
                        Some(property::not_zero(NonZeroU32::new(reader.u32()?))?);
                }
                id::TOPIC_ALIAS_MAXIMUM => self.topic_alias_max = reader.u16()?,
                id::REQUEST_RESPONSE_INFORMATION => {
                    self.request_response_information = property::flag(reader)?
                }
                id::REQUEST_PROBLEM_INFORMATION => {
                    self.request_problem_information = property::flag(reader)?
                }
                id::AUTHENTICATION_METHOD => method = Some(reader.string()?),
                id::AUTHENTICATION_DATA => data = Some(reader.secret()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        self.authentication = Authentication::of(method, data)?;
        Ok(())
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::packet(out, 0x10, |out| {
            put_binary(out, b"MQTT");
            out.push(if self.version == Version::V5 { 5 } else { 4 });
            out.push(self.flags());
            put_u16(out, self.keep_alive_s);
            writer::properties(out, self.version, |out| self.put_properties(out));
            put_binary(
                out,
                self.client_id
                    .as_ref()
                    .map_or("", ClientId::as_str)
                    .as_bytes(),
            );
            if let Some(will) = &self.will {
                will.put(out, self.version);
            }
            if let Some(user_name) = &self.user_name {
                put_binary(out, user_name.as_bytes());
            }
            if let Some(Secret(password)) = &self.password {
                put_binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let bit = |on: bool, flag: u8| if on { flag } else { 0 };
        let will = self.will.as_ref().map_or(0, |will| {
            flag::WILL | (will.qos as u8) << 3 | bit(will.retain, flag::WILL_RETAIN)
        });
        will | bit(self.clean_start, flag::CLEAN_START)
            | bit(self.user_name.is_some(), flag::USER_NAME)
            | bit(self.password.is_some(), flag::PASSWORD)
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        put_seconds(
            out,
            id::SESSION_EXPIRY,
            Some(self.session_expiry_s).filter(|seconds| *seconds != 0),
        );
        if self.receive_max != NonZeroU16::MAX {
            out.push(id::RECEIVE_MAXIMUM);
            put_u16(out, self.receive_max.get());
        }
        put_seconds(
            out,
            id::MAXIMUM_PACKET_SIZE,
            self.packet_max_bytes.map(NonZeroU32::get),
        );
        if self.topic_alias_max != 0 {
            out.push(id::TOPIC_ALIAS_MAXIMUM);
            put_u16(out, self.topic_alias_max);
        }
        if self.request_response_information {
            out.extend([id::REQUEST_RESPONSE_INFORMATION, 1]);
        }
        if !self.request_problem_information {
            out.extend([id::REQUEST_PROBLEM_INFORMATION, 0]);
        }
        Authentication::put(self.authentication.as_ref(), out);
        put_user(out, &self.user);
    }
}

/// Protocol name and level. What another version would say has its own error, so that it is told which one to speak.
fn read_version(body: &mut Reader) -> Result<Version> {
    let unsupported = |text, version| {
        Err(DecodeError::new(ReasonCode::UnsupportedProtocolVersion, text).answered_in(version))
    };
    let name = body.string()?;
    let level = body.u8()?;
    match (name.as_bytes(), level) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        // [MQTT311-3.1.2-2]: return code 1, which every older client understands.
        (b"MQIsdp", _) | (b"MQTT", 0..=3) => {
            unsupported("MQTT 3.1 is not served: use 3.1.1 or 5.0", Version::V311)
        }
        // [MQTT-3.1.2-2]
        (b"MQTT", _) => unsupported(
            "this protocol version is not served: use 3.1.1 or 5.0",
            Version::V5,
        ),
        // [MQTT-3.1.2-1] [MQTT311-3.1.2-1]: not MQTT at all, so nothing is answered.
        _ => Err(DecodeError::new(
            ReasonCode::UnsupportedProtocolVersion,
            "the protocol name is not `MQTT`",
        )),
    }
}

fn check_flags(version: Version, flags: u8) -> Result<()> {
    if flags & flag::RESERVED != 0 {
        return Err(DecodeError::malformed("the reserved CONNECT flag is set")); // [MQTT-3.1.2-3] [MQTT311-3.1.2-3]
    }
    if flags & flag::WILL_QOS == flag::WILL_QOS {
        return Err(DecodeError::malformed("the will's QoS is 3: use 0, 1 or 2")); // [MQTT-3.1.2-12] [MQTT311-3.1.2-14]
    }
    if flags & flag::WILL == 0 && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        // [MQTT-3.1.2-11, -13] [MQTT311-3.1.2-11, -13, -15]
        return Err(DecodeError::malformed(
            "will QoS or will retain is set without a will",
        ));
    }
    if version == Version::V311 && flags & flag::PASSWORD != 0 && flags & flag::USER_NAME == 0 {
        // [MQTT311-3.1.2-22]
        return Err(DecodeError::malformed(
            "a password without a user name is not allowed in MQTT 3.1.1",
        ));
    }
    Ok(())
}

impl Will {
    fn read(body: &mut Reader, version: Version, flags: u8, limits: &Limits) -> Result<Self> {
        let (mut delay_s, mut expiry_s) = (0, None);
        let mut properties = MessageProperties::default();
        if version == Version::V5 {
            let mut user = UserProperties::new();
            property::read(body, limits, &mut user, |id, reader| match id {
                id::WILL_DELAY => {
                    delay_s = reader.u32()?;
                    Ok(true)
                }
                id::MESSAGE_EXPIRY => property::set(&mut expiry_s, reader.u32()?),
                _ => properties.take(id, reader),
            })?;
            properties.user = user; // [MQTT-3.1.3-10]
        }
        Ok(Self {
            // [MQTT-3.1.3-11] [MQTT311-3.1.3-10]
            topic: body.topic_name()?,
            payload: body.binary()?,
            qos: Reader::qos((flags & flag::WILL_QOS) >> 3)?,
            retain: flags & flag::WILL_RETAIN != 0,
            delay_s,
            expiry_s,
            properties: properties.boxed(),
        })
    }

    fn put(&self, out: &mut Vec<u8>, version: Version) {
        writer::properties(out, version, |out| {
            put_seconds(
                out,
                id::WILL_DELAY,
                Some(self.delay_s).filter(|seconds| *seconds != 0),
            );
            put_seconds(out, id::MESSAGE_EXPIRY, self.expiry_s);
            if let Some(properties) = &self.properties {
                properties.put(out);
            }
        });
        put_binary(out, self.topic.as_str().as_bytes());
        put_binary(out, &self.payload);
    }
}
