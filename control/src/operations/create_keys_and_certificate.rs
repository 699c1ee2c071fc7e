use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CreateKeysAndCertificate",
    method: Method::POST,
    path: "/keys-and-certificate",
    least: Role::Operator,
    query: &["setAsActive"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    certificate_arn: String,
    certificate_id: String,
    certificate_pem: &'a str,
    key_pair: Keys<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Keys<'a> {
    public_key: String,
    private_key: &'a str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let active = call.flag("setAsActive")?;
    let (record, issued, pair) = rooms.fleet.create_keys_and_certificate(active, call.now)?;
    Answer::json(&Output {
        certificate_arn: call.arns(rooms).certificate(&record.id),
        certificate_id: record.id.to_string(),
        certificate_pem: &issued.pem,
        key_pair: Keys {
            public_key: pem::encode_config(
                &pem::Pem::new("PUBLIC KEY", pair.public().der()),
                pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
            ),
            private_key: &pair.to_pem(),
        },
    })
}
