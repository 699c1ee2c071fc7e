use ca::{CertificateId, RevocationReason};
use fleet::mass::{Measure, Selection};
use fleet::{GroupName, ThingName};
use http::Method;
use serde::{Deserialize, Serialize};

use super::super::index::query;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::certificate_id;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::page::PageRequest;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ChangeCertificates",
    method: Method::POST,
    path: "/muster/v1/certificate-changes",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    certificate_ids: Option<Vec<String>>,
    thing_name: Option<ThingName>,
    group_name: Option<GroupName>,
    ca_certificate_id: Option<String>,
    query_string: Option<String>,
    measure: Word,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
    next_token: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Word {
    Revoke,
    Deactivate,
    Activate,
}

/// What one batch has done; a token where there is another.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    changed: Vec<CertificateId>,
    untouched: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let token = body.next_token.clone();
    let dry_run = body.dry_run;
    let (selection, scope, measure) = read(body)?;
    let asked = PageRequest::read(
        format!("ChangeCertificates/{scope}"),
        None,
        token.as_deref(),
    )?;
    let after = asked.after.as_deref();
    let done = rooms
        .fleet
        .change_certificates(&selection, measure, dry_run, after, call.now)?;
    Answer::json(&Output {
        changed: done.changed,
        untouched: done.untouched,
        next_token: asked.token(done.next),
    })
}

/// Whose certificates, in words that tell one selection from another, and what becomes of them.
fn read(body: Body) -> Result<(Selection, String, Measure), ApiError> {
    let measure = match (body.measure, &body.reason) {
        (Word::Revoke, None) => Measure::Revoke(RevocationReason::Unspecified),
        (Word::Revoke, Some(text)) => Measure::Revoke(
            text.parse()
                .map_err(|error| ApiError::invalid(format!("reason: {error}")))?,
        ),
        (_, Some(_)) => return Err(ApiError::invalid("reason is for REVOKE")),
        (Word::Deactivate, None) => Measure::Deactivate,
        (Word::Activate, None) => Measure::Activate,
    };
    let given = (
        body.certificate_ids,
        body.thing_name,
        body.group_name,
        body.ca_certificate_id,
        body.query_string,
    );
    let (selection, scope) = match given {
        (Some(ids), None, None, None, None) => {
            let ids: Result<Vec<_>, _> = ids.iter().map(|id| certificate_id(id)).collect();
            (Selection::Certificates(ids?), "ids".to_owned())
        }
        (None, Some(thing), None, None, None) => {
            let scope = format!("thing/{thing}");
            (Selection::Thing(thing), scope)
        }
        (None, None, Some(group), None, None) => {
            let scope = format!("group/{group}");
            (Selection::Group(group), scope)
        }
        (None, None, None, Some(id), None) => {
            let id = certificate_id(&id)?;
            (Selection::Authority(id), format!("ca/{id}"))
        }
        (None, None, None, None, Some(text)) => {
            let query = query(&text)?;
            (Selection::Query(query), format!("query/{text}"))
        }
        _ => {
            return Err(ApiError::invalid(
                "say whose certificates: certificateIds, thingName, groupName, caCertificateId or queryString, one of them",
            ));
        }
    };
    Ok((selection, scope, measure))
}
