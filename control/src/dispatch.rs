//! The way of every request of the API: find the operation, prove who asks, compare the role,
//! read the body, and only then let the operation run, on a thread that may block.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Extension, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::auth::{Caller, Identified, body_hash};
use crate::call::{Call, read_query};
use crate::data_plane::{self, DataOperation};
use crate::job_data::{self, JobData};
use crate::operation::{Operation, Run};
use crate::operations;
use crate::peer::Peer;
use crate::record;
use crate::rooms::Rooms;
use crate::upload;

/// Largest body of a request that is not an upload.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest time such a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Most of a refused request's body that is still taken in.
const MAX_DISCARDED_BYTES: usize = 256 * 1024 * 1024;
/// Longest time that takes.
const DISCARD_DEADLINE: Duration = Duration::from_secs(10);

/// The API's routes.
pub(crate) fn router(rooms: &Arc<Rooms>) -> Router {
    let mut router = Router::new();
    let mut of_devices: Vec<&JobData> = job_data::ALL.iter().collect();
    for operation in operations::all() {
        let data = JobData::beside(&operation.method, operation.path);
        of_devices.retain(|one| data.is_none_or(|data| data.name != one.name));
        router = router.route(operation.path, handler(operation, data, rooms.clone()));
    }
    for data in of_devices {
        router = router.route(data.path, of_devices_alone(data, rooms.clone()));
    }
    for data in &data_plane::ALL {
        router = router.route(data.path, of_the_data_plane(data, rooms.clone()));
    }
    router
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "UnsupportedOperationException",
                "This path does not take this verb.",
            )
        })
        .fallback(|| async {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "UnknownOperationException",
                "There is nothing under this path.",
            )
        })
}

/// The parameters of a path, decoded; or the refusal of one that is not text.
type Parameters = Result<RawPathParams, RawPathParamsRejection>;

