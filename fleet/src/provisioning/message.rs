//! What devices and the server say to each other: topics, JSON and CBOR, refusals as AWS IoT writes them.

use super::{PendingCertificate, Registered, TemplateName};
use crate::FleetError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Deepest nesting of a request that is read.
const DEPTH_LIMIT_LEVELS: usize = 16;

/// How a payload is written; the last part of a request's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Cbor,
}

/// What a topic asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    CreateKeysAndCertificate,
    CreateCertificateFromCsr,
    RegisterThing(TemplateName),
}

/// A request that was refused, as AWS IoT's `rejected` topics say it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejection {
    /// As in HTTP.
    pub status: u16,
    /// AWS's word.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Rejection {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Rejection {
            status,
            code,
            message: message.into(),
        }
    }

    pub(crate) fn denied(message: &str) -> Self {
        Self::new(403, "AccessDenied", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidParameters", message)
    }
}

impl From<FleetError> for Rejection {
    fn from(error: FleetError) -> Self {
        let message = error.to_string();
        match error {
            FleetError::NotFound { .. } => Self::new(404, "ResourceNotFound", message),
            FleetError::AlreadyExists { .. }
            | FleetError::VersionConflict { .. }
            | FleetError::DeleteConflict { .. }
            | FleetError::InvariantBroken { .. }
            | FleetError::CertificateState { .. } => Self::new(409, "ResourceConflict", message),
            FleetError::Limit { .. } => Self::new(429, "LimitExceeded", message),
            FleetError::Name(_)
            | FleetError::Invalid(_)
            | FleetError::Template(_)
            | FleetError::Csr(_)
            | FleetError::Password
            | FleetError::Key(_)
            | FleetError::Foreign(_)
            | FleetError::Query(_)
            | FleetError::Authority(
                ca::CaError::AuthorityKey { .. } | ca::CaError::BlockedKey { .. },
            )
            | FleetError::MalformedPolicy(_) => Self::invalid(message),
            FleetError::Authority(_) | FleetError::Thread(_) | FleetError::Store(_) => {
                tracing::error!(%message, "a provisioning request failed within the server");
                Self::new(
                    500,
                    "InternalFailure",
                    "the server could not do this; its log says why",
                )
            }
        }
    }
}

/// Reads a topic; `None` for one that is no request of provisioning.
pub(super) fn read_topic(topic: &str) -> Option<(Operation, Format)> {
    let (request, format) = topic.rsplit_once('/')?;
    let format = match format {
        "json" => Format::Json,
        "cbor" => Format::Cbor,
        _ => return None,
    };
    let operation = match request {
        "$aws/certificates/create" => Operation::CreateKeysAndCertificate,
        "$aws/certificates/create-from-csr" => Operation::CreateCertificateFromCsr,
        other => {
            let name = other.strip_prefix("$aws/provisioning-templates/")?;
            Operation::RegisterThing(name.strip_suffix("/provision")?.parse().ok()?)
        }
    };
    Some((operation, format))
}

impl Format {
    /// Reads a payload; an empty one is an empty object.
    pub(super) fn read(self, payload: &[u8]) -> Result<Value, Rejection> {
        if payload.is_empty() {
            return Ok(json!({}));
        }
        match self {
            Format::Json => serde_json::from_slice(payload)
                .map_err(|error| Rejection::new(400, "InvalidJson", error.to_string())),
            Format::Cbor => {
                let bad = |error: String| Rejection::new(400, "InvalidCbor", error);
                let mut rest = payload;
                let value =
                    ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_LIMIT_LEVELS)
                        .map_err(|error: ciborium::de::Error<_>| bad(error.to_string()))?;
                match rest.is_empty() {
                    true => Ok(value),
                    false => Err(bad(format!("{} bytes behind the end", rest.len()))),
                }
            }
        }
    }

    /// Writes an answer.
    pub(super) fn write(self, value: &Value) -> Vec<u8> {
        match self {
            Format::Json => value.to_string().into_bytes(),
            Format::Cbor => {
                let mut bytes = Vec::new();
                // Into memory, and of a value that is JSON: there is nothing that could fail.
                if let Err(error) = ciborium::into_writer(value, &mut bytes) {
                    tracing::error!(%error, "an answer could not be written as CBOR");
                }
                bytes
            }
        }
    }
}

