//! Names of resources: `arn:aws:iot:REGION:ACCOUNT:KIND/NAME`.
//!
//! An answer's ARNs carry the region its request was signed for; an ARN in a request may carry
//! any region, and must carry this server's account.

use ca::CertificateId;
use fleet::provisioning::TemplateName;
use fleet::{GroupName, Target, ThingName, ThingTypeName};

use crate::api_error::ApiError;

/// Longest ARN read.
const MAX_ARN_BYTES: usize = 2048;

/// Writes and reads ARNs for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arns<'a> {
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
}

impl Arns<'_> {
    fn write(&self, kind: &str, name: impl std::fmt::Display) -> String {
        format!("arn:aws:iot:{}:{}:{kind}/{name}", self.region, self.account)
    }

    pub(crate) fn thing(&self, name: &ThingName) -> String {
        self.write("thing", name)
    }

    pub(crate) fn thing_type(&self, name: &ThingTypeName) -> String {
        self.write("thingtype", name)
    }

    pub(crate) fn group(&self, name: &GroupName) -> String {
        self.write("thinggroup", name)
    }

    pub(crate) fn certificate(&self, id: &CertificateId) -> String {
        self.write("cert", id)
    }

    pub(crate) fn authority(&self, id: &CertificateId) -> String {
        self.write("cacert", id)
    }

    pub(crate) fn policy(&self, name: &policy::PolicyName) -> String {
        self.write("policy", name)
    }

    pub(crate) fn provisioning_template(&self, name: &TemplateName) -> String {
        self.write("provisioningtemplate", name)
    }

    pub(crate) fn job(&self, id: impl std::fmt::Display) -> String {
        self.write("job", id)
    }

    pub(crate) fn job_template(&self, id: impl std::fmt::Display) -> String {
        self.write("jobtemplate", id)
    }

    /// That of a template that belongs to no account.
    pub(crate) fn managed_job_template(&self, name: &str, version: &str) -> String {
        format!("arn:aws:iot:{}::jobtemplate/{name}:{version}", self.region)
    }

    pub(crate) fn ota_update(&self, id: &str) -> String {
        self.write("otaupdate", id)
    }

    pub(crate) fn stream(&self, id: &str) -> String {
        self.write("stream", id)
    }

    /// Splits an ARN of this account into kind and name.
    pub(crate) fn read<'t>(&self, text: &'t str) -> Result<(&'t str, &'t str), ApiError> {
        let shown: String = text.chars().take(200).collect();
        let bad = |why: &str| ApiError::invalid(format!("\"{shown}\" is not usable: {why}"));
        if text.len() > MAX_ARN_BYTES {
            return Err(bad("an ARN has at most 2048 bytes"));
        }
        let mut parts = text.splitn(6, ':');
        let (Some("arn"), Some("aws"), Some("iot"), Some(_region), Some(account), Some(resource)) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(bad(
                "an ARN is written arn:aws:iot:REGION:ACCOUNT:KIND/NAME",
            ));
        };
        if account != self.account {
            return Err(bad(&format!("this server's account is {}", self.account)));
        }
        resource
            .split_once('/')
            .ok_or_else(|| bad("it ends in KIND/NAME, like thing/lamp-1"))
    }

    /// Reads what a policy can be attached to.
    pub(crate) fn read_target(&self, text: &str) -> Result<Target, ApiError> {
        match self.read(text)? {
            ("cert", id) => certificate_id(id).map(Target::Certificate),
            ("thinggroup", name) => name
                .parse::<GroupName>()
                .map(Target::Group)
                .map_err(|error| ApiError::invalid(error.to_string())),
            (kind, _) => Err(ApiError::invalid(format!(
                "a policy is attached to cert/ID or thinggroup/NAME, not to {kind}"
            ))),
        }
    }

    /// Reads a principal: a certificate's ARN.
    pub(crate) fn read_certificate(&self, text: &str) -> Result<CertificateId, ApiError> {
        match self.read(text)? {
            ("cert", id) => certificate_id(id),
            (kind, _) => Err(ApiError::invalid(format!(
                "the principal of a thing is a certificate (cert/ID), not {kind}"
            ))),
        }
    }
}

/// Reads a certificate id.
pub(crate) fn certificate_id(text: &str) -> Result<CertificateId, ApiError> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        ApiError::invalid(format!(
            "\"{shown}\" is no certificate id: 64 lower-case hex digits, as ListCertificates shows them"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::Arns;
    use fleet::Target;

    const ARNS: Arns<'static> = Arns {
        region: "eu-west-1",
        account: "000000000000",
    };

    #[test]
    fn what_is_written_is_read_from_any_region() {
        let id = "ab".repeat(32);
        let there = Arns {
            region: "local",
            ..ARNS
        };
        for target in [
            Target::Certificate(id.parse().unwrap()),
            Target::Group("a:b".parse().unwrap()),
        ] {
            let arn = match &target {
                Target::Certificate(id) => there.certificate(id),
                Target::Group(name) => there.group(name),
            };
            assert!(arn.starts_with("arn:aws:iot:local:000000000000:"));
            assert_eq!(ARNS.read_target(&arn).unwrap(), target);
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let id = "ab".repeat(32);
        for bad in [
            "",
            "lamp-1",
            "arn:aws:iot:r:000000000000",
            "arn:aws:iot:r:000000000000:cert",
            "arn:aws:iot:r:000000000000:cert/xyz",
            "arn:aws:iot:r:000000000000:thing/lamp",
            "arn:aws:iot:r:000000000000:thinggroup/a/b",
            "arn:aws:s3:r:000000000000:cert/xyz",
            &format!("arn:aws:iot:r:111111111111:cert/{id}"),
            &format!("arn:aws:iot:r:000000000000:cert/{}", id.to_uppercase()),
            &"a".repeat(3000),
        ] {
            assert_eq!(ARNS.read_target(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