fn read_parameters(parameters: Parameters) -> Result<Vec<(String, String)>, ApiError> {
    let parameters = parameters.map_err(|error| ApiError::invalid(error.body_text()))?;
    Ok(parameters
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

fn handler(
    operation: &'static Operation,
    data: Option<&'static JobData>,
    rooms: Arc<Rooms>,
) -> MethodRouter {
    let answer = move |Extension(peer): Extension<Peer>,
                       parameters: Parameters,
                       request: Request| async move {
        let parameters = match read_parameters(parameters) {
            Ok(parameters) => parameters,
            Err(error) => return error.into_response(),
        };
        if let Some(data) = data.filter(|_| job_data::is_meant(request.headers(), &peer)) {
            let (head, body) = request.into_parts();
            return data.answer(rooms, peer, parameters, head, body).await;
        }
        let asked = Asked {
            operation,
            rooms,
            peer,
            parameters,
        };
        asked.answer(request).await
    };
    let filter = MethodFilter::try_from(operation.method.clone()).unwrap_or(MethodFilter::TRACE);
    axum::routing::on(filter, answer)
}

fn of_devices_alone(data: &'static JobData, rooms: Arc<Rooms>) -> MethodRouter {
    let answer = move |Extension(peer): Extension<Peer>,
                       parameters: Parameters,
                       request: Request| async move {
        match read_parameters(parameters) {
            Ok(parameters) => {
                let (head, body) = request.into_parts();
                data.answer(rooms, peer, parameters, head, body).await
            }
            Err(error) => error.into_response(),
        }
    };
    let filter = MethodFilter::try_from(data.method.clone()).unwrap_or(MethodFilter::TRACE);
    axum::routing::on(filter, answer)
}

fn of_the_data_plane(data: &'static DataOperation, rooms: Arc<Rooms>) -> MethodRouter {
    let answer = move |Extension(peer): Extension<Peer>,
                       parameters: Parameters,
                       request: Request| async move {
        match read_parameters(parameters) {
            Ok(parameters) => {
                let (head, body) = request.into_parts();
                data.answer(rooms, peer, parameters, head, body).await
            }
            Err(error) => error.into_response(),
        }
    };
    let filter = MethodFilter::try_from(data.method.clone()).unwrap_or(MethodFilter::TRACE);
    axum::routing::on(filter, answer)
}

/// How far a request came.
#[derive(Default)]
pub(crate) struct Reached {
    /// Which operator it is of, once that is proven.
    pub(crate) operator: Option<String>,
    /// Whether the operation was begun.
    pub(crate) ran: bool,
}

impl Reached {
    /// Puts a denial on the record, of an operator or a stranger.
    pub(crate) async fn note_denied(
        self,
        rooms: &Arc<Rooms>,
        operation: &'static str,
        peer: &Peer,
        error: &ApiError,
    ) {
        if error.status != StatusCode::FORBIDDEN || self.ran {
            return;
        }
        let (rooms, peer, code) = (Arc::clone(rooms), peer.clone(), error.code);
        let note = move || record::denied(&rooms, self.operator, operation, &peer, code);
        // It waits for the disk, as whoever may do it would.
        let _ = tokio::task::spawn_blocking(note).await;
    }
}

/// A request on its way.
struct Asked {
    operation: &'static Operation,
    rooms: Arc<Rooms>,
    peer: Peer,
    parameters: Vec<(String, String)>,
}

impl Asked {
    async fn answer(self, request: Request) -> Response {
        let (operation, who) = (self.operation.name, self.peer.clone());
        let peer = who.address;
        let rooms = Arc::clone(&self.rooms);
        let (head, mut body) = request.into_parts();
        let mut reached = Reached::default();
        match self.judge(head, &mut body, &mut reached).await {
            Ok(answer) => answer.into_response(),
            Err(error) => {
                reached.note_denied(&rooms, operation, &who, &error).await;
                refuse(&rooms, operation, peer, error, body).await
            }
        }
    }

    async fn judge(
        self,
        head: Parts,
        body: &mut Body,
        reached: &mut Reached,
    ) -> Result<Answer, ApiError> {
        check_path(&head)?;
        let now = SystemTime::now();
        let identified = Identified::read(&head, &self.peer, &self.rooms.operators, now)?;
        let run = match self.operation.run {
            Run::Plain(run) | Run::WithBody(run) => run,
            Run::Upload(run) => {
                // The body comes too late to decide, so its hash must have been announced and
                // signed; the stream ends in an error where it is another.
                let announced = identified.announced_body_hash(&head)?;
                let caller = identified.prove(
                    &head,
                    announced.as_deref().unwrap_or_default(),
                    &self.rooms.operators,
                )?;
                self.peer.proof.give(caller.operator.certificate);
                reached.operator = Some(caller.operator.name.to_string());
                let call = self.authorise(head, caller, Bytes::new(), now)?;
                reached.ran = true;
                return upload::receive(self.rooms, self.peer, call, run, announced, body).await;
            }
        };
        let body = read_body(body)
            .await
            .map_err(|error| self.told_of_documents(error))?;
        let caller = identified.prove(&head, &body_hash(&body), &self.rooms.operators)?;
        self.peer.proof.give(caller.operator.certificate);
        reached.operator = Some(caller.operator.name.to_string());
        let call = self.authorise(head, caller, body, now)?;
        reached.ran = true;
        let (rooms, peer) = (self.rooms, self.peer);
        tokio::task::spawn_blocking(move || {
            call.check_body()?;
            record::recorded(&rooms, &call, &peer, |rooms| run(rooms, &call))
        })
        .await
        .map_err(|error| ApiError::internal(&error))?
    }

    /// Of a policy that is too long for a request the bound that it would meet next is told, too.
    fn told_of_documents(&self, mut error: ApiError) -> ApiError {
        let of_policies = matches!(
            self.operation.name,
            "CreatePolicy" | "CreatePolicyVersion" | "UpdatePolicy"
        );
        if of_policies && error.status == StatusCode::PAYLOAD_TOO_LARGE {
            let bytes = self.rooms.fleet.policy_limits().document_bytes;
            error.message = format!(
                "{}, and a policy document at most {bytes}: split it into several policies",
                error.message
            );
        }
        error
    }

    /// Compares the role, then reads the query.
    fn authorise(
        &self,
        head: Parts,
        caller: Caller,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Call, ApiError> {
        caller.require(self.operation.least, self.operation.name)?;
        Ok(Call {
            operation: self.operation,
            caller,
            path: self.parameters.clone(),
            query: read_query(
                self.operation.name,
                self.operation.query,
                self.operation.undone,
                &head.uri,
            )?,
            headers: head.headers,
            body,
            now,
        })
    }
}

/// A signer normalises empty and dot segments away, the router does not: such a path could be
/// signed as one resource and routed as another, so there is none.
pub(crate) fn check_path(head: &Parts) -> Result<(), ApiError> {
    let mut segments = head.uri.path().split('/').skip(1);
    if segments.any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(ApiError::invalid(
            "the path has an empty segment, or one of dots",
        ));
    }
    Ok(())
}

/// Answers a request that is refused, and tells of it as often as the log bears.
pub(crate) async fn refuse(
    rooms: &Rooms,
    operation: &str,
    peer: SocketAddr,
    error: ApiError,
    body: Body,
) -> Response {
    discard(body).await;
    if let Some(left_out) = rooms.refusals.take_counting() {
        tracing::info!(
            operation,
            %peer,
            code = error.code,
            message = ?error.message,
            left_out,
            "request refused"
        );
    }
    error.into_response()
}

/// Takes in what is left of a refused request's body, within bounds. A connection closed over
/// unread bytes is reset, and the client would lose the answer that tells it why.
async fn discard(mut body: Body) {
    let mut left = MAX_DISCARDED_BYTES;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // What comes in time is enough; the rest is the client's loss.
    let _ = tokio::time::timeout(DISCARD_DEADLINE, rest).await;
}

pub(crate) async fn read_body(body: &mut Body) -> Result<Bytes, ApiError> {
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_DEADLINE, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLargeException",
            format!("a request's body has at most {MAX_BODY_BYTES} bytes"),
        )),
        Ok(Err(_)) => Err(ApiError::invalid("the request's body broke off")),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeoutException",
            "the request's body took longer than 30 s to arrive",
        )),
    }
}
