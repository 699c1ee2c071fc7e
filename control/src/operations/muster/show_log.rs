use std::collections::BTreeMap;
use std::str::FromStr;

use ca::CertificateId;
use fleet::{Deed, DeedFilter, Doer, EnrolmentWay, Head, Numbered, Outcome, What};
use http::Method;
use serde::Serialize;

use super::moment;
use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowLog",
    method: Method::GET,
    path: "/muster/v1/log",
    // Who did what is not for those who only look at devices.
    least: Role::Operator,
    query: &[
        "operator",
        "device",
        "certificate",
        "operation",
        "outcome",
        "since",
        "until",
        "maxResults",
        "nextToken",
    ],
    undone: &[],
    run: Run::Plain(run),
};

pub(super) const VERIFY: Operation = Operation {
    name: "VerifyLog",
    method: Method::GET,
    path: "/muster/v1/log/verification",
    least: Role::Operator,
    query: &["upto", "hash"],
    undone: &[],
    run: Run::Plain(verify),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    number: u64,
    at: EpochSeconds,
    by: Doer,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    operation: String,
    what: What,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    targets: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_id: Option<CertificateId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    way: Option<EnrolmentWay>,
    /// How many of its kind were not recorded before it.
    left_out: u64,
}

impl From<Numbered> for Entry {
    fn from(Numbered { number, deed }: Numbered) -> Self {
        let at = EpochSeconds(deed.moment());
        let Deed {
            by,
            name,
            address,
            operation,
            what,
            outcome,
            code,
            targets,
            thing,
            certificate,
            serial,
            reason,
            way,
            left_out,
            at: _,
        } = deed;
        Self {
            number,
            at,
            by,
            name,
            address: address.map(|address| address.to_string()),
            operation,
            what,
            outcome,
            code,
            targets,
            thing_name: thing,
            certificate_id: certificate,
            serial_number: serial,
            reason,
            way,
            left_out,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    /// The newest first.
    entries: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// An outcome, by its word.
struct Word(Outcome);

impl FromStr for Word {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "done" => Ok(Self(Outcome::Done)),
            "refused" => Ok(Self(Outcome::Refused)),
            "denied" => Ok(Self(Outcome::Denied)),
            _ => Err("an outcome is done, refused or denied"),
        }
    }
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let at = |name: &str| {
        let text: Option<String> = call.query(name)?;
        text.map(|text| moment::read(name, &text)).transpose()
    };
    let filter = DeedFilter {
        name: call.query("operator")?,
        thing: call.query("device")?,
        certificate: call.query("certificate")?,
        operation: call.query("operation")?,
        outcome: call.query("outcome")?.map(|Word(outcome)| outcome),
        since: at("since")?,
        until: at("until")?,
    };
    let asked = call.page("")?;
    let before = asked.after.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| ApiError::invalid("the token is not one of this list"))?;
    let page = rooms.fleet.deeds(&filter, before, asked.limit)?;
    Answer::json(&Output {
        entries: page.items.into_iter().map(Entry::from).collect(),
        next_token: asked.token(page.next),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    entries: u64,
    from: u64,
    /// What the entries before `upto` come to.
    upto: u64,
    hash: String,
    /// Entries that came after that.
    unchained: u64,
    wrong: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

fn verify(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let noted = match (call.query("upto")?, call.query::<String>("hash")?) {
        (Some(upto), Some(hash)) => Some(Head { upto, hash }),
        (None, None) => None,
        _ => {
            return Err(ApiError::invalid(
                "upto and hash are given together: a head that was noted before",
            ));
        }
    };
    let verified = rooms.fleet.verify_deeds(noted.as_ref())?;
    Answer::json(&Verification {
        entries: verified.entries,
        from: verified.from,
        upto: verified.head.upto,
        hash: verified.head.hash,
        unchained: verified.unchained,
        wrong: verified.wrong,
        unknown: verified.unknown,
    })
}
