//! What becomes of devices whose authority registers by itself, as AWS IoT writes it.

use fleet::authorities::Registration;
use fleet::provisioning::TemplateName;
use serde::{Deserialize, Serialize};

/// `registrationConfig`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RegistrationConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template_body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role_arn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template_name: Option<TemplateName>,
}

impl RegistrationConfig {
    /// `None` where it says nothing of a template: then there is none.
    pub(super) fn read(self) -> Option<Registration> {
        (self.template_body.is_some() || self.template_name.is_some()).then_some(Registration {
            template_body: self.template_body,
            template_name: self.template_name,
            role_arn: self.role_arn,
        })
    }

    pub(super) fn of(registration: Registration) -> Self {
        Self {
            template_body: registration.template_body,
            role_arn: registration.role_arn,
            template_name: registration.template_name,
        }
    }
}
