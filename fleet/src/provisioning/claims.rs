//! Claim certificates: what a device is born with, and all it may do with it.

use super::TemplateName;
use crate::issued::put_issued;
use crate::{
    CertificateStatus, EnrolmentWay, Fleet, FleetError, KeyOwner, Kind, Page,
    certificates::record_of, keys, records::Present, taken,
};
use ca::{CertificateId, Csr, Issued, KeyPair, Profile, Subject};
use policy::Policy;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, SystemTime};
use store::Stored;

/// Life of a claim that a trusted user asks for (AWS IoT: 5 minutes).
pub const TRUSTED_USER_CLAIM_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Longest life of any other.
pub const CLAIM_LIFETIME_LIMIT: Duration = Duration::from_secs(364 * 24 * 60 * 60);
/// Most networks a claim may be used from.
const SOURCES_LIMIT_ITEMS: usize = 20;
/// Most claims that are cleared away in one go.
const SWEEP_LIMIT_ITEMS: usize = 250;

/// What a claim is bounded by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimLimits {
    /// Most devices; `None` for no bound.
    pub uses: Option<u32>,
    /// Most certificates asked for, and most registrations tried, in a minute.
    pub rate_per_minute: Option<u32>,
    /// Networks (`10.0.0.0/8`, `2001:db8::/32`) it may connect from; empty for any.
    pub sources: Vec<String>,
}

/// A claim to be made.
#[derive(Debug, Clone)]
pub struct NewClaim<'a> {
    /// The one template it may use.
    pub template: &'a TemplateName,
    /// What it is bounded by.
    pub limits: ClaimLimits,
    /// How long it lives.
    pub lifetime: Duration,
    /// A CSR (PEM or DER), where the key is made elsewhere.
    pub csr: Option<&'a [u8]>,
}

/// A claim as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its certificate.
    pub id: CertificateId,
    /// The one template it may use.
    pub template: TemplateName,
    /// What it is bounded by.
    pub limits: ClaimLimits,
    /// When it ends.
    pub expires: SystemTime,
    /// When it was made.
    pub created: SystemTime,
}

/// How often a claim was used; apart from the claim, so that a use is no change of what it may do.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct ClaimUse {
    pub(super) used: u32,
}

impl Stored for Claim {}
impl Stored for ClaimUse {}

impl Claim {
    /// What it may do on MQTT: enrol by its template, from its networks, and nothing else.
    pub(crate) fn policy(&self, account: &str) -> Result<Policy, policy::PolicyError> {
        Policy::parse(&document(&self.template, &self.limits.sources, account))
    }
}

