//! AWS Signature Version 4, judged from the server's side.
//!
//! The signature is computed again with AWS's own signer over what arrived and compared in
//! constant time. Everything the signer does not decide stands here: which headers must be
//! signed, whose clock counts, what the body's hash has to be.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How far the two clocks may be apart, as AWS allows it.
pub(crate) const MAX_SKEW_SECONDS: u64 = 15 * 60;
/// Longest `Authorization` header read.
const MAX_AUTHORIZATION_BYTES: usize = 4096;
/// Services a request may be signed for: the registry, its data planes, and the jobs' own.
const SERVICES: [&str; 4] = ["iot", "iotdata", "iotdevicegateway", "iot-jobs-data"];
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DATE_HEADER: &str = "x-amz-date";
const BODY_HASH_HEADER: &str = "x-amz-content-sha256";
const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// Why a signed request is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("the Authorization header is not understood: {0}")]
    Malformed(&'static str),
    #[error(
        "the request is signed for service \"{0}\"; this server answers for iot, iotdata, iotdevicegateway and iot-jobs-data"
    )]
    Service(String),
    #[error(
        "the request was signed at {signed}, but it is {now} here: more than 15 minutes apart. Set the clock of the machine that is wrong"
    )]
    Skewed { signed: Timestamp, now: Timestamp },
    #[error("header \"{0}\" must be covered by the signature and is not")]
    Unsigned(String),
    #[error("signed header \"{0}\" is not in the request, or not readable")]
    Absent(String),
    #[error("x-amz-content-sha256 is not the SHA-256 of the body that arrived")]
    Body,
    #[error("the body must be signed: send its SHA-256 in lower-case hex as x-amz-content-sha256")]
    UnsignedBody,
    #[error("temporary credentials (x-amz-security-token) are not known here")]
    SecurityToken,
    #[error(
        "the signature does not match the request: check the secret access key, and that nothing between rewrites the request"
    )]
    Mismatch,
}

/// What a request says of its own signature; nothing of it is proven before [`Claim::verify`].
#[derive(Debug)]
pub(crate) struct Claim<'r> {
    pub(crate) access_key_id: &'r str,
    pub(crate) region: &'r str,
    service: &'r str,
    signed_at: SystemTime,
    signed_headers: Vec<&'r str>,
    signature: &'r str,
}

impl<'r> Claim<'r> {
    /// Reads the claim and refuses what can be refused without the secret or the body.
    pub(crate) fn read(head: &'r Parts, now: SystemTime) -> Result<Self, Refusal> {
        let header = single(head, AUTHORIZATION.as_str())
            .ok_or(Refusal::Malformed("it must be there once, in ASCII"))?;
        if header.len() > MAX_AUTHORIZATION_BYTES {
            return Err(Refusal::Malformed("it is longer than 4096 bytes"));
        }
        let (algorithm, fields) = header
            .split_once(' ')
            .ok_or(Refusal::Malformed("it names no algorithm"))?;
        if algorithm != ALGORITHM {
            return Err(Refusal::Malformed("the algorithm is not AWS4-HMAC-SHA256"));
        }
        let fields = Fields::read(fields)?;

        let mut scope = fields.credential.split('/');
        let (Some(access_key_id), Some(day), Some(region), Some(service), Some(end), None) = (
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
        ) else {
            return Err(Refusal::Malformed(
                "Credential is not KEY/DATE/REGION/SERVICE/aws4_request",
            ));
        };
        if end != "aws4_request" {
            return Err(Refusal::Malformed("the scope does not end in aws4_request"));
        }
        if !is_region(region) {
            return Err(Refusal::Malformed(
                "the region is not 1 to 32 of a-z, 0-9 and hyphen",
            ));
        }
        if !SERVICES.contains(&service) {
            return Err(Refusal::Service(service.chars().take(64).collect()));
        }
        if head.headers.contains_key("x-amz-security-token") {
            return Err(Refusal::SecurityToken);
        }
        let claim = Self {
            access_key_id,
            region,
            service,
            signed_at: signing_time(head, day)?,
            signed_headers: signed_headers(head, fields.signed_headers)?,
            signature: fields.signature,
        };
        claim.check_clock(now)?;
        Ok(claim)
    }

    fn check_clock(&self, now: SystemTime) -> Result<(), Refusal> {
        let apart = now
            .duration_since(self.signed_at)
            .unwrap_or_else(|early| early.duration());
        if apart > Duration::from_secs(MAX_SKEW_SECONDS) {
            return Err(Refusal::Skewed {
                signed: whole_second(self.signed_at),
                now: whole_second(now),
            });
        }
        Ok(())
    }

    /// The body hash the client announced, for a body that is hashed while it is read.
    pub(crate) fn announced_body_hash(&self, head: &Parts) -> Result<String, Refusal> {
        let hash = single(head, BODY_HASH_HEADER).ok_or(Refusal::UnsignedBody)?;
        let is_hash = hash.len() == 64
            && hash
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hash {
            Ok(hash.to_owned())
        } else {
            Err(Refusal::UnsignedBody)
        }
    }

