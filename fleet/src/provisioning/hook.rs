//! Who else is asked before a device becomes a thing: an HTTPS service of the operator's, or a list of what is
//! allowed. No answer is a refusal.

use super::{Rejection, TemplateName};
use crate::{Fleet, FleetError, Page, keys, records::Present, template::CERTIFICATE_ID};
use ca::CertificateId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long a hook may take to answer (AWS IoT: 5 s).
pub const HOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Most values of one change of an allow list.
pub const ALLOW_LIST_CHANGE_LIMIT_ITEMS: usize = 1_000;
/// Longest value on an allow list.
const VALUE_LIMIT_BYTES: usize = 256;
/// Longest URL (AWS IoT's bound of a target).
const URL_LIMIT_BYTES: usize = 2_048;
/// Longest PEM of the roots a hook is trusted by.
const ROOTS_LIMIT_BYTES: usize = 64 * 1024;
/// How an allow list is written where AWS has the ARN of a function.
const ALLOW_LIST: &str = "allow-list:";

/// A pre-provisioning hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Hook {
    /// A service that is sent what AWS IoT sends a function, and answers as one.
    Https {
        /// Where it is.
        url: String,
        /// What its certificate must chain to, PEM; the server's own root where this is `None`.
        roots: Option<String>,
    },
    /// The value of one parameter must stand on the template's list.
    AllowList {
        /// The parameter.
        parameter: String,
    },
}

impl Hook {
    /// Reads a hook as the API writes it: `https://…`, or `allow-list:PARAMETER`.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] with what would be right.
    pub fn parse(target: &str, roots: Option<String>) -> Result<Self, FleetError> {
        if roots
            .as_ref()
            .is_some_and(|pem| pem.len() > ROOTS_LIMIT_BYTES)
        {
            return Err(FleetError::Limit {
                what: "bytes of the roots a hook is trusted by".into(),
                limit: ROOTS_LIMIT_BYTES,
            });
        }
        if let Some(parameter) = target
            .strip_prefix(ALLOW_LIST)
            .filter(|name| !name.is_empty())
        {
            return Ok(Hook::AllowList {
                parameter: parameter.to_owned(),
            });
        }
        let plain = |c: char| c.is_ascii_graphic();
        let host = target.strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || target.len() > URL_LIMIT_BYTES || !target.chars().all(plain) {
            return Err(FleetError::Invalid(format!(
                "a pre-provisioning hook is https://HOST/PATH (at most {URL_LIMIT_BYTES} bytes) or {ALLOW_LIST}PARAMETER; \
                 there are no functions here that an ARN could name"
            )));
        }
        Ok(Hook::Https {
            url: target.to_owned(),
            roots,
        })
    }

    /// Whether somebody else is waited for.
    pub(crate) fn is_asked_elsewhere(&self) -> bool {
        matches!(self, Hook::Https { .. })
    }

    /// The hook as the API writes it.
    pub fn target(&self) -> String {
        match self {
            Hook::Https { url, .. } => url.clone(),
            Hook::AllowList { parameter } => format!("{ALLOW_LIST}{parameter}"),
        }
    }
}

/// Calls an HTTPS hook.
pub trait HookCaller: Send + Sync {
    /// POSTs `body` as JSON to `url` and returns the JSON of a 200 answer, within `deadline` all in all.
    ///
    /// # Errors
    /// What went wrong, in words for the log.
    fn call(
        &self,
        url: &str,
        roots: Option<&str>,
        body: &Value,
        deadline: Duration,
    ) -> Result<Value, String>;
}

/// What a hook answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    allow_provisioning: bool,
    #[serde(default)]
    parameter_overrides: BTreeMap<String, String>,
}

/// Reads a hook's answer: the parameters it puts over the device's.
fn verdict(answer: Value) -> Result<BTreeMap<String, String>, Rejection> {
    match serde_json::from_value::<Verdict>(answer) {
        Ok(verdict) if verdict.allow_provisioning => Ok(verdict.parameter_overrides),
        Ok(_) => Err(refused("the pre-provisioning hook does not allow it")),
        Err(error) => {
            tracing::warn!(%error, "a pre-provisioning hook's answer was not understood: refused");
            Err(refused("the pre-provisioning hook gave no usable answer"))
        }
    }
}

/// What a hook is told of a device that is to become a thing.
pub(crate) struct HookQuestion<'a> {
    /// The template.
    pub(crate) template: &'a TemplateName,
    /// The certificate that asks: a claim's, or the device's own.
    pub(crate) asker: CertificateId,
    /// The client id it asks under; empty where it has none yet.
    pub(crate) client_id: &'a str,
    /// Of the template's ARN.
    pub(crate) region: &'a str,
    /// What is known of the device.
    pub(crate) parameters: &'a BTreeMap<String, String>,
    /// The certificate the device is to have.
    pub(crate) certificate: (CertificateId, &'a str),
}

