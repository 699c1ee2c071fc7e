//! Plain HTTP, as RFC 5280 §4.2.1.13 and RFC 6960 appendix A want it for what is signed by itself: revocation lists,
//! OCSP answers and the two CA certificates, and nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use ca::{Authority, IssuerNumber, MAX_OCSP_REQUEST_BYTES, OcspRefusal, RootNumber};
use data_encoding::BASE64;
use fleet::{ListName, RevocationFaces};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;

/// Longest an OCSP request may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Most of a body that is taken in at all.
const MAX_TAKEN_BYTES: usize = 1024 * 1024;

/// The plain listener's routes.
pub(crate) fn router(faces: &RevocationFaces, authority: &Arc<Authority>) -> Router {
    let (root, roots) = (Arc::clone(authority), Arc::clone(authority));
    let (first, later) = (Arc::clone(authority), Arc::clone(authority));
    let own_lists = Arc::clone(authority);
    let (whole, shards, later_shards) = (faces.clone(), faces.clone(), faces.clone());
    let (posted, gotten) = (faces.clone(), faces.clone());
    Router::new()
        .route(
            "/crl/0.crl",
            get(move || list(whole.clone(), Ok(ListName::Whole))),
        )
        .route(
            "/crl/{file}",
            get(async move |Path(file): Path<String>| root_list(own_lists.clone(), file).await),
        )
        .route(
            "/crl/{issuer}/{count}/{file}",
            get(
                async move |Path((issuer, count, file)): Path<(String, String, String)>| {
                    let name = format!("crl/{issuer}/{count}/{file}");
                    list(later_shards.clone(), name.parse()).await
                },
            ),
        )
        .route(
            "/crl/{count}/{file}",
            get(async move |Path((count, file)): Path<(String, String)>| {
                list(shards.clone(), format!("crl/{count}/{file}").parse()).await
            }),
        )
        .route(
            "/ocsp",
            post(async move |body: Body| {
                let body = tokio::time::timeout(BODY_DEADLINE, read(body)).await;
                ocsp(posted, body.ok().flatten()).await
            }),
        )
        .route(
            "/ocsp/{*request}",
            get(async move |Path(request): Path<String>| {
                ocsp(gotten, BASE64.decode(request.as_bytes()).ok()).await
            }),
        )
        .route(
            "/root.crt",
            get(async move || certificate(Bytes::from(root.root_der().to_vec()))),
        )
        .route(
            "/root/{file}",
            get(async move |Path(file): Path<String>| root_numbered(&roots, &file)),
        )
        .route(
            "/issuing.crt",
            get(async move || issuing(&first, Some(IssuerNumber::FIRST))),
        )
        .route(
            "/issuing/{file}",
            get(async move |Path(file): Path<String>| {
                let number = file.strip_suffix(".crt").and_then(|number| {
                    let issuer = IssuerNumber::new(number.parse().ok()?)?;
                    // One way to write each.
                    (issuer.to_string() == number).then_some(issuer)
                });
                issuing(&later, number)
            }),
        )
}

async fn list(faces: RevocationFaces, name: Result<ListName, ()>) -> Response {
    let Ok(name) = name else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let made = tokio::task::spawn_blocking(move || faces.list(name, SystemTime::now())).await;
    match made {
        Ok(Ok(Some(der))) => of_type("application/pkix-crl", Bytes::from_owner(der)),
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, list = %name, "a revocation list could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `root-N.crl`: which issuing certificates a root has withdrawn.
async fn root_list(authority: Arc<Authority>, file: String) -> Response {
    let number = file
        .strip_prefix("root-")
        .and_then(|file| file.strip_suffix(".crl"))
        .and_then(|number| RootNumber::new(number.parse().ok()?))
        // One way to write each.
        .filter(|number| format!("root-{number}.crl") == file);
    let Some(number) = number else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let made = tokio::task::spawn_blocking(move || authority.root_list(number, SystemTime::now()));
    match made.await {
        Ok(Ok(Some(list))) => of_type("application/pkix-crl", Bytes::from(list.der.clone())),
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, root = %number, "the root's list could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A request's body; `None` for one that broke off or is longer than an OCSP request. What is too
/// long is taken in, within bounds: who is still sending would not hear the answer.
async fn read(mut body: Body) -> Option<Vec<u8>> {
    let (mut request, mut taken) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.ok()?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        taken += data.len();
        if taken > MAX_TAKEN_BYTES {
            return None;
        }
        if taken <= MAX_OCSP_REQUEST_BYTES {
            request.extend_from_slice(data);
        }
    }
    (taken <= MAX_OCSP_REQUEST_BYTES).then_some(request)
}

/// Answers in OCSP's own words, whatever was asked (RFC 6960 appendix A.2).
async fn ocsp(faces: RevocationFaces, request: Option<Vec<u8>>) -> Response {
    let answer = match request {
        None => OcspRefusal::Malformed.to_der(),
        Some(request) => {
            tokio::task::spawn_blocking(move || faces.ocsp(&request, SystemTime::now()))
                .await
                .unwrap_or_else(|_| OcspRefusal::Internal.to_der())
        }
    };
    of_type("application/ocsp-response", answer.into())
}

/// The issuing certificate that certificates of its own name as their issuer's.
fn issuing(authority: &Authority, number: Option<IssuerNumber>) -> Response {
    match number.and_then(|number| authority.issuing_der_of(number)) {
        Some(der) => certificate(Bytes::from(der.to_vec())),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `N.crt`, a root that is trusted.
fn root_numbered(authority: &Authority, file: &str) -> Response {
    let roots = authority.roots().unwrap_or_default();
    let named = |root: &&ca::RootState| !root.retired && file == format!("{}.crt", root.number);
    match roots.iter().find(named) {
        Some(root) => certificate(Bytes::from(root.der.to_vec())),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn certificate(der: Bytes) -> Response {
    of_type("application/pkix-cert", der)
}

fn of_type(media: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    // A cache must not hold back what was revoked since.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
