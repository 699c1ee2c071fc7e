//! EST's messages as HTTP carries them: base64 both ways, without line breaks and whatever
//! `Content-Transfer-Encoding` says (RFC 8951 §3.1).

use std::time::Duration;

use aws_lc_rs::rand;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use ca::{KeyPair, MAX_CSR_BYTES};
use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use zeroize::Zeroizing;

use crate::api_error::ApiError;

/// Octets of the longest body: a request in base64 with line breaks.
const MAX_BODY_BYTES: usize = MAX_CSR_BYTES * 3 / 2;
/// Most of a body that is taken in at all: who is still sending would not hear the answer.
const MAX_TAKEN_BYTES: usize = 1024 * 1024;
/// Longest a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(15);
/// Octets of the longest name and password.
const MAX_CREDENTIALS_BYTES: usize = 512;

/// Name and password of HTTP Basic (RFC 7617). `Debug` is not there: it would show the password.
pub(super) struct Basic {
    pub(super) name: String,
    pub(super) password: Zeroizing<String>,
}

impl Basic {
    /// `None` where there are none.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(None);
        };
        let wrong = || {
            ApiError::new(
                StatusCode::UNAUTHORIZED,
                "UnauthorizedException",
                "the Authorization header is not that of HTTP Basic: a name, ':' and a password in base64",
            )
        };
        let (scheme, encoded) = value
            .to_str()
            .ok()
            .filter(|value| value.len() <= MAX_CREDENTIALS_BYTES)
            .and_then(|value| value.split_once(' '))
            .ok_or_else(wrong)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(wrong());
        }
        let decoded = BASE64
            .decode(encoded.trim().as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| wrong())?;
        let (name, password) = std::str::from_utf8(&decoded)
            .ok()
            // A thing's name may have a ':', our passwords have none.
            .and_then(|text| text.rsplit_once(':'))
            .ok_or_else(wrong)?;
        Ok(Some(Self {
            name: name.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        }))
    }
}

/// The request for a certificate in a body, as DER; `ca` reads and checks it.
pub(super) async fn request(headers: &HeaderMap, body: &mut Body) -> Result<Vec<u8>, ApiError> {
    let whole = tokio::time::timeout(BODY_DEADLINE, read(body)).await;
    let whole = whole.map_err(|_| {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "RequestTimeoutException",
            "the request's body took longer than 15 s to arrive",
        )
    })??;
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !media.trim().eq_ignore_ascii_case("application/pkcs10") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaTypeException",
            "the body is a PKCS #10 request: Content-Type application/pkcs10",
        ));
    }
    // Line breaks of any kind, wherever they are.
    let text: Vec<u8> = whole
        .iter()
        .copied()
        .filter(|octet| !octet.is_ascii_whitespace())
        .collect();
    BASE64
        .decode(&text)
        .ok()
        .filter(|der| !der.is_empty())
        .ok_or_else(|| {
            ApiError::invalid(
                "the body is not base64 of a DER request: without PEM's dashed lines, e.g. `openssl req -outform DER | openssl base64`",
            )
        })
}

async fn read(body: &mut Body) -> Result<Vec<u8>, ApiError> {
    let (mut whole, mut taken) = (Vec::new(), 0usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::invalid("the request's body broke off"))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        taken = taken.saturating_add(data.len());
        if taken > MAX_TAKEN_BYTES {
            break;
        }
        if taken <= MAX_BODY_BYTES {
            whole.extend_from_slice(data);
        }
    }
    if taken > MAX_BODY_BYTES {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLargeException",
            format!("a request for a certificate has at most {MAX_BODY_BYTES} bytes"),
        ));
    }
    Ok(whole)
}

/// Certificates, as CMS.
pub(super) fn certificates(cms: &[u8]) -> Response {
    encoded("application/pkcs7-mime; smime-type=certs-only", cms)
}

/// What a request should hold.
pub(super) fn csr_attributes(der: &[u8]) -> Response {
    encoded("application/csrattrs", der)
}

fn encoded(media: &'static str, der: &[u8]) -> Response {
    let mut response = Response::new(Body::from(BASE64.encode(der)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(
        "content-transfer-encoding",
        HeaderValue::from_static("base64"),
    );
    response
}

/// A private key and its certificate, as a multipart body (RFC 7030 §4.4.2).
pub(super) fn key_and_certificate(key: &KeyPair, cms: &[u8]) -> Result<Response, ApiError> {
    let mut octets = [0; 16];
    rand::fill(&mut octets).map_err(|error| ApiError::internal(&error))?;
    // Base64 has no '-' in it, so no part can hold the boundary.
    let boundary = format!("-est-{}", HEXLOWER.encode(&octets));
    let secret = key.private_key_der();
    let secret = Zeroizing::new(BASE64.encode(secret.secret_der()));
    let mut body = String::new();
    for (media, text) in [
        ("application/pkcs8", &*secret),
        (
            "application/pkcs7-mime; smime-type=certs-only",
            &BASE64.encode(cms),
        ),
    ] {
        body.push_str(&format!(
            "--{boundary}\r\nContent-Type: {media}\r\nContent-Transfer-Encoding: base64\r\n\r\n{text}\r\n"
        ));
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    let mut response = Response::new(Body::from(Bytes::from(body)));
    let media = HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}"))
        .map_err(|error| ApiError::internal(&error))?;
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    Ok(response)
}
