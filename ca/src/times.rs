//! Between the system's time, the encoder's and ASN.1's: whole seconds, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use x509_parser::time::ASN1Time;

use crate::error::CaError;

/// Whole seconds since 1970; certificates know no fractions.
pub(crate) fn seconds(at: SystemTime) -> Result<i64, CaError> {
    at.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .ok_or_else(|| {
            CaError::invalid(
                "time",
                &format!("{at:?}"),
                "it lies before 1970 or too far ahead",
            )
        })
}

/// The encoder's time of seconds since 1970.
pub(crate) fn encodable(seconds: i64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| CaError::invalid("time", &seconds.to_string(), "it lies after the year 9999"))
}

/// The system's time of an ASN.1 time.
pub(crate) fn system(at: ASN1Time) -> Result<SystemTime, CaError> {
    let seconds = at.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    at.ok_or_else(|| CaError::Unreadable {
        reason: "its validity lies outside of what this system's clock can say".to_owned(),
    })
}

/// For people: `2026-11-24 03:50:00 UTC`.
pub(crate) fn readable(at: SystemTime) -> String {
    let Ok(at) = seconds(at).and_then(encodable) else {
        return "a time before 1970".to_owned();
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}
