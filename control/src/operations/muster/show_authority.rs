use ca::{CertificateFacts, IssuerNumber};
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// What the authority trusts, what it signs with, and until when.
pub(super) const OPERATION: Operation = Operation {
    name: "ShowAuthority",
    method: Method::GET,
    path: "/muster/v1/authority",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    root: Certificate,
    /// Whether the root's key is with the server.
    root_key: &'static str,
    root_pem: String,
    /// Oldest first; the last signs.
    issuing: Vec<Issuing>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issuing {
    number: IssuerNumber,
    current: bool,
    #[serde(flatten)]
    certificate: Certificate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    certificate_id: String,
    name: String,
    not_before: EpochSeconds,
    not_after: EpochSeconds,
}

impl Certificate {
    fn of(der: &[u8]) -> Result<Self, ApiError> {
        let facts = CertificateFacts::read(der)?;
        Ok(Self {
            certificate_id: facts.id.to_string(),
            name: facts.subject_common_names.join(", "),
            not_before: EpochSeconds(facts.not_before),
            not_after: EpochSeconds(facts.not_after),
        })
    }
}

fn run(rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    let authority = &rooms.authority;
    let numbers = authority.issuers();
    let mut issuing = Vec::with_capacity(numbers.len());
    for number in &numbers {
        if let Some(der) = authority.issuing_der_of(*number) {
            issuing.push(Issuing {
                number: *number,
                current: numbers.last() == Some(number),
                certificate: Certificate::of(&der)?,
            });
        }
    }
    Answer::json(&Output {
        root: Certificate::of(&authority.root_der())?,
        root_key: if authority.has_root_key()? {
            "present"
        } else {
            "offline"
        },
        root_pem: authority.root_pem(),
        issuing,
    })
}
