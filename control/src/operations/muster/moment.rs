//! Moments that a request names.

use std::time::SystemTime;

use crate::api_error::ApiError;

/// Reads the moment of a field.
pub(super) fn read(field: &str, text: &str) -> Result<SystemTime, ApiError> {
    let moment: jiff::Timestamp = text.parse().map_err(|_| {
        let shown: String = text.chars().take(200).collect();
        ApiError::invalid(format!(
            "{field}: {shown:?} is no moment; write one like 2026-01-31T23:59:59Z"
        ))
    })?;
    if moment < jiff::Timestamp::UNIX_EPOCH {
        return Err(ApiError::invalid(format!(
            "{field}: {text:?} lies before 1970"
        )));
    }
    Ok(moment.into())
}
