//! AWS IoT Jobs' data plane over HTTPS (`iot-jobs-data`): what a device asks on its jobs topics, asked here under its
//! client certificate, as its policies allow, or by an operator who speaks for it.
//!
//! Two of the paths are also the registry's: there a request is the data plane's that is signed for it, or that comes
//! under a device's certificate. Each is answered by the room that answers the topics, through the same queue, so
//! both ways have one flush, one bound and one order.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ca::Profile;
use fleet::ThingName;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ota::job::{Document, Rejected, RejectedCode};
use ota::{DeviceRequest, ExecutionStatus, Message};
use policy::{Action, MessageFacts};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::auth::{Identified, body_hash, is_signed_for};
use crate::call::{find, read, read_query};
use crate::device::Device;
use crate::dispatch::{Reached, check_path, read_body, refuse};
use crate::operators::Role;
use crate::peer::Peer;
use crate::rooms::Rooms;

/// What a request of the data plane is signed for.
const SERVICE: &str = "iot-jobs-data";
/// The job id that means the next one.
const NEXT: &str = "$next";

/// An operation of the data plane.
pub(crate) struct JobData {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// What a device's policies must allow on its thing.
    action: Action,
    /// The least role of an operator who speaks for a device. To say that firmware is installed is a release
    /// engineer's.
    least: Role,
    query: &'static [&'static str],
    /// The end of the topic it would be on, and what would be said there.
    translate: fn(&Asked) -> Result<(String, Value), ApiError>,
}

/// The operations.
pub(crate) static ALL: [JobData; 4] = [
    JobData {
        name: "GetPendingJobExecutions",
        method: Method::GET,
        path: "/things/{thingName}/jobs",
        action: Action::GetPendingJobExecutions,
        least: Role::Viewer,
        query: &[],
        translate: |_| Ok(("get".into(), json!({}))),
    },
    JobData {
        name: "DescribeJobExecution",
        method: Method::GET,
        path: "/things/{thingName}/jobs/{jobId}",
        action: Action::DescribeJobExecution,
        least: Role::Viewer,
        query: &["includeJobDocument", "executionNumber"],
        translate: describe,
    },
    JobData {
        name: "StartNextPendingJobExecution",
        method: Method::PUT,
        path: "/things/{thingName}/jobs/{jobId}",
        action: Action::StartNextPendingJobExecution,
        least: Role::ReleaseEngineer,
        query: &[],
        translate: start_next,
    },
    JobData {
        name: "UpdateJobExecution",
        method: Method::POST,
        path: "/things/{thingName}/jobs/{jobId}",
        action: Action::UpdateJobExecution,
        least: Role::ReleaseEngineer,
        query: &[],
        translate: update,
    },
];

/// What a request says, once it is known who asks.
struct Asked {
    job: String,
    query: Vec<(String, String)>,
    body: Bytes,
}

impl Asked {
    fn query<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        find(&self.query, name)
            .map(|text| read(name, text))
            .transpose()
    }

    fn body<T: for<'d> Deserialize<'d>>(&self) -> Result<T, ApiError> {
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the request's body: {error}")))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartNext {
    #[serde(skip_serializing_if = "Option::is_none")]
    status_details: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_timeout_in_minutes: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Update {
    status: ExecutionStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_details: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_timeout_in_minutes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_job_execution_state: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_job_document: Option<bool>,
}

fn said(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::internal(&error))
}

fn describe(asked: &Asked) -> Result<(String, Value), ApiError> {
    let mut question = Map::new();
    if let Some(document) = asked.query::<bool>("includeJobDocument")? {
        question.insert("includeJobDocument".into(), document.into());
    }
    if let Some(number) = asked.query::<u64>("executionNumber")? {
        question.insert("executionNumber".into(), number.into());
    }
    Ok((format!("{}/get", asked.job), question.into()))
}

fn start_next(asked: &Asked) -> Result<(String, Value), ApiError> {
    if asked.job != NEXT {
        return Err(ApiError::invalid(format!(
            "jobId \"{}\": only {NEXT} can be started; report on a job by POST",
            asked.job.escape_debug()
        )));
    }
    Ok(("start-next".into(), said(&asked.body::<StartNext>()?)?))
}

fn update(asked: &Asked) -> Result<(String, Value), ApiError> {
    Ok((
        format!("{}/update", asked.job),
        said(&asked.body::<Update>()?)?,
    ))
}

