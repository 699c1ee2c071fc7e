use std::time::SystemTime;

use fleet::{CertificateRecord, FleetError, LIST_LIMIT_ITEMS, Origin, Page};
use http::Method;
use serde::Serialize;

use super::creation;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::page::PageRequest;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListCertificates",
    method: Method::GET,
    path: "/certificates",
    least: Role::Viewer,
    query: &["pageSize", "marker", "isAscendingOrder"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    certificate_arn: String,
    certificate_id: String,
    status: &'static str,
    certificate_mode: &'static str,
    creation_date: EpochSeconds,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    certificates: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    if let Some((ascending, asked)) = creation::asked(call, "")? {
        let pages = |after: Option<&str>| {
            let page = rooms.fleet.certificates(after, LIST_LIMIT_ITEMS)?;
            without_claims(rooms, page)
        };
        let page = creation::page(ascending, &asked, pages, made)?;
        return answer(rooms, call, &asked, page);
    }
    let asked = call.page("")?;
    let page = rooms
        .fleet
        .certificates(asked.after.as_deref(), asked.limit)?;
    let page = without_claims(rooms, page)?;
    answer(rooms, call, &asked, page)
}

/// A claim is no certificate of the account's, as on AWS; `muster claim list` has them. The page is shorter then.
fn without_claims(
    rooms: &Rooms,
    mut page: Page<CertificateRecord>,
) -> Result<Page<CertificateRecord>, FleetError> {
    let mut devices = Vec::with_capacity(page.items.len());
    for record in page.items {
        if !rooms.fleet.is_claim(&record.id)? {
            devices.push(record);
        }
    }
    page.items = devices;
    Ok(page)
}

/// When a certificate came, and what tells it from others.
pub(super) fn made(record: &CertificateRecord) -> (SystemTime, String) {
    (record.created, record.id.to_string())
}

/// How a certificate came to be known.
pub(super) fn mode(origin: &Origin) -> &'static str {
    match origin {
        Origin::Own | Origin::Authority(_) => "DEFAULT",
        Origin::Alone => "SNI_ONLY",
    }
}

/// A page of certificates as both lists show them.
pub(super) fn answer(
    rooms: &Rooms,
    call: &Call,
    asked: &PageRequest,
    page: Page<CertificateRecord>,
) -> Result<Answer, ApiError> {
    let arns = call.arns(rooms);
    let certificates = page.items.into_iter().map(|record| Item {
        certificate_arn: arns.certificate(&record.id),
        certificate_id: record.id.to_string(),
        status: record.status.as_str(),
        certificate_mode: mode(&record.origin),
        creation_date: EpochSeconds(record.created),
    });
    Answer::json(&Output {
        certificates: certificates.collect(),
        next_marker: asked.token(page.next),
    })
}
