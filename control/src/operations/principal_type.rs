//! How a certificate is a thing's: here always exclusively, because every device has one of its own.

use crate::api_error::ApiError;
use crate::call::Call;

/// AWS's word for it.
pub(super) const EXCLUSIVE: &str = "EXCLUSIVE_THING";

/// Whether a list is to have exclusive attachments, the only ones there are.
pub(super) fn wants_exclusive(call: &Call) -> Result<bool, ApiError> {
    match call.query::<String>("thingPrincipalType")?.as_deref() {
        None | Some(EXCLUSIVE) => Ok(true),
        Some("NON_EXCLUSIVE_THING") => Ok(false),
        Some(_) => Err(ApiError::invalid(
            "thingPrincipalType is EXCLUSIVE_THING or NON_EXCLUSIVE_THING",
        )),
    }
}
