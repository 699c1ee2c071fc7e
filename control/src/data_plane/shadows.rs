//! Device shadows over HTTPS: the same requests as on their topics, answered by the same room.

use std::sync::Arc;
use std::time::SystemTime;

use fleet::ThingName;
use http::StatusCode;
use policy::{Action, MessageFacts};
use serde::Serialize;
use shadow::request::Rejection;
use shadow::topic::{Place, ShadowName, Verb};
use shadow::{ShadowReply, ShadowRequest, Source};
use tokio::sync::oneshot;

use super::{Asked, Speaker, on_a_thread};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::{find, read};
use crate::page::PageRequest;

/// Most names of a page.
const PAGE_NAMES: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamesPage {
    results: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    /// Seconds since 1970.
    timestamp: u64,
}

fn action(verb: Verb) -> Action {
    match verb {
        Verb::Get => Action::GetThingShadow,
        Verb::Update => Action::UpdateThingShadow,
        Verb::Delete => Action::DeleteThingShadow,
    }
}

/// Asks the shadow of a thing.
pub(super) async fn ask(asked: Asked, verb: Verb) -> Result<Answer, ApiError> {
    let thing: ThingName = read("thingName", asked.path("thingName"))?;
    let name = find(&asked.query, "name").map(|name| read::<ShadowName>("name", name));
    let name = name.transpose()?;
    let place = Place {
        thing: thing.to_string(),
        name,
    };
    let resource = match &place.name {
        None => place.thing.clone(),
        Some(name) => format!("{}/{name}", place.thing),
    };
    let asked = Arc::new(asked);
    let asking = Arc::clone(&asked);
    on_a_thread(move || asking.require(action(verb), &resource, &MessageFacts::default())).await?;
    let (send, receive) = oneshot::channel();
    let telling = Arc::clone(&asked);
    asked.rooms.shadows.ask(ShadowRequest {
        who: match &asked.speaker {
            Speaker::Device(device) => device.thing.to_string(),
            // No name of a thing.
            Speaker::Operator(caller) => format!("operator {}", caller.operator.name),
        },
        place,
        verb,
        payload: asked.body.to_vec(),
        source: Source::Https,
        // Who does not wait any more is not told.
        reply: Box::new(move |reply: ShadowReply| {
            if verb != Verb::Get && reply.answer.is_ok() {
                telling.log();
            }
            drop(send.send(reply));
        }),
    });
    let reply: ShadowReply = receive.await.map_err(|error| ApiError::internal(&error))?;
    let answer = reply.answer.map_err(|rejection| refused(&rejection))?;
    Ok(Answer::raw_json(answer))
}

fn refused(rejection: &Rejection) -> ApiError {
    let (status, code) = match rejection.code() {
        403 => (StatusCode::FORBIDDEN, "ForbiddenException"),
        404 => (StatusCode::NOT_FOUND, "ResourceNotFoundException"),
        409 => (StatusCode::CONFLICT, "ConflictException"),
        413 => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLargeException",
        ),
        415 => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedDocumentEncodingException",
        ),
        429 => (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException"),
        500 => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalFailureException",
        ),
        _ => (StatusCode::BAD_REQUEST, "InvalidRequestException"),
    };
    ApiError::new(status, code, rejection.to_string())
}

/// ListNamedShadowsForThing.
pub(super) fn list(asked: &Asked) -> Result<Answer, ApiError> {
    let thing: ThingName = read("thingName", asked.path("thingName"))?;
    let nothing = MessageFacts::default();
    asked.require(Action::ListNamedShadowsForThing, thing.as_str(), &nothing)?;
    let size = find(&asked.query, "pageSize");
    let within = |text: &str| text.parse().is_ok_and(|n| (1..=PAGE_NAMES).contains(&n));
    if size.is_some_and(|size| !within(size)) {
        return Err(ApiError::invalid(format!("pageSize is 1 to {PAGE_NAMES}")));
    }
    let list = format!("{}/{thing}", asked.operation.name);
    let page = PageRequest::read(list, size, find(&asked.query, "nextToken"))?;
    let most = page.limit.min(PAGE_NAMES);
    let found = asked
        .rooms
        .shadows
        .named(&thing, page.after.as_deref(), most)?;
    let since = asked.now.duration_since(SystemTime::UNIX_EPOCH);
    let last = found.names.last().filter(|_| found.more).cloned();
    Answer::json(&NamesPage {
        next_token: page.token(last),
        results: found.names,
        timestamp: since.map_or(0, |since| since.as_secs()),
    })
}
