//! What the operations on provisioning templates share.

use fleet::provisioning::{Hook, TemplateKind};
use serde::{Deserialize, Serialize};

use crate::api_error::ApiError;

/// The one payload version AWS has.
const PAYLOAD_VERSION: &str = "2020-04-01";

/// A hook as AWS writes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct HookBody {
    payload_version: Option<String>,
    target_arn: String,
}

impl HookBody {
    pub(super) fn read(self) -> Result<Hook, ApiError> {
        match self.payload_version.as_deref() {
            None | Some(PAYLOAD_VERSION) => Ok(Hook::parse(&self.target_arn, None)?),
            Some(_) => Err(ApiError::invalid(format!(
                "preProvisioningHook.payloadVersion is {PAYLOAD_VERSION}"
            ))),
        }
    }

    pub(super) fn of(hook: &Hook) -> Self {
        HookBody {
            payload_version: Some(PAYLOAD_VERSION.to_owned()),
            target_arn: hook.target(),
        }
    }
}

pub(super) fn read_kind(text: Option<&str>) -> Result<TemplateKind, ApiError> {
    match text {
        None | Some("FLEET_PROVISIONING") => Ok(TemplateKind::FleetProvisioning),
        Some("JITP") => Ok(TemplateKind::Jitp),
        Some(_) => Err(ApiError::invalid("type is FLEET_PROVISIONING or JITP")),
    }
}

pub(super) const fn kind_name(kind: TemplateKind) -> &'static str {
    match kind {
        TemplateKind::FleetProvisioning => "FLEET_PROVISIONING",
        TemplateKind::Jitp => "JITP",
    }
}