/// Whether a request for a path that is the registry's too is meant for the data plane.
pub(crate) fn is_meant(headers: &HeaderMap, peer: &Peer) -> bool {
    if headers.contains_key(AUTHORIZATION) {
        return is_signed_for(headers, SERVICE);
    }
    (peer.certificate.as_ref()).is_some_and(|one| one.profile != Some(Profile::Operator))
}

impl JobData {
    /// The operation that shares this route with one of the registry's.
    pub(crate) fn beside(method: &Method, path: &str) -> Option<&'static Self> {
        ALL.iter()
            .find(|one| one.method == *method && one.path == path)
    }

    pub(crate) async fn answer(
        &'static self,
        rooms: Arc<Rooms>,
        peer: Peer,
        parameters: Vec<(String, String)>,
        head: Parts,
        mut body: Body,
    ) -> Response {
        let (address, who) = (peer.address, peer.clone());
        let mut reached = Reached::default();
        match self
            .judge(&rooms, peer, &parameters, &head, &mut body, &mut reached)
            .await
        {
            Ok(response) => response,
            Err(error) => {
                reached.note_denied(&rooms, self.name, &who, &error).await;
                refuse(&rooms, self.name, address, error, body).await
            }
        }
    }

    async fn judge(
        &'static self,
        rooms: &Arc<Rooms>,
        peer: Peer,
        parameters: &[(String, String)],
        head: &Parts,
        body: &mut Body,
        reached: &mut Reached,
    ) -> Result<Response, ApiError> {
        check_path(head)?;
        let of = |name| find(parameters, name).unwrap_or_default();
        let thing: ThingName = read("thingName", of("thingName"))?;
        let by_operator = head.headers.contains_key(AUTHORIZATION)
            || (peer.certificate.as_ref()).is_none_or(|one| one.profile == Some(Profile::Operator));
        let (body, speaker) = if by_operator {
            let identified = Identified::read(head, &peer, &rooms.operators, SystemTime::now())?;
            let body = read_body(body).await?;
            let caller = identified.prove(head, &body_hash(&body), &rooms.operators)?;
            reached.operator = Some(caller.operator.name.to_string());
            caller.require(self.least, self.name)?;
            reached.ran = true;
            let (own, asked) = (Arc::clone(rooms), thing.clone());
            on_a_thread(move || Ok(own.fleet.thing(&asked).map(drop)?)).await?;
            // These are as many as messages are, and told to the log alone as those are.
            if self.method != Method::GET {
                tracing::info!(
                    operator = %caller.operator.name,
                    operation = self.name,
                    path = ?parameters,
                    "asked for a device"
                );
            }
            (body, thing.clone())
        } else {
            // What a device is denied is recorded with its policies' reasons.
            reached.ran = true;
            let (own, asking) = (Arc::clone(rooms), peer.clone());
            let what = "A device asks for its jobs";
            let device = on_a_thread(move || Device::identify(&own, &asking, what)).await?;
            let body = read_body(body).await?;
            let (own, asked) = (Arc::clone(rooms), thing.clone());
            let may = move || self.admit(&own, &peer, device, &asked);
            (body, on_a_thread(may).await?)
        };
        let asked = Asked {
            job: of("jobId").to_owned(),
            query: read_query(self.name, self.query, &[], &head.uri)?,
            body,
        };
        if self.method == Method::GET && !asked.body.is_empty() && &*asked.body != b"{}" {
            return Err(ApiError::invalid(format!("{} takes no body", self.name)));
        }
        let (rest, question) = (self.translate)(&asked)?;
        let topic = ota::job::topic(thing.as_str(), &rest);
        let (send, receive) = oneshot::channel();
        rooms.ota.ask(DeviceRequest {
            thing: Some(speaker.to_string()),
            topic,
            payload: question.to_string().into_bytes(),
            // Who does not wait any more is not told.
            reply: Box::new(move |message| drop(send.send(message))),
        });
        let message = receive.await.map_err(|error| ApiError::internal(&error))?;
        over_https(&message)
    }

    /// Which thing the device is, if its policies allow it this. Blocks on the registry.
    fn admit(
        &self,
        rooms: &Rooms,
        peer: &Peer,
        device: Device,
        thing: &ThingName,
    ) -> Result<ThingName, ApiError> {
        let (nothing, now) = (MessageFacts::default(), SystemTime::now());
        device.require(rooms, peer, (self.action, thing.as_str()), &nothing, now)?;
        Ok(device.thing)
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::internal(&error))?
}

