use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Makes the request for the next issuing certificate; its key stays with the server.
pub(super) const OPERATION: Operation = Operation {
    name: "RequestIssuingCertificate",
    method: Method::POST,
    path: "/muster/v1/authority/issuing/request",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    /// PKCS#10, PEM.
    request: String,
    root_pem: String,
    /// The names, addresses and networks that the certificate before permits, and the next should too.
    permitted_dns: Vec<String>,
    /// Where the list of the root that signs it is found, and that of the root which follows.
    list_url: String,
    next_list_url: String,
}

fn run(rooms: &Rooms, _call: &Call) -> Result<Answer, ApiError> {
    let [list_url, next_list_url] = rooms.authority.newest_root_list_urls();
    Answer::json(&Output {
        request: rooms.authority.issuing_request()?,
        root_pem: rooms.authority.root_pem(),
        permitted_dns: rooms.authority.permitted_names()?,
        list_url,
        next_list_url,
    })
}
