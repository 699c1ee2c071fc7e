//! What a device is given when it gets a certificate: all it needs to connect.

use fleet::Enrolled;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::rooms::Rooms;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    thing_name: String,
    certificate_id: String,
    certificate_arn: String,
    /// The certificate and the issuing one.
    certificate_pem: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<&'a str>,
    root_pem: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware_root: Option<Box<RawValue>>,
    mqtt_host: &'a str,
    mqtt_port: u16,
}

pub(super) fn answer(rooms: &Rooms, call: &Call, enrolled: &Enrolled) -> Result<Answer, ApiError> {
    let private_key = enrolled.key.as_ref().map(ca::KeyPair::to_pem);
    // Where release keys are trusted already, the device trusts them from its first day.
    let firmware_root = match rooms.ota.newest_root()? {
        None => None,
        Some((json, _)) => {
            Some(RawValue::from_string(json).map_err(|error| ApiError::internal(&error))?)
        }
    };
    let id = enrolled.certificate.id;
    Answer::json(&Output {
        thing_name: enrolled.thing.to_string(),
        certificate_id: id.to_string(),
        certificate_arn: call.arns(rooms).certificate(&id),
        certificate_pem: &enrolled.issued.chain_pem,
        private_key: private_key.as_deref().map(String::as_str),
        root_pem: rooms.authority.trust_pem(),
        firmware_root,
        mqtt_host: &rooms.endpoints.mqtt.host,
        mqtt_port: rooms.endpoints.mqtt.port,
    })
}
