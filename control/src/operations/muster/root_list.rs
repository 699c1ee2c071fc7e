//! The root's own revocation list: withdrawing an issuing certificate, and taking a list that was signed where the root's key
//! is.

use ca::{IssuerNumber, RevocationReason};
use http::Method;
use serde::Deserialize;

use super::show_authority::List;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Withdraws an issuing certificate with the root's key that is with the server.
pub(super) const REVOKE: Operation = Operation {
    name: "RevokeIssuingCertificate",
    method: Method::POST,
    path: "/muster/v1/authority/issuing/revoke",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(revoke),
};

/// Takes a root's list that was signed elsewhere.
pub(super) const TAKE: Operation = Operation {
    name: "SetRootList",
    method: Method::POST,
    path: "/muster/v1/authority/root-list",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(take),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRevoke {
    number: IssuerNumber,
    #[serde(default)]
    reason: RevocationReason,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Given {
    list_pem: String,
}

fn revoke(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked: ToRevoke = call.body()?;
    let list = rooms
        .authority
        .revoke_issuing(asked.number, asked.reason, call.now)?;
    tracing::warn!(number = %asked.number, reason = %asked.reason, "an issuing certificate was revoked");
    Answer::json(&List::of(rooms, &list, call.now))
}

fn take(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let given: Given = call.body()?;
    let list = rooms
        .authority
        .take_root_list(given.list_pem.as_bytes(), call.now)?;
    tracing::warn!(root = %list.root, number = list.number, revoked = list.entries.len(), "a root's list was taken");
    Answer::json(&List::of(rooms, &list, call.now))
}