pub(super) fn refused(message: &str) -> Rejection {
    Rejection::denied(message)
}

impl Fleet {
    /// Asks a template's hook; says which parameters it puts over the device's.
    pub(crate) fn ask_hook(
        &self,
        hook: &Hook,
        asked: &HookQuestion<'_>,
        caller: &dyn HookCaller,
    ) -> Result<BTreeMap<String, String>, Rejection> {
        let HookQuestion {
            template, region, ..
        } = asked;
        match hook {
            Hook::AllowList { parameter } => {
                let value = asked.parameters.get(parameter);
                match self.allows(template, value.map(String::as_str).unwrap_or_default())? {
                    true => Ok(BTreeMap::new()),
                    false => Err(refused(&format!(
                        "{parameter} is not on the template's allow list"
                    ))),
                }
            }
            Hook::Https { url, roots } => {
                let account = &self.inner.realm.account;
                let mut parameters = asked.parameters.clone();
                // Told by a field of its own.
                parameters.remove(CERTIFICATE_ID);
                let (id, pem) = asked.certificate;
                let body = json!({
                    "claimCertificateId": asked.asker.to_string(),
                    "certificateId": id.to_string(),
                    "certificatePem": pem,
                    "templateArn": format!("arn:aws:iot:{region}:{account}:provisioningtemplate/{template}"),
                    "clientId": asked.client_id,
                    "parameters": parameters,
                });
                let answer = caller
                    .call(url, roots.as_deref(), &body, HOOK_DEADLINE)
                    .map_err(|error| {
                        tracing::warn!(url, error, "a pre-provisioning hook failed: refused");
                        refused("the pre-provisioning hook could not be asked")
                    })?;
                verdict(answer)
            }
        }
    }

    /// Puts values on a template's allow list and takes others off it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the template, [`FleetError::Invalid`] for a value, [`FleetError::Limit`].
    pub fn change_allow_list(
        &self,
        template: &TemplateName,
        add: &[String],
        remove: &[String],
    ) -> Result<(), FleetError> {
        if add.len() + remove.len() > ALLOW_LIST_CHANGE_LIMIT_ITEMS {
            return Err(FleetError::Limit {
                what: "values in one change of an allow list".into(),
                limit: ALLOW_LIST_CHANGE_LIMIT_ITEMS,
            });
        }
        for value in add {
            if !listable(value) {
                let shown: String = value.chars().take(80).collect();
                return Err(FleetError::Invalid(format!(
                    "{shown:?} cannot stand on an allow list: 1 to {VALUE_LIMIT_BYTES} bytes, no '/' and no control character"
                )));
            }
        }
        self.transact(|t| {
            if !t.exists(&keys::template(template))? {
                return Err(FleetError::not_found(crate::Kind::Template, template));
            }
            for value in add {
                t.put(format!("{}{value}", keys::allowed(template)), &Present)?;
            }
            for value in remove.iter().filter(|value| listable(value)) {
                t.delete(format!("{}{value}", keys::allowed(template)));
            }
            Ok(())
        })
    }

    /// One page of a template's allow list.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn allow_list(
        &self,
        template: &TemplateName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<String>, FleetError> {
        self.provisioning_template(template)?;
        self.page_of_names(&keys::allowed(template), after, limit)
    }

    pub(super) fn allows(&self, template: &TemplateName, value: &str) -> Result<bool, FleetError> {
        if !listable(value) {
            return Ok(false);
        }
        let row: Option<Present> = self.read(&format!("{}{value}", keys::allowed(template)))?;
        Ok(row.is_some())
    }
}

/// Whether a value can be the last part of a key.
fn listable(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= VALUE_LIMIT_BYTES
        && !value.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for good in ["https://hook.example/x", "allow-list:SerialNumber"] {
            assert_eq!(Hook::parse(good, None).unwrap().target(), good);
        }
        for bad in [
            "",
            "https://",
            "http://hook.example",
            "allow-list:",
            "https://a b",
            "arn:aws:lambda:us-east-1:1:function:f",
            &format!("https://{}", "a".repeat(2_048)),
        ] {
            assert!(Hook::parse(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        let overrides = json!({"allowProvisioning": true, "parameterOverrides": {"a": "b"}});
        assert_eq!(verdict(overrides).unwrap()["a"], "b");
        for no in [
            json!({"allowProvisioning": false}),
            json!({"allowProvisioning": "true"}),
            json!({}),
            json!([]),
            json!(null),
            json!({"allowProvisioning": true, "parameterOverrides": {"a": 1}}),
        ] {
            assert_eq!(verdict(no.clone()).unwrap_err().status, 403, "{no}");
        }
    }
}
