//! How a certificate is attached to its thing, in AWS's words.

use fleet::Attachment;

use crate::api_error::ApiError;
use crate::call::Call;

/// AWS's word for it.
pub(super) fn named(attachment: Attachment) -> &'static str {
    match attachment {
        Attachment::Exclusive => "EXCLUSIVE_THING",
        Attachment::NonExclusive => "NON_EXCLUSIVE_THING",
    }
}

/// The one that a request names, if any.
pub(super) fn asked(call: &Call) -> Result<Option<Attachment>, ApiError> {
    let Some(asked) = call.query::<String>("thingPrincipalType")? else {
        return Ok(None);
    };
    let both = [Attachment::Exclusive, Attachment::NonExclusive];
    let found = both.into_iter().find(|one| named(*one) == asked);
    found.map(Some).ok_or_else(|| {
        ApiError::invalid(format!(
            "thingPrincipalType {asked:?}: EXCLUSIVE_THING or NON_EXCLUSIVE_THING"
        ))
    })
}
