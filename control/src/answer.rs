//! What an operation answers.

use std::time::SystemTime;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Serialize, Serializer};

use crate::api_error::ApiError;

/// A 200 with JSON, or with nothing.
#[derive(Debug)]
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    /// Answers with `value` as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, ApiError> {
        serde_json::to_vec(value)
            .map(Self)
            .map_err(|error| ApiError::internal(&error))
    }

    /// Answers with JSON text as it is.
    pub(crate) const fn raw_json(text: Vec<u8>) -> Self {
        Self(text)
    }

    /// Answers `{}`: an operation whose output has no members.
    pub(crate) fn empty_object() -> Result<Self, ApiError> {
        Ok(Self(b"{}".to_vec()))
    }

    /// Answers without a body: an operation that has no output.
    pub(crate) const fn nothing() -> Result<Self, ApiError> {
        Ok(Self(Vec::new()))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        // Answers carry private keys and states that change at any moment.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A time as restJson1 writes it: seconds since 1970, with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EpochSeconds(pub(crate) SystemTime);

impl Serialize for EpochSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let since = self
            .0
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = since.as_secs();
        match since.subsec_millis() {
            0 => serializer.serialize_u64(seconds),
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds of this era are exact in an f64"
            )]
            millis => serializer.serialize_f64(seconds as f64 + f64::from(millis) / 1000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::EpochSeconds;

    #[test]
    fn times_are_numbers_of_seconds() {
        let at = |millis| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            serde_json::to_string(&EpochSeconds(time)).unwrap()
        };
        assert_eq!(at(1_795_521_600_000), "1795521600");
        assert_eq!(at(1_795_521_600_250), "1795521600.25");
    }
}