/// CreateCertificateFromCsr.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CsrRequest {
    pub(super) certificate_signing_request: String,
}

/// RegisterThing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegisterRequest {
    pub(super) certificate_ownership_token: String,
    #[serde(default)]
    pub(super) parameters: Option<BTreeMap<String, String>>,
}

/// Reads the fields of a request.
pub(super) fn fields<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Rejection> {
    // By their names: an array would be read by position.
    if !value.is_object() {
        return Err(Rejection::invalid(
            "the request is an object, with its fields by name",
        ));
    }
    serde_json::from_value(value).map_err(|error| Rejection::invalid(error.to_string()))
}

pub(super) fn created(made: &PendingCertificate) -> Value {
    let mut answer = json!({
        "certificateId": made.issued.id.to_string(),
        "certificatePem": made.issued.pem,
        "certificateOwnershipToken": made.token,
    });
    if let (Some(key), Some(fields)) = (&made.key, answer.as_object_mut()) {
        fields.insert("privateKey".to_owned(), key.to_pem().as_str().into());
    }
    answer
}

pub(super) fn registered(done: &Registered) -> Value {
    json!({
        "thingName": done.thing.as_str(),
        "deviceConfiguration": done.configuration,
    })
}

pub(super) fn rejected(rejection: &Rejection) -> Value {
    json!({
        "statusCode": rejection.status,
        "errorCode": rejection.code,
        "errorMessage": rejection.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topics() {
        let t = |topic: &str| read_topic(topic);
        assert_eq!(
            t("$aws/certificates/create/json"),
            Some((Operation::CreateKeysAndCertificate, Format::Json))
        );
        assert_eq!(
            t("$aws/certificates/create-from-csr/cbor"),
            Some((Operation::CreateCertificateFromCsr, Format::Cbor))
        );
        let lamps = Operation::RegisterThing("lamps".parse().unwrap());
        assert_eq!(
            t("$aws/provisioning-templates/lamps/provision/json"),
            Some((lamps, Format::Json))
        );
        for other in [
            "$aws/certificates/create",
            "$aws/certificates/create/xml",
            "$aws/certificates/create/json/accepted",
            "$aws/provisioning-templates//provision/json",
            "$aws/provisioning-templates/a/b/provision/json",
            "$aws/provisioning-templates/+/provision/json",
            "$aws/provisioning-templates/a/json",
        ] {
            assert_eq!(t(other), None, "{other}");
        }
    }

    #[test]
    fn cbor_says_what_json_says() {
        let value = json!({"statusCode": 400, "a": {"b": ["c", true, null]}, "d": -1});
        for format in [Format::Json, Format::Cbor] {
            assert_eq!(format.read(&format.write(&value)).unwrap(), value);
            assert_eq!(format.read(b"").unwrap(), json!({}));
        }
        let mut long = Format::Cbor.write(&value);
        long.push(0);
        assert_eq!(Format::Cbor.read(&long).unwrap_err().code, "InvalidCbor");
        // A byte string is no text.
        assert_eq!(
            Format::Cbor.read(&[0x41, 0x00]).unwrap_err().code,
            "InvalidCbor"
        );
        let nested = [0x81_u8; 100];
        assert_eq!(Format::Cbor.read(&nested).unwrap_err().code, "InvalidCbor");
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [Format::Json, Format::Cbor] {
                if let Ok(value) = format.read(&payload) {
                    let _ = fields::<RegisterRequest>(value);
                }
            }
        }
    }
}
