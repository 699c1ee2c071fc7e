//! Words of an operator that are kept with a device.

use crate::api_error::ApiError;

/// Characters of the longest kept.
const MAX_CHARS: usize = 256;

/// Refuses what is too long to be kept, and what is none where it must be there.
pub(super) fn check(field: &str, words: &str) -> Result<(), ApiError> {
    if words.trim().is_empty() {
        return Err(ApiError::invalid(format!("{field}: say it in words")));
    }
    if words.chars().nth(MAX_CHARS).is_some() {
        return Err(ApiError::invalid(format!(
            "{field}: at most {MAX_CHARS} characters"
        )));
    }
    Ok(())
}
