use std::time::Duration;

use ca::CertificateId;
use fleet::{ThingName, Verdict};
use http::Method;
use serde::{Deserialize, Serialize};

use super::{moment, words};
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Passes on a verifier's word that a device has proven what it runs, or takes it back: policies ask for it by
/// `muster:Attested`.
pub(super) const OPERATION: Operation = Operation {
    name: "AttestDevice",
    method: Method::PUT,
    path: "/muster/v1/devices/{thingName}/attestation",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    attested: bool,
    /// The certificate whose key signed the evidence.
    certificate_id: Option<CertificateId>,
    /// When it ends, or after how long; else after the configured time.
    until: Option<String>,
    valid_seconds: Option<u64>,
    by: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    attested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<EpochSeconds>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let thing_name: ThingName = call.path("thingName")?;
    let body: Body = call.body()?;
    if !body.attested {
        let more = [
            ("certificateId", body.certificate_id.is_some()),
            ("until", body.until.is_some()),
            ("validSeconds", body.valid_seconds.is_some()),
            ("by", body.by.is_some()),
        ];
        if let Some((field, _)) = more.iter().find(|(_, given)| *given) {
            return Err(ApiError::invalid(format!(
                "{field}: what is taken back has none; leave it out where attested is false"
            )));
        }
        rooms
            .fleet
            .set_health(&thing_name, |health| health.attestation = None)?;
        return Answer::json(&Output {
            thing_name,
            attested: false,
            certificate_id: None,
            until: None,
        });
    }
    if let Some(by) = &body.by {
        words::check("by", by)?;
    }
    let verdict = Verdict {
        certificate: body.certificate_id,
        until: end(rooms, call, &body)?,
        by: body.by,
    };
    let attestation = rooms.fleet.attest(&thing_name, &verdict, call.now)?;
    Answer::json(&Output {
        thing_name,
        attested: true,
        certificate_id: attestation.certificates.first().copied(),
        until: Some(EpochSeconds(attestation.until)),
    })
}

/// When an attestation ends: none is for ever, because what a device runs today says little of next year.
fn end(rooms: &Rooms, call: &Call, body: &Body) -> Result<std::time::SystemTime, ApiError> {
    let terms = &rooms.attestation;
    let after = |field: &str, life: Duration| match call.now.checked_add(life) {
        Some(until) if life <= terms.longest => Ok(until),
        _ => Err(ApiError::invalid(format!(
            "{field}: an attestation ends after {} s at the latest (policy.attestation_max_seconds of the configuration); have the device attested again before",
            terms.longest.as_secs()
        ))),
    };
    match (&body.until, body.valid_seconds) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "until and validSeconds both say when it ends: leave one out",
        )),
        (Some(text), None) => {
            let until = moment::read("until", text)?;
            match until.duration_since(call.now) {
                Ok(life) if !life.is_zero() => after("until", life).map(|_| until),
                _ => Err(ApiError::invalid(format!(
                    "until: {text:?} is past by this server's clock"
                ))),
            }
        }
        (None, Some(0)) => Err(ApiError::invalid("validSeconds: at least 1")),
        (None, Some(seconds)) => after("validSeconds", Duration::from_secs(seconds)),
        (None, None) => after("validSeconds", terms.default),
    }
}
