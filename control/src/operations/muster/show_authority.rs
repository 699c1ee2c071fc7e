use std::time::SystemTime;

use ca::{CertificateFacts, IssuerNumber, RevocationReason, RevokedEntry, RootList, RootNumber};
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
    /// The newest, which signs issuing certificates.
    root: Certificate,
    /// Oldest first.
    roots: Vec<Root>,
    /// Whether the newest root's key is with the server.
    root_key: &'static str,
    root_pem: String,
    /// Oldest first.
    issuing: Vec<Issuing>,
    /// Why its key cannot be used now, where it cannot (a token that is away).
    #[serde(skip_serializing_if = "Option::is_none")]
    issuing_key_trouble: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    number: RootNumber,
    /// `signs`, `trusted`, `ended` or `retired`.
    state: &'static str,
    key: &'static str,
    #[serde(flatten)]
    certificate: Certificate,
    pem: String,
    /// This root signed by the one before, PEM, and until when that can be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    cross_pem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cross_not_after: Option<EpochSeconds>,
    /// Which of the issuing certificates that it signed are withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<List>,
}

/// A root's own revocation list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List {
    pub(super) root: RootNumber,
    number: u64,
    this_update: EpochSeconds,
    next_update: EpochSeconds,
    /// Whether the next should be made.
    due: bool,
    url: String,
    pem: String,
    revoked: Vec<Revoked>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    serial_number: String,
    at: EpochSeconds,
    reason: RevocationReason,
}

impl Revoked {
    fn of(entry: &RevokedEntry) -> Self {
        Self {
            serial_number: entry.serial.to_string(),
            at: EpochSeconds(entry.revoked_at),
            reason: entry.reason,
        }
    }
}

impl List {
    pub(super) fn of(rooms: &Rooms, list: &RootList, now: SystemTime) -> Self {
        Self {
            root: list.root,
            number: list.number,
            this_update: EpochSeconds(list.this_update),
            next_update: EpochSeconds(list.next_update),
            due: list.is_due(now),
            url: rooms.authority.root_list_url(list.root),
            pem: list.pem(),
            revoked: list.entries.iter().map(Revoked::of).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issuing {
    number: IssuerNumber,
    /// The root that it leads to.
    root: Option<RootNumber>,
    current: bool,
    #[serde(flatten)]
    certificate: Certificate,
    pem: String,
    /// Since when and why it is withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked>,
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

const fn place(is_here: bool) -> &'static str {
    if is_here { "present" } else { "offline" }
}

fn roots(rooms: &Rooms, now: SystemTime) -> Result<Vec<Root>, ApiError> {
    let all = rooms.authority.roots()?;
    let newest = all.last().map(|root| root.number);
    let mut told = Vec::with_capacity(all.len());
    for root in &all {
        let facts = CertificateFacts::read(&root.der)?;
        let cross = root.by_former.as_ref();
        let cross_facts = cross.map(|der| CertificateFacts::read(der)).transpose()?;
        told.push(Root {
            number: root.number,
            state: match () {
                () if root.retired => "retired",
                () if facts.not_after < now => "ended",
                () if Some(root.number) == newest => "signs",
                () => "trusted",
            },
            key: place(root.has_key),
            certificate: Certificate::of(&root.der)?,
            pem: ca::certificate_pem(&root.der),
            cross_pem: cross.map(|der| ca::certificate_pem(der)),
            cross_not_after: cross_facts.map(|facts| EpochSeconds(facts.not_after)),
            // Where it cannot be made now, what is there stands.
            list: rooms
                .authority
                .root_list(root.number, now)
                .ok()
                .flatten()
                .map(|list| List::of(rooms, &list, now)),
        });
    }
    Ok(told)
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let authority = &rooms.authority;
    let numbers = authority.issuers();
    let mut issuing = Vec::with_capacity(numbers.len());
    for number in &numbers {
        if let Some(der) = authority.issuing_der_of(*number) {
            issuing.push(Issuing {
                number: *number,
                root: authority.root_of(*number),
                current: authority.signing() == *number,
                certificate: Certificate::of(&der)?,
                pem: ca::certificate_pem(&der),
                revoked: authority.issuing_revoked(*number).as_ref().map(Revoked::of),
            });
        }
    }
    Answer::json(&Output {
        root: Certificate::of(&authority.root_der())?,
        roots: roots(rooms, call.now)?,
        root_key: place(authority.has_root_key()?),
        root_pem: authority.root_pem(),
        issuing,
        issuing_key_trouble: authority.ready().err().map(|error| error.to_string()),
    })
}
