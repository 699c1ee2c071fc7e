//! Plain HTTP, as RFC 5280 §4.2.1.13 wants it for what is signed by itself: the revocation list
//! and the two CA certificates, and nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use ca::Authority;
use fleet::Fleet;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;

/// How long a list is good for (its nextUpdate, RFC 5280 §5.1.2.5).
const LIST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A list with less life left than this is made anew, so that who fetches one can keep it.
const MIN_LIFE_LEFT: Duration = Duration::from_secs(12 * 60 * 60);
/// How far thisUpdate lies back, for readers whose clock is late.
const BACKDATED: Duration = Duration::from_secs(60);

/// The plain listener's routes.
pub(crate) fn router(fleet: &Fleet, authority: &Arc<Authority>) -> Router {
    let lists = Arc::new(RevocationLists {
        fleet: fleet.clone(),
        authority: authority.clone(),
        current: Mutex::new(None),
    });
    let root = Bytes::from(authority.root_der().to_vec());
    let issuing = Bytes::from(authority.issuing_der().to_vec());
    Router::new()
        .route("/crl/0.crl", get(move || serve_list(lists.clone())))
        .route("/root.crt", get(async move || certificate(root.clone())))
        .route(
            "/issuing.crt",
            get(async move || certificate(issuing.clone())),
        )
}

async fn serve_list(lists: Arc<RevocationLists>) -> Response {
    let made = tokio::task::spawn_blocking(move || lists.at(SystemTime::now())).await;
    match made {
        Ok(Ok(der)) => of_type("application/pkix-crl", der),
        Ok(Err(reason)) => {
            tracing::error!(reason, "the revocation list could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
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

/// The revocation list as it was last signed.
struct RevocationLists {
    fleet: Fleet,
    authority: Arc<Authority>,
    /// Held while a new one is signed, so that each change is signed once.
    current: Mutex<Option<Current>>,
}

struct Current {
    der: Bytes,
    epoch: u64,
    number: u64,
    next_update: SystemTime,
}

impl RevocationLists {
    /// The list that says everything decided before `now`; blocks.
    fn at(&self, now: SystemTime) -> Result<Bytes, String> {
        let mut current = self.current.lock();
        // Read before the entries: a revocation in between makes the next call sign again.
        let epoch = self.fleet.revocation_epoch();
        if let Some(list) = current.as_ref()
            && list.epoch == epoch
            && list.next_update > now + MIN_LIFE_LEFT
        {
            return Ok(list.der.clone());
        }
        let entries = self.fleet.revoked(now).map_err(|error| error.to_string())?;
        let next_update = now + LIST_LIFE;
        // RFC 5280 §5.2.3: numbers rise, over restarts too, so they are the clock's. Two lists of
        // one millisecond, or a clock that was set back, get the number after.
        let clock = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            .unwrap_or_default();
        let number = match current.as_ref() {
            Some(before) => clock.max(before.number.saturating_add(1)),
            None => clock,
        };
        let der = self
            .authority
            .crl(number, &entries, now - BACKDATED, next_update)
            .map_err(|error| error.to_string())?;
        let der = Bytes::from(der);
        *current = Some(Current {
            der: der.clone(),
            epoch,
            number,
            next_update,
        });
        Ok(der)
    }
}
