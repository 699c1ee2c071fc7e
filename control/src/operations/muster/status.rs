use std::time::SystemTime;

use broker::{FullQueue, Stats};
use ca::CertificateFacts;
use http::Method;
use serde::Serialize;

use crate::answer::{Answer, EpochSeconds};
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ShowStatus",
    method: Method::GET,
    path: "/muster/v1/status",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

/// How many sessions with full queues are named.
const FULL_QUEUES: usize = 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    version: &'static str,
    account: &'a str,
    region: &'a str,
    started_at: EpochSeconds,
    mqtt: String,
    wss: String,
    https: String,
    broker: Stats,
    full_queues: Vec<FullQueue>,
    /// Why the issuing key cannot be used now, where it cannot (a token that is away).
    #[serde(skip_serializing_if = "Option::is_none")]
    issuing_key_trouble: Option<String>,
    /// Why the issuing certificate that should sign is revoked, where it is: nothing is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuing_revoked: Option<String>,
    /// What ends soon and does not renew itself: in the last third of its life, or past it.
    ending: Vec<Ending>,
}

/// Something that ends, and what is to be done.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ending {
    what: String,
    not_after: EpochSeconds,
    mend: &'static str,
}

/// Certificates that somebody must see to.
fn ending(rooms: &Rooms, now: SystemTime) -> Result<Vec<Ending>, ApiError> {
    let mut found = Vec::new();
    let mut look = |what: &str, der: &[u8], mend| -> Result<(), ApiError> {
        let facts = CertificateFacts::read(der)?;
        let life = facts.not_after.duration_since(facts.not_before);
        let left = facts.not_after.duration_since(now);
        if left.unwrap_or_default() < life.unwrap_or_default() / 3 {
            found.push(Ending {
                what: format!("{what} {}", facts.subject_common_names.join(", ")),
                not_after: EpochSeconds(facts.not_after),
                mend,
            });
        }
        Ok(())
    };
    let authority = &rooms.authority;
    look(
        "issuing certificate",
        &authority.issuing_der(),
        "muster ca rotate-issuing",
    )?;
    look(
        "root",
        &authority.root_der(),
        "muster ca succeed-root, years before its end, so that devices learn of the next",
    )?;
    for root in authority.roots()? {
        let facts = CertificateFacts::read(&root.der)?;
        if !root.retired && facts.not_after < now && root.der != authority.root_der() {
            found.push(Ending {
                what: format!(
                    "root {} {}",
                    root.number,
                    facts.subject_common_names.join(", ")
                ),
                not_after: EpochSeconds(facts.not_after),
                mend: "it has ended and its devices know the next: muster ca retire-root",
            });
        }
        if let Ok(Some(list)) = authority.root_list(root.number, now)
            && !root.retired
            && now <= facts.not_after
            && list.is_due(now)
        {
            found.push(Ending {
                what: format!("revocation list of root {}", root.number),
                not_after: EpochSeconds(list.next_update),
                mend: "muster ca root-list --root-key FILE, or --list FILE where the key is elsewhere",
            });
        }
        if root.der == authority.root_der() && authority.root_of_issuing() != Some(root.number) {
            found.push(Ending {
                what: format!(
                    "root {} {} has no issuing certificate yet",
                    root.number,
                    facts.subject_common_names.join(", ")
                ),
                not_after: EpochSeconds(facts.not_after),
                mend: "muster ca rotate-issuing",
            });
        }
    }
    for operator in rooms.operators.list() {
        if operator.is_due(now)
            && !rooms.operators.renews(&operator)
            && let Some(end) = operator.not_after()
        {
            found.push(Ending {
                what: format!("certificate of operator {}", operator.name),
                not_after: EpochSeconds(end),
                mend: "an admin gives it other keys: muster operator rotate; its access key does not end by itself",
            });
        }
    }
    for document in rooms.ota.offline_documents()? {
        if document.is_due(now) {
            let (what, mend) = match document.role.as_str() {
                "root" => (
                    "trust root for firmware".to_owned(),
                    "no device updates after that: muster firmware root --previous where the release keys are, then muster firmware trust",
                ),
                "targets" => (
                    "list of firmware images".to_owned(),
                    "muster firmware index --previous where the release keys are, then muster firmware trust",
                ),
                delegate => (
                    format!("list of firmware images of {delegate}"),
                    "muster firmware index --previous where that delegate's keys are, then muster firmware trust",
                ),
            };
            found.push(Ending {
                what: format!("{what} (version {})", document.version),
                not_after: EpochSeconds(document.expires),
                mend,
            });
        }
    }
    Ok(found)
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    // A server that cannot keep a change (a revocation, say) is not well, whatever its sockets do.
    rooms.fleet.writable()?;
    Answer::json(&Output {
        version: env!("CARGO_PKG_VERSION"),
        account: &rooms.account,
        region: &rooms.region,
        started_at: EpochSeconds(rooms.started),
        mqtt: rooms.endpoints.mqtt.to_string(),
        wss: rooms.endpoints.wss.to_string(),
        https: rooms.endpoints.https.to_string(),
        broker: rooms.broker.stats(),
        full_queues: rooms.broker.full_queues(FULL_QUEUES),
        issuing_key_trouble: rooms.authority.ready().err().map(|error| error.to_string()),
        issuing_revoked: rooms
            .authority
            .issuing_revoked(rooms.authority.signing())
            .map(|entry| entry.reason.to_string()),
        ending: ending(rooms, call.now)?,
    })
}
