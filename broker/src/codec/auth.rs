use bytes_utils::Str;

use super::property::{self, id, put_data, put_string};
use super::reader::Reader;
use super::{DecodeError, Limits, ReasonCode, Secret, UserProperties, Version, writer};

/// Authentication Method with its data (§4.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Authentication Method.
    pub method: Str,
    /// Authentication Data.
    pub data: Option<Secret>,
}

/// AUTH (§3.15), MQTT 5 only.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// Success, continue or re-authenticate.
    pub reason: ReasonCode,
    /// Method and data; may be left out only with success.
    pub authentication: Option<Authentication>,
    /// Reason String.
    pub reason_string: Option<Str>,
    /// User properties.
    pub user: UserProperties,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Authentication {
    /// §3.1.2.11.10: data without a method is a protocol error.
    pub(super) fn of(method: Option<Str>, data: Option<Secret>) -> Result<Option<Self>> {
        match (method, data) {
            (Some(method), data) => Ok(Some(Self { method, data })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(DecodeError::protocol(
                "authentication data comes without a method",
            )),
        }
    }

    pub(super) fn put(authentication: Option<&Self>, out: &mut Vec<u8>) {
        if let Some(Self { method, data }) = authentication {
            put_string(out, id::AUTHENTICATION_METHOD, Some(method));
            put_data(
                out,
                id::AUTHENTICATION_DATA,
                data.as_ref().map(|Secret(data)| &data[..]),
            );
        }
    }
}

impl Auth {
    pub(super) fn read(mut body: Reader, limits: &Limits) -> Result<Self> {
        let mut auth = Self {
            reason: ReasonCode::Success,
            authentication: None,
            reason_string: None,
            user: UserProperties::new(),
        };
        // §3.15.2.1: a body of 0 bytes is success without properties.
        if body.is_empty() {
            return Ok(auth);
        }
        // [MQTT-3.15.2-1]
        auth.reason = body.reason(&[
            ReasonCode::Success,
            ReasonCode::ContinueAuthentication,
            ReasonCode::Reauthenticate,
        ])?;
        let (mut method, mut data) = (None, None);
        property::read(&mut body, limits, &mut auth.user, |id, reader| match id {
            id::AUTHENTICATION_METHOD => property::set(&mut method, reader.string()?),
            id::AUTHENTICATION_DATA => property::set(&mut data, reader.secret()?),
            id::REASON_STRING => property::set(&mut auth.reason_string, reader.string()?),
            _ => Ok(false),
        })?;
        auth.authentication = Authentication::of(method, data)?;
        body.finish()?;
        Ok(auth)
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::packet(out, 0xf0, |out| {
            out.push(self.reason as u8);
            writer::properties(out, Version::V5, |out| {
                Authentication::put(self.authentication.as_ref(), out);
                writer::reason_properties(out, self.reason_string.as_ref(), &self.user);
            });
        });
    }
}
