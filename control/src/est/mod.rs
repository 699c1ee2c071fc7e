//! EST (RFC 7030, with RFC 8951's corrections) under `/.well-known/est/`: a device enrols itself with a one-time
//! password, and renews under the certificate that it has.

mod message;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ca::{CertificateId, Csr, Profile};
use fleet::{Acting, DeviceKey, Doer, Enrolled, FleetError, Origin, ThingName};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::api_error::ApiError;
use crate::peer::Peer;
use crate::rooms::Rooms;
use message::Basic;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A certificate for a device that has none, or has one and asks all the same.
    Enrol,
    /// Another certificate for a device that has one.
    Reenrol,
    /// A certificate over a key that the server makes.
    KeyAndCertificate,
}

impl Wanted {
    /// RFC 7030's name for it.
    const fn name(self) -> &'static str {
        match self {
            Self::Enrol => "simpleenroll",
            Self::Reenrol => "simplereenroll",
            Self::KeyAndCertificate => "serverkeygen",
        }
    }
}

/// EST's routes.
pub(crate) fn router(rooms: &Arc<Rooms>) -> Router {
    let enrolling = |wanted| {
        let rooms = rooms.clone();
        post(
            async move |Extension(peer): Extension<Peer>, request: Request| {
                enrol(rooms, peer, wanted, request).await
            },
        )
    };
    let (certificates, attributes) = (rooms.clone(), rooms.clone());
    Router::new()
        .route(
            "/.well-known/est/cacerts",
            get(async move |Extension(peer): Extension<Peer>| {
                told(certificates, peer, |rooms| {
                    let all = rooms.authority.certificates(SystemTime::now());
                    let all: Vec<&[u8]> = all.iter().map(|der| &der[..]).collect();
                    Ok(message::certificates(&ca::est::certs_only(&all)?))
                })
                .await
            }),
        )
        .route(
            "/.well-known/est/csrattrs",
            get(async move |Extension(peer): Extension<Peer>| {
                told(attributes, peer, |_| {
                    Ok(message::csr_attributes(&ca::est::csr_attributes()?))
                })
                .await
            }),
        )
        .route("/.well-known/est/simpleenroll", enrolling(Wanted::Enrol))
        .route(
            "/.well-known/est/simplereenroll",
            enrolling(Wanted::Reenrol),
        )
        .route(
            "/.well-known/est/serverkeygen",
            enrolling(Wanted::KeyAndCertificate),
        )
        .route(
            "/.well-known/est/fullcmc",
            post(|| async {
                refused(&ApiError::new(
                    StatusCode::NOT_IMPLEMENTED,
                    "UnsupportedOperationException",
                    "full CMC is not spoken here: use simpleenroll and simplereenroll",
                ))
            }),
        )
}

/// Answers what everybody may know. A device that asks under a new certificate has it in use.
async fn told(
    rooms: Arc<Rooms>,
    peer: Peer,
    work: impl FnOnce(&Rooms) -> Result<Response, ca::CaError> + Send + 'static,
) -> Response {
    let done = tokio::task::spawn_blocking(move || {
        if peer.certificate.is_some()
            && let Ok((id, _)) = device(&rooms, &peer)
        {
            rooms.fleet.renewed(&id, SystemTime::now())?;
        }
        work(&rooms).map_err(|error| ApiError::internal(&error))
    })
    .await
    .map_err(|error| ApiError::internal(&error));
    done.flatten().unwrap_or_else(|error| refused(&error))
}

async fn enrol(rooms: Arc<Rooms>, peer: Peer, wanted: Wanted, request: Request) -> Response {
    let address = peer.address;
    let own = Arc::clone(&rooms);
    let (head, mut body) = request.into_parts();
    let done = match message::request(&head.headers, &mut body).await {
        Err(error) => Err(error),
        Ok(csr) => tokio::task::spawn_blocking(move || {
            let enrolled = judge(&rooms, &peer, wanted, &head.headers, &csr)?;
            answer(&enrolled, wanted)
        })
        .await
        .map_err(|error| ApiError::internal(&error))
        .flatten(),
    };
    done.unwrap_or_else(|error| {
        if let Some(left_out) = own.refusals.take_counting() {
            tracing::info!(peer = %address, ?wanted, code = error.code, message = ?error.message, left_out, "EST request refused");
        }
        refused(&error)
    })
}

