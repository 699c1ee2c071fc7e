use std::net::IpAddr;

use broker::topic::{TopicFilter, TopicName};
use ca::CertificateId;
use fleet::{CertificateStatus, ThingName};
use http::Method;
use policy::{Action, Context, Explanation, Grant, MessageFacts};
use serde::{Deserialize, Serialize};

use super::moment;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::page::MAX_PAGE_ITEMS;
use crate::rooms::Rooms;

/// Longest client id or topic explained: MQTT's own bound of a string.
const MAX_NAME_BYTES: usize = 65_535;

pub(super) const OPERATION: Operation = Operation {
    name: "ExplainPolicy",
    method: Method::POST,
    path: "/muster/v1/policies/explain",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_name: ThingName,
    action: String,
    /// Topic name, or filter for `subscribe`; for `connect` there is none.
    topic: Option<String>,
    /// The thing's name where it is left out.
    client_id: Option<String>,
    /// The moment it is judged at, for conditions on time; now where it is left out.
    at: Option<String>,
    /// Where the connection comes from.
    source_ip: Option<IpAddr>,
    /// Bytes of the message's payload.
    message_size: Option<usize>,
    /// Its quality of service, or the one that a subscription asks for.
    qos: Option<u8>,
    /// Its retain flag.
    retain: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    certificate_id: CertificateId,
    /// Only an active certificate can use what its policies allow.
    certificate_status: CertificateStatus,
    /// The explanation for people.
    text: String,
    #[serde(flatten)]
    explanation: Explanation,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let action: Action = body
        .action
        .parse()
        .map_err(|error| ApiError::invalid(format!("action: {error}")))?;
    let client_id = body
        .client_id
        .unwrap_or_else(|| body.thing_name.to_string());
    let name = match (action, body.topic) {
        (Action::Connect, None) => client_id.clone(),
        (Action::Connect, Some(_)) => {
            return Err(ApiError::invalid(
                "topic: connecting has none; give a clientId to explain another than the thing's name",
            ));
        }
        (_, Some(topic)) => topic,
        (_, None) => {
            return Err(ApiError::invalid(format!(
                "topic is missing: {action} is judged by it"
            )));
        }
    };
    judged_as(action, &name)?;
    if name.len().max(client_id.len()) > MAX_NAME_BYTES {
        return Err(ApiError::invalid(format!(
            "topic and clientId have at most {MAX_NAME_BYTES} bytes"
        )));
    }

    let (certificate, status) = deciding_certificate(rooms, &body.thing_name)?;
    let standing = rooms.fleet.standing(&certificate)?.now();
    let at = match &body.at {
        None => call.now,
        Some(text) => moment::read("at", text)?,
    };
    let context = Context {
        source_ip: body.source_ip,
        ..standing.context(&client_id, at)
    };
    let grant = Grant::new(
        rooms.fleet.realm().clone(),
        standing.policies.clone(),
        context,
    );
    let message = MessageFacts {
        size_bytes: body.message_size,
        qos: body.qos,
        retain: body.retain,
    };
    let explanation = grant.explain_for(action, &name, &message);
    Answer::json(&Output {
        thing_name: body.thing_name,
        certificate_id: certificate,
        certificate_status: status,
        text: explanation.to_string(),
        explanation,
    })
}

/// What no packet can ask for has no answer: "allow" for it would be none.
fn judged_as(action: Action, topic: &str) -> Result<(), ApiError> {
    let refused = match action {
        Action::Publish | Action::Receive | Action::RetainPublish if topic.contains(['+', '#']) => {
            Some(format!(
                "a topic name has no + or #, and {action} is judged by one; name one topic, or ask about the filter with the action subscribe"
            ))
        }
        Action::Publish | Action::Receive | Action::RetainPublish => topic
            .parse::<TopicName>()
            .err()
            .map(|error| error.to_string()),
        Action::Subscribe => topic
            .parse::<TopicFilter>()
            .err()
            .map(|error| error.to_string()),
        _ => None,
    };
    match refused {
        Some(why) => Err(ApiError::invalid(format!("topic {topic:?}: {why}"))),
        None => Ok(()),
    }
}

/// The certificate whose policies are explained: an active one where there is one.
fn deciding_certificate(
    rooms: &Rooms,
    thing: &ThingName,
) -> Result<(CertificateId, CertificateStatus), ApiError> {
    rooms.fleet.thing(thing)?;
    let mut found = None;
    for id in rooms.fleet.principals(thing, None, MAX_PAGE_ITEMS)?.items {
        let status = rooms.fleet.certificate(&id)?.status;
        if status == CertificateStatus::Active {
            return Ok((id, status));
        }
        found.get_or_insert((id, status));
    }
    found.ok_or_else(|| {
        ApiError::invalid(format!(
            "thing {thing} has no certificate, so it can do nothing; give it one (device replace)"
        ))
    })
}