    /// Proves the claim: `body_hash` is the SHA-256, in lower-case hex, of the body.
    pub(crate) fn verify(
        &self,
        head: &Parts,
        credentials: &Credentials,
        body_hash: &str,
    ) -> Result<(), Refusal> {
        if head.headers.contains_key(BODY_HASH_HEADER)
            && single(head, BODY_HASH_HEADER) != Some(body_hash)
        {
            return Err(Refusal::Body);
        }
        let mut headers = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            for value in head.headers.get_all(*name) {
                let value = std::str::from_utf8(value.as_bytes())
                    .map_err(|_| Refusal::Absent((*name).to_owned()))?;
                headers.push((*name, value));
            }
        }
        let target = head.uri.path_and_query().map_or("/", |both| both.as_str());
        let request = SignableRequest::new(
            head.method.as_str(),
            target,
            headers.into_iter(),
            SignableBody::Precomputed(body_hash.to_owned()),
        )
        .map_err(|_| Refusal::Mismatch)?;

        let mut settings = SigningSettings::default();
        // Exactly the headers the client signed are handed over; none is left out after that.
        settings.excluded_headers = None;
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.signed_at)
            .settings(settings)
            .build()
            .map_err(|_| Refusal::Mismatch)?
            .into();
        let expected = sign(request, &parameters).map_err(|_| Refusal::Mismatch)?;
        aws_lc_rs::constant_time::verify_slices_are_equal(
            expected.signature().as_bytes(),
            self.signature.as_bytes(),
        )
        .map_err(|_| Refusal::Mismatch)
    }
}

/// Whether a request says that it is signed for this service; what it says is proven elsewhere, and nothing
/// hangs on it but which operation is meant.
pub(crate) fn is_signed_for(headers: &http::HeaderMap, service: &str) -> bool {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (values.next(), values.next()) else {
        return false;
    };
    let fields = (header.to_str().ok())
        .and_then(|text| text.split_once(' '))
        .and_then(|(_, fields)| Fields::read(fields).ok());
    fields.is_some_and(|fields| fields.credential.split('/').nth(3) == Some(service))
}

/// The three fields after the algorithm, each exactly once, in any order.
struct Fields<'r> {
    credential: &'r str,
    signed_headers: &'r str,
    signature: &'r str,
}

impl<'r> Fields<'r> {
    fn read(text: &'r str) -> Result<Self, Refusal> {
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in text.split(',') {
            let (name, value) = field
                .trim_matches(' ')
                .split_once('=')
                .ok_or(Refusal::Malformed("a field is not NAME=VALUE"))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(Refusal::Malformed("a field has an unknown name")),
            };
            if slot.replace(value).is_some() {
                return Err(Refusal::Malformed("a field is there twice"));
            }
        }
        Ok(Self {
            credential: credential.ok_or(Refusal::Malformed("Credential is missing"))?,
            signed_headers: signed_headers.ok_or(Refusal::Malformed("SignedHeaders is missing"))?,
            signature: signature.ok_or(Refusal::Malformed("Signature is missing"))?,
        })
    }
}

/// The header's value where it is there exactly once.
fn single<'r>(head: &'r Parts, name: &str) -> Option<&'r str> {
    let mut values = head.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The region stands in ARNs of the answer, so it must be no more than a word.
fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn signing_time(head: &Parts, day: &str) -> Result<SystemTime, Refusal> {
    let text = single(head, DATE_HEADER).ok_or(Refusal::Malformed(
        "x-amz-date must stand in the request once",
    ))?;
    let bad = Refusal::Malformed("x-amz-date is not a time like 20260131T235959Z");
    // Sixteen characters exactly: what is read is then what the signer writes again.
    if text.len() != 16 {
        return Err(bad);
    }
    if text.split_once('T').map(|(date, _)| date) != Some(day) {
        return Err(Refusal::Malformed(
            "the credential's date is not that of x-amz-date",
        ));
    }
    let at = DateTime::strptime(DATE_FORMAT, text)
        .and_then(|civil| civil.to_zoned(TimeZone::UTC))
        .map_err(|_| bad)?;
    Ok(at.timestamp().into())
}

fn signed_headers<'r>(head: &Parts, list: &'r str) -> Result<Vec<&'r str>, Refusal> {
    let names: Vec<&str> = list.split(';').collect();
    if !names.is_sorted_by(|a, b| a < b) {
        return Err(Refusal::Malformed(
            "SignedHeaders is not sorted, or names a header twice",
        ));
    }
    if names
        .iter()
        .any(|name| name.bytes().any(|b| b.is_ascii_uppercase()))
    {
        return Err(Refusal::Malformed("SignedHeaders is not in lower case"));
    }
    for name in &names {
        if !head.headers.contains_key(*name) {
            return Err(Refusal::Absent((*name).to_owned()));
        }
    }
    for required in [HOST.as_str(), DATE_HEADER] {
        if !names.contains(&required) {
            return Err(Refusal::Unsigned(required.to_owned()));
        }
    }
    if single(head, HOST.as_str()).is_none() {
        return Err(Refusal::Absent(HOST.as_str().to_owned()));
    }
    // A header that carries a parameter (x-amzn-principal does) must not be added or changed on
    // the way. The trace id is written by proxies, and means nothing here.
    for name in head.headers.keys().map(http::HeaderName::as_str) {
        if name.starts_with("x-amz") && name != "x-amzn-trace-id" && !names.contains(&name) {
            return Err(Refusal::Unsigned(name.to_owned()));
        }
    }
    Ok(names)
}

fn whole_second(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at)
        .and_then(|time| time.round(jiff::Unit::Second))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