/// Who asks, whether it may, and what it gets.
fn judge(
    rooms: &Rooms,
    peer: &Peer,
    wanted: Wanted,
    headers: &HeaderMap,
    request: &[u8],
) -> Result<Enrolled, ApiError> {
    let now = SystemTime::now();
    let asker = Asker::of(rooms, peer, wanted, headers, now)?;
    let csr = Csr::parse(request).map_err(FleetError::Csr)?;
    let thing = asker.thing();
    if !csr.requested_names().fit(thing.as_str()) {
        return Err(ApiError::forbidden(
            "AccessDeniedException",
            format!(
                "the request asks for other names than its sender has: the subject is CN={thing}, or empty, and there are no alternative names"
            ),
        ));
    }
    let key = match wanted {
        Wanted::KeyAndCertificate => DeviceKey::Generate,
        Wanted::Enrol | Wanted::Reenrol => DeviceKey::Csr(request),
    };
    let acting = Acting::new(Doer::Device, Some(thing.to_string()), wanted.name(), now)
        .from(peer.address.ip());
    let fleet = rooms.fleet.acting(Arc::new(acting));
    let enrolled = match &asker {
        Asker::Certified(id, _) => fleet.renew(id, key, now)?,
        Asker::Password(thing, basic) => {
            fleet.enrol_with_password(thing, &basic.password, key, now)?
        }
    };
    tracing::info!(%thing, certificate = %enrolled.certificate.id, ?wanted, "enrolled by EST");
    Ok(enrolled)
}

/// Who asks for a certificate.
enum Asker {
    /// The device that holds an active certificate.
    Certified(CertificateId, ThingName),
    /// Whoever has a thing's one-time password.
    Password(ThingName, Basic),
}

impl Asker {
    /// A certificate that was shown is looked at and nothing else is; without one there must be a password.
    fn of(
        rooms: &Rooms,
        peer: &Peer,
        wanted: Wanted,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Self, ApiError> {
        if peer.certificate.is_some() {
            // A device that slept past its certificate's end may do this one thing under it, for as long as the
            // operator allows.
            let grace = match wanted {
                Wanted::Reenrol => rooms.expired_grace,
                Wanted::Enrol | Wanted::KeyAndCertificate => Duration::ZERO,
            };
            return match device_at(rooms, peer, now, grace) {
                Ok((id, thing)) => Ok(Self::Certified(id, thing)),
                Err(mut error) => {
                    // A swapped board that still shows what was revoked.
                    if wanted != Wanted::Reenrol && Basic::read(headers)?.is_some() {
                        error.message.push_str(
                            " A password is looked at where no certificate is shown: leave the certificate out.",
                        );
                    }
                    Err(error)
                }
            };
        }
        if wanted == Wanted::Reenrol {
            return Err(ApiError::forbidden(
                "AccessDeniedException",
                "a certificate is renewed under that certificate; a device that has none uses simpleenroll",
            ));
        }
        let Some(basic) = Basic::read(headers)? else {
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "UnauthorizedException",
                "show the device's certificate, or its name and one-time password (HTTP Basic)",
            ));
        };
        let thing: ThingName = basic.name.parse().map_err(|_| FleetError::Password)?;
        // Before the request is looked at: it is nobody's to try.
        rooms
            .fleet
            .check_enrolment_password(&thing, &basic.password, now)?;
        Ok(Self::Password(thing, basic))
    }

    fn thing(&self) -> ThingName {
        match self {
            Self::Certified(_, thing) | Self::Password(thing, _) => thing.clone(),
        }
    }
}

/// The device at the other end, if the registry vouches for it now.
fn device(rooms: &Rooms, peer: &Peer) -> Result<(CertificateId, ThingName), ApiError> {
    device_at(rooms, peer, SystemTime::now(), Duration::ZERO)
}

/// The same of a certificate that ended no longer ago than `grace`.
fn device_at(
    rooms: &Rooms,
    peer: &Peer,
    at: SystemTime,
    grace: Duration,
) -> Result<(CertificateId, ThingName), ApiError> {
    let denied = |why: &str| Err(ApiError::forbidden("AccessDeniedException", why));
    let Some(certificate) = &peer.certificate else {
        return denied("This is for a device, under its client certificate.");
    };
    let now = rooms.fleet.standing(&certificate.id)?.now();
    if now.origin == Origin::Own && certificate.profile != Some(Profile::Device) {
        return denied("The client certificate is not a device's.");
    }
    // In its last second, where it has ended: of one that is not known no end is known either.
    if !now.is_active(at.min(now.not_after)) {
        return denied("The registry does not know this certificate as active.");
    }
    let ended = at.duration_since(now.not_after).unwrap_or_default();
    if ended > grace {
        return denied(
            "The certificate has expired: a device that cannot renew it any more claims another, or is given one (muster device replace).",
        );
    }
    match &now.thing {
        Some(thing) => Ok((certificate.id, thing.clone())),
        None => denied("The certificate belongs to no thing."),
    }
}

fn answer(enrolled: &Enrolled, wanted: Wanted) -> Result<Response, ApiError> {
    let certificate =
        ca::est::certs_only(&[&enrolled.issued.der]).map_err(|error| ApiError::internal(&error))?;
    match (&enrolled.key, wanted) {
        (Some(key), Wanted::KeyAndCertificate) => message::key_and_certificate(key, &certificate),
        _ => Ok(message::certificates(&certificate)),
    }
}

/// A refusal as text, which is what EST clients show (RFC 7030 §4.2.3).
fn refused(error: &ApiError) -> Response {
    let mut response = Response::new(Body::from(format!("{}\n", error.message)));
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if error.status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"estrealm\", charset=\"UTF-8\""),
        );
    }
    response.into_response()
}