/// What would be said on a topic, as HTTPS has it: no client token, no timestamp, documents as text, refusals as
/// errors.
fn over_https(message: &Message) -> Result<Response, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| ApiError::internal(error);
    if message.topic.ends_with("/rejected") {
        let rejected: Rejected =
            serde_json::from_slice(&message.payload).map_err(|error| wrong(&error))?;
        return refused(rejected);
    }
    let mut answer: Map<String, Value> =
        serde_json::from_slice(&message.payload).map_err(|error| wrong(&error))?;
    for not_here in ["timestamp", "clientToken"] {
        answer.remove(not_here);
    }
    // The documents once more, as they are written: a value would not keep their texts.
    let texts: Holder = serde_json::from_slice(&message.payload).map_err(|error| wrong(&error))?;
    if let Some(Value::Object(execution)) = answer.get_mut("execution") {
        let text = texts.execution.and_then(|execution| execution.job_document);
        as_text(execution, text);
    }
    as_text(&mut answer, texts.job_document);
    Answer::json(&answer).map(Answer::into_response)
}

/// What of an answer has a document.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    job_document: Option<Document>,
    execution: Option<Box<Holder>>,
}

fn as_text(holder: &mut Map<String, Value>, document: Option<Document>) {
    if let Some(document) = document {
        holder.insert("jobDocument".into(), document.as_str().into());
    }
}

fn refused(rejected: Rejected) -> Result<Response, ApiError> {
    let (status, kind) = match rejected.code {
        RejectedCode::InvalidTopic | RejectedCode::InvalidJson | RejectedCode::InvalidRequest => {
            (StatusCode::BAD_REQUEST, "InvalidRequestException")
        }
        RejectedCode::InvalidStateTransition => {
            (StatusCode::CONFLICT, "InvalidStateTransitionException")
        }
        RejectedCode::VersionMismatch => (StatusCode::CONFLICT, "VersionMismatchException"),
        RejectedCode::ResourceNotFound => (StatusCode::NOT_FOUND, "ResourceNotFoundException"),
        RejectedCode::TerminalStateReached => (StatusCode::GONE, "TerminalStateException"),
        RejectedCode::RequestThrottled => (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException"),
        RejectedCode::InternalError => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalFailureException",
        ),
    };
    // AWS's ErrorResponse: how the execution stands spares the device a question.
    let mut response = Answer::json(&rejected)?.into_response();
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("x-amzn-errortype", HeaderValue::from_static(kind));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_there_once() {
        for (at, one) in ALL.iter().enumerate() {
            let same = |other: &&JobData| other.method == one.method && other.path == one.path;
            assert_eq!(ALL.iter().position(|other| same(&other)), Some(at));
        }
    }

    #[test]
    fn what_a_topic_says_is_said_in_https_words() {
        let message = |end: &str, payload: Value| Message {
            topic: format!("$aws/things/lamp-1/jobs/j/update/{end}"),
            payload: payload.to_string().into_bytes(),
        };
        for (code, status, kind) in [
            ("InvalidTopic", 400, "InvalidRequestException"),
            ("InvalidJson", 400, "InvalidRequestException"),
            ("InvalidRequest", 400, "InvalidRequestException"),
            (
                "InvalidStateTransition",
                409,
                "InvalidStateTransitionException",
            ),
            ("VersionMismatch", 409, "VersionMismatchException"),
            ("ResourceNotFound", 404, "ResourceNotFoundException"),
            ("TerminalStateReached", 410, "TerminalStateException"),
            ("RequestThrottled", 429, "ThrottlingException"),
            ("InternalError", 500, "InternalFailureException"),
        ] {
            let rejected = json!({"code": code, "message": "no", "timestamp": 1});
            let response = over_https(&message("rejected", rejected)).unwrap();
            assert_eq!(response.status().as_u16(), status, "{code}");
            assert_eq!(response.headers()["x-amzn-errortype"], kind);
        }
        let accepted = json!({"timestamp": 1, "clientToken": "t", "jobDocument": {"a": 1}});
        let response = over_https(&message("accepted", accepted)).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}
