use ca::{Passphrase, RootNumber};
use http::Method;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Hands out the root's key under a passphrase. It goes from the server with `TakeRootOffline`.
pub(super) const OPERATION: Operation = Operation {
    name: "ExportRootKey",
    method: Method::POST,
    path: "/muster/v1/authority/root-key/export",
    least: Role::Admin,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    passphrase: String,
    /// Whose key; the newest root's where it is left out.
    root: Option<RootNumber>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output<'a> {
    /// PEM PKCS#8, encrypted.
    encrypted_private_key: &'a str,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let passphrase = Zeroizing::new(body.passphrase);
    let passphrase = Passphrase::new(passphrase.as_bytes())?;
    Answer::json(&Output {
        encrypted_private_key: &rooms.authority.export_root_key(body.root, &passphrase)?,
    })
}
