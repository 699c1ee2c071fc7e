//! A claim certificate as it is shown.

use fleet::provisioning::{Claim, TemplateName};
use serde::Serialize;

use crate::answer::EpochSeconds;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::rooms::Rooms;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    certificate_id: String,
    certificate_arn: String,
    template_name: TemplateName,
    status: &'static str,
    used: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_minute: Option<u32>,
    sources: Vec<String>,
    created_at: EpochSeconds,
    expires_at: EpochSeconds,
}

impl Shown {
    pub(super) fn of(
        rooms: &Rooms,
        call: &Call,
        claim: Claim,
        used: u32,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            certificate_id: claim.id.to_string(),
            certificate_arn: call.arns(rooms).certificate(&claim.id),
            status: rooms.fleet.certificate(&claim.id)?.status.as_str(),
            template_name: claim.template,
            used,
            uses: claim.limits.uses,
            rate_per_minute: claim.limits.rate_per_minute,
            sources: claim.limits.sources,
            created_at: EpochSeconds(claim.created),
            expires_at: EpochSeconds(claim.expires),
        })
    }
}
