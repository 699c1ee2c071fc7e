//! What a device is given when it gets a certificate: all it needs to connect.

use fleet::Enrolled;
use serde::Serialize;

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
    firmware_root: Option<serde_json::Value>,
    mqtt_host: &'a str,
    mqtt_port: u16,
}

pub(super) fn answer(rooms: &Rooms, call: &Call, enrolled: &Enrolled) -> Result<Answer, ApiError> {
    let private_key = enrolled.key.as_ref().map(ca::KeyPair::to_pem);
    let id = enrolled.certificate.id;
    Answer::json(&Output {
        thing_name: enrolled.thing.to_string(),
        certificate_id: id.to_string(),
        certificate_arn: call.arns(rooms).certificate(&id),
        certificate_pem: &enrolled.issued.chain_pem,
        private_key: private_key.as_deref().map(String::as_str),
        root_pem: rooms.authority.root_pem(),
        firmware_root: None,
        mqtt_host: &rooms.endpoints.mqtt.host,
        mqtt_port: rooms.endpoints.mqtt.port,
    })
}