fn document(template: &TemplateName, sources: &[String], account: &str) -> String {
    let arn = |resource: String| format!("arn:aws:iot:*:{account}:{resource}");
    let topics = |kind: &str| {
        [
            arn(format!("{kind}/$aws/certificates/create/*")),
            arn(format!("{kind}/$aws/certificates/create-from-csr/*")),
            arn(format!(
                "{kind}/$aws/provisioning-templates/{template}/provision/*"
            )),
        ]
    };
    let mut statements = vec![
        json!({"Effect": "Allow", "Action": "iot:Connect", "Resource": arn("client/*".into())}),
        json!({"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": topics("topic")}),
        json!({"Effect": "Allow", "Action": "iot:Subscribe", "Resource": topics("topicfilter")}),
    ];
    if !sources.is_empty() {
        for statement in &mut statements {
            if let Some(fields) = statement.as_object_mut() {
                let condition = json!({"IpAddress": {"aws:SourceIp": sources}});
                fields.insert("Condition".to_owned(), condition);
            }
        }
    }
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

impl Fleet {
    /// Whether a certificate is a claim's.
    ///
    /// # Errors
    /// When the store fails.
    pub fn is_claim(&self, id: &CertificateId) -> Result<bool, FleetError> {
        Ok(self.read::<Claim>(&keys::claim(id))?.is_some())
    }

    /// Makes a claim certificate.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the template; [`FleetError::Invalid`] for a bound; [`FleetError::Csr`],
    /// [`FleetError::Authority`].
    pub fn create_claim(
        &self,
        new: &NewClaim<'_>,
        now: SystemTime,
    ) -> Result<(Claim, Issued, Option<KeyPair>), FleetError> {
        let NewClaim {
            template,
            limits,
            lifetime,
            ..
        } = new;
        if lifetime.is_zero() || *lifetime > CLAIM_LIFETIME_LIMIT {
            return Err(FleetError::Invalid(format!(
                "a claim lives 1 second to {} days",
                CLAIM_LIFETIME_LIMIT.as_secs() / 86_400
            )));
        }
        if limits.uses == Some(0) || limits.rate_per_minute == Some(0) {
            return Err(FleetError::Invalid(
                "a claim has at least one use, and a rate of at least one in a minute".into(),
            ));
        }
        if limits.sources.len() > SOURCES_LIMIT_ITEMS {
            return Err(FleetError::Limit {
                what: "networks of a claim".into(),
                limit: SOURCES_LIMIT_ITEMS,
            });
        }
        Policy::parse(&document(
            template,
            &limits.sources,
            &self.inner.realm.account,
        ))
        .map_err(|error| {
            FleetError::Invalid(format!(
                "the networks of a claim ({}): {error}",
                limits.sources.join(", ")
            ))
        })?;
        self.provisioning_template(template)?;
        let subject = Subject {
            common_name: format!("claim of {template}"),
            names: Vec::new(),
        };
        let issue = |key: &ca::PublicKey| -> Result<Issued, FleetError> {
            self.refuse_for_claim(key)?;
            let authority = &self.inner.authority;
            Ok(authority.issue_for(Profile::Device, &subject, key, *lifetime, now)?)
        };
        let (issued, key) = match new.csr {
            None => {
                let pair = KeyPair::generate()?;
                (issue(pair.public())?, Some(pair))
            }
            Some(csr) => (issue(Csr::parse(csr)?.public_key())?, None),
        };
        let record = record_of(
            &issued,
            CertificateStatus::Active,
            EnrolmentWay::Operator,
            now,
        );
        let claim = Claim {
            id: record.id,
            template: (*template).clone(),
            limits: limits.clone(),
            expires: record.not_after,
            created: now,
        };
        let key_id = ca::key_id(&record.pem)?;
        self.transact(|t| {
            if !t.exists(&keys::template(template))? {
                return Err(FleetError::not_found(Kind::Template, template));
            }
            put_issued(t, &record)?;
            taken::take(t, &key_id, KeyOwner::Claim)?;
            t.put(keys::claim(&claim.id), &claim)?;
            t.put(keys::claim_use(&claim.id), &ClaimUse::default())?;
            t.put(keys::claim_end(claim.expires, &claim.id), &Present)
        })?;
        Ok((claim, issued, key))
    }

    /// Claims in order of id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn claims(&self, after: Option<&str>, limit: usize) -> Result<Page<Claim>, FleetError> {
        self.page_of_values(keys::CLAIM, after, limit)
    }

    /// A claim, and how many devices it has enrolled.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn claim(&self, id: &CertificateId) -> Result<(Claim, u32), FleetError> {
        let claim = self
            .read::<Claim>(&keys::claim(id))?
            .ok_or_else(|| FleetError::not_found(Kind::Claim, id))?;
        let uses: ClaimUse = self.read(&keys::claim_use(id))?.unwrap_or_default();
        Ok((claim, uses.used))
    }

    /// Clears claims away that have ended, with their certificates; those that were revoked stay on the list.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sweep_claims(&self, now: SystemTime) -> Result<usize, FleetError> {
        let mut swept = 0;
        loop {
            let due = self.due::<CertificateId>(keys::CLAIM_END, now, SWEEP_LIMIT_ITEMS)?;
            if due.is_empty() {
                return Ok(swept);
            }
            self.transact_alone(|t| {
                for (key, id) in &due {
                    t.delete(key.clone());
                    self.remove_certificate(t, id, None, &[], now)?;
                }
                Ok(())
            })?;
            swept += due.len();
        }
    }

    /// The rows of an index by time whose time has come: their keys, and the last part of each.
    pub(super) fn due<T: std::str::FromStr>(
        &self,
        prefix: &str,
        now: SystemTime,
        limit: usize,
    ) -> Result<Vec<(String, T)>, FleetError> {
        let rows = self.inner.table.scan(prefix, None, limit)?;
        let end = format!("{prefix}{}", keys::moment(now));
        let due = rows.into_iter().take_while(|(key, _)| *key < end);
        Ok(due
            .filter_map(|(key, _)| {
                let last = key.rsplit('/').next()?.parse().ok()?;
                Some((key, last))
            })
            .collect())
    }
}
