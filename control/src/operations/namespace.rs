//! A job's namespace, where a request names it beside the job.

use ota::JobId;

use crate::api_error::ApiError;
use crate::call::Call;
use crate::rooms::Rooms;

/// Refuses a job of another namespace than the request names (`namespaceId`).
pub(super) fn check(rooms: &Rooms, call: &Call, id: &JobId) -> Result<(), ApiError> {
    let asked: Option<String> = call.query("namespaceId")?;
    let Some(asked) = asked else { return Ok(()) };
    if rooms.ota.job(id)?.namespace.as_ref() == Some(&asked) {
        return Ok(());
    }
    Err(ApiError::not_found(format!(
        "there is no job {id} in that namespace"
    )))
}
