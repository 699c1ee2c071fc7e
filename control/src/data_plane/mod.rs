//! AWS IoT's data plane over HTTPS (`iot-data`): what a device does here under its client certificate, as its policies
//! allow, or an operator by its role. Jobs' own data plane is in [`crate::job_data`].
//!
//! A device has one request under way on each of its connections, and as many connections as its certificate has places
//! (`places.rs`); what a request puts into the broker is done on this room's thread, in portions.

mod connections;
mod messages;
mod shadows;

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ca::Profile;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method};
use policy::{Action, MessageFacts};
use shadow::topic::Verb;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::auth::{Caller, Identified, body_hash};
use crate::call::{find, read_query};
use crate::device::Device;
use crate::dispatch::{Reached, check_path, read_body, refuse};
use crate::operators::Role;
use crate::peer::Peer;
use crate::rooms::Rooms;

/// An operation of the data plane.
pub(crate) struct DataOperation {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// The least role of an operator.
    least: Role,
    query: &'static [&'static str],
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    Publish,
    GetRetained,
    ListRetained,
    DeleteConnection,
    Shadow(Verb),
    ListShadows,
}

/// The operations.
pub(crate) static ALL: [DataOperation; 8] = [
    DataOperation {
        name: "Publish",
        method: Method::POST,
        path: "/topics/{*topic}",
        least: Role::Operator,
        query: &[
            "qos",
            "retain",
            "contentType",
            "responseTopic",
            "messageExpiry",
        ],
        run: Run::Publish,
    },
    DataOperation {
        name: "GetRetainedMessage",
        method: Method::GET,
        path: "/retainedMessage/{*topic}",
        least: Role::Viewer,
        query: &[],
        run: Run::GetRetained,
    },
    DataOperation {
        name: "ListRetainedMessages",
        method: Method::GET,
        path: "/retainedMessage",
        least: Role::Viewer,
        query: &["maxResults", "nextToken"],
        run: Run::ListRetained,
    },
    DataOperation {
        name: "DeleteConnection",
        method: Method::DELETE,
        path: "/connections/{clientId}",
        least: Role::Operator,
        query: &["cleanSession", "preventWillMessage"],
        run: Run::DeleteConnection,
    },
    DataOperation {
        name: "GetThingShadow",
        method: Method::GET,
        path: "/things/{thingName}/shadow",
        least: Role::Viewer,
        query: &["name"],
        run: Run::Shadow(Verb::Get),
    },
    DataOperation {
        name: "UpdateThingShadow",
        method: Method::POST,
        path: "/things/{thingName}/shadow",
        least: Role::Operator,
        query: &["name"],
        run: Run::Shadow(Verb::Update),
    },
    DataOperation {
        name: "DeleteThingShadow",
        method: Method::DELETE,
        path: "/things/{thingName}/shadow",
        least: Role::Operator,
        query: &["name"],
        run: Run::Shadow(Verb::Delete),
    },
    DataOperation {
        name: "ListNamedShadowsForThing",
        method: Method::GET,
        path: "/api/things/shadow/ListNamedShadowsForThing/{thingName}",
        least: Role::Viewer,
        query: &["nextToken", "pageSize"],
        run: Run::ListShadows,
    },
];

/// Who asks.
#[derive(Clone)]
enum Speaker {
    Device(Device),
    Operator(Caller),
}

/// A request, once it is known who asks.
struct Asked {
    operation: &'static DataOperation,
    rooms: Arc<Rooms>,
    peer: Peer,
    speaker: Speaker,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
    /// When all of it was there.
    now: SystemTime,
}

impl DataOperation {
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
        let answered = self
            .judge(
                Arc::clone(&rooms),
                peer,
                parameters,
                head,
                &mut body,
                &mut reached,
            )
            .await;
        match answered {
            Ok(answer) => answer.into_response(),
            Err(error) => {
                reached.note_denied(&rooms, self.name, &who, &error).await;
                refuse(&rooms, self.name, address, error, body).await
            }
        }
    }

    async fn judge(
        &'static self,
        rooms: Arc<Rooms>,
        peer: Peer,
        path: Vec<(String, String)>,
        head: Parts,
        body: &mut Body,
        reached: &mut Reached,
    ) -> Result<Answer, ApiError> {
        check_path(&head)?;
        let by_operator = head.headers.contains_key(AUTHORIZATION)
            || (peer.certificate.as_ref()).is_none_or(|one| one.profile == Some(Profile::Operator));
        let (body, speaker) = if by_operator {
            let begun = SystemTime::now();
            let identified = Identified::read(&head, &peer, &rooms.operators, begun)?;
            let body = read_body(body).await?;
            let caller = identified.prove(&head, &body_hash(&body), &rooms.operators)?;
            peer.proof.give(caller.operator.certificate);
            reached.operator = Some(caller.operator.name.to_string());
            caller.require(self.least, self.name)?;
            (body, Speaker::Operator(caller))
        } else {
            // What a device is denied is recorded with its policies' reasons.
            reached.ran = true;
            let (own, asking) = (Arc::clone(&rooms), peer.clone());
            let what = "A device uses the data plane";
            let device = on_a_thread(move || Device::identify(&own, &asking, what)).await?;
            (read_body(body).await?, Speaker::Device(device))
        };
        reached.ran = true;
        let query = read_query(self.name, self.query, &[], &head.uri)?;
        let asked = Asked {
            operation: self,
            rooms,
            peer,
            speaker,
            path,
            query,
            headers: head.headers,
            body,
            now: SystemTime::now(),
        };
        if self.method != Method::POST && !asked.body.is_empty() && &*asked.body != b"{}" {
            return Err(ApiError::invalid(format!("{} takes no body", self.name)));
        }
        asked.run().await
    }
}

impl Asked {
    async fn run(self) -> Result<Answer, ApiError> {
        match self.operation.run {
            Run::Publish => messages::publish(self).await,
            Run::GetRetained => on_a_thread(move || messages::get_retained(&self)).await,
            Run::ListRetained => on_a_thread(move || messages::list_retained(&self)).await,
            Run::DeleteConnection => connections::delete(self).await,
            Run::Shadow(verb) => shadows::ask(self, verb).await,
            Run::ListShadows => on_a_thread(move || shadows::list(&self)).await,
        }
    }

    /// A parameter of the path, decoded.
    fn path(&self, name: &str) -> &str {
        find(&self.path, name).unwrap_or_default()
    }

    /// Asks a device's policies; of an operator the role has been compared. Blocks on the registry.
    fn require(&self, action: Action, name: &str, facts: &MessageFacts) -> Result<(), ApiError> {
        match &self.speaker {
            Speaker::Device(device) => {
                device.require(&self.rooms, &self.peer, (action, name), facts, self.now)
            }
            Speaker::Operator(_) => Ok(()),
        }
    }

    /// Tells the log what an operator did. Messages and shadows are too many for the record.
    fn log(&self) {
        if let Speaker::Operator(caller) = &self.speaker {
            tracing::info!(
                operator = %caller.operator.name,
                operation = self.operation.name,
                path = ?self.path,
                "done"
            );
        }
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::internal(&error))?
}
