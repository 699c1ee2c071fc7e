//! The registry's rows, as stored and as shown.

use crate::{GroupName, ThingName, ThingTypeName};
use ca::{CertificateId, RevocationReason, RevokedEntry};
use policy::PolicyName;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr, time::SystemTime};
use store::Stored;

/// A device in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Its name, and the client id it connects with.
    pub name: ThingName,
    /// Searchable attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its thing type.
    #[serde(default)]
    pub type_name: Option<ThingTypeName>,
    /// Rises by one with each change of the thing itself; starts at 1.
    pub version: u64,
    /// When it was made.
    pub created: SystemTime,
}

impl Thing {
    /// An id that is the same for the life of the thing, and another for one of the same name later. Written as a UUID
    /// of version 8 (RFC 9562 §5.8: the digits are the implementation's own).
    pub fn id(&self) -> String {
        let since = self.created.duration_since(SystemTime::UNIX_EPOCH);
        let text = format!("{}\0{}", since.unwrap_or_default().as_nanos(), self.name);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        uuid(&data_encoding::HEXLOWER.encode(hash.as_ref()), '8')
    }
}

/// The first 32 hex digits as a UUID of that version, and of the variant of RFC 9562.
pub(crate) fn uuid(hex: &str, version: char) -> String {
    let digits = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{version}{}-8{}-{}",
        digits(0, 8),
        digits(8, 12),
        digits(13, 16),
        digits(17, 20),
        digits(20, 32)
    )
}

/// A thing group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// A random id, stable for the life of the group.
    pub id: String,
    /// The group it belongs to, for its whole life.
    #[serde(default)]
    pub parent: Option<GroupName>,
    /// What it is for.
    pub description: Option<String>,
    /// Attributes of the group.
    pub attributes: BTreeMap<String, String>,
    /// Rises by one with each change; starts at 1.
    pub version: u64,
    /// When it was made.
    pub created: SystemTime,
    /// Of a dynamic group: which things are in it.
    #[serde(default)]
    pub query: Option<String>,
    /// Whether things that were there before the query are still coming in.
    #[serde(default)]
    pub building: bool,
}

/// A certificate's state, as AWS IoT names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertificateStatus {
    /// May connect.
    Active,
    /// May not connect now; can become active again.
    Inactive,
    /// May never connect again; stands on the revocation list.
    Revoked,
    /// Made by a claim that has not been completed.
    PendingActivation,
}

impl CertificateStatus {
    /// The AWS name.
    pub fn as_str(self) -> &'static str {
        match self {
            CertificateStatus::Active => "ACTIVE",
            CertificateStatus::Inactive => "INACTIVE",
            CertificateStatus::Revoked => "REVOKED",
            CertificateStatus::PendingActivation => "PENDING_ACTIVATION",
        }
    }
}

impl fmt::Display for CertificateStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CertificateStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ACTIVE" => Ok(CertificateStatus::Active),
            "INACTIVE" => Ok(CertificateStatus::Inactive),
            "REVOKED" => Ok(CertificateStatus::Revoked),
            "PENDING_ACTIVATION" => Ok(CertificateStatus::PendingActivation),
            other => Err(format!(
                "{other:?} is no certificate status: ACTIVE, INACTIVE or REVOKED"
            )),
        }
    }
}

/// Who signed a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Origin {
    /// Our own authority.
    #[default]
    Own,
    /// A registered authority, by its id.
    Authority(CertificateId),
    /// Somebody who is not registered here: it is believed by itself.
    Alone,
}

/// What is known of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// SHA-256 of its DER.
    pub id: CertificateId,
    /// The certificate itself, PEM, without its chain.
    pub pem: String,
    /// Its serial number, hex.
    pub serial: ca::Serial,
    /// Its state.
    pub status: CertificateStatus,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of its validity.
    pub not_after: SystemTime,
    /// When it was registered.
    pub created: SystemTime,
    /// When its state last changed.
    pub modified: SystemTime,
    /// When and why it was revoked.
    pub revocation: Option<Revocation>,
    /// Rises by one with each change of state; starts at 1.
    pub version: u64,
    /// Who signed it.
    #[serde(default)]
    pub origin: Origin,
    /// The way it came in; nothing where a release wrote it that did not note it.
    #[serde(default)]
    pub way: Option<EnrolmentWay>,
    /// The one that a renewal put in its place, since that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<CertificateId>,
    /// The registered authority by whose certificate its device came to it: it is good for as long as that one's are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sponsor: Option<CertificateId>,
}

impl CertificateRecord {
    /// What revocation lists and OCSP say of it, where it is one of our own: when and why it was revoked, or that it is on
    /// hold since it is INACTIVE. Nothing while it is good, or is still to be.
    #[must_use]
    pub fn listed_as(&self) -> Option<RevokedEntry> {
        let (revoked_at, reason) = match (self.status, &self.revocation) {
            (CertificateStatus::Revoked, Some(revocation)) => (revocation.at, revocation.reason),
            (CertificateStatus::Revoked, None) => (self.modified, RevocationReason::Unspecified),
            (CertificateStatus::Inactive, _) => (self.modified, RevocationReason::CertificateHold),
            (CertificateStatus::Active | CertificateStatus::PendingActivation, _) => return None,
        };
        Some(RevokedEntry {
            serial: self.serial.clone(),
            revoked_at,
            reason,
        })
    }

    /// The registered authority that must be active for this certificate to be.
    #[must_use]
    pub fn vouching_authority(&self) -> Option<CertificateId> {
        match self.origin {
            Origin::Authority(id) => Some(id),
            Origin::Own | Origin::Alone => self.sponsor,
        }
    }
}

impl CertificateRecord {
    /// Whether an operator took it from its device in a way that is no claim's to undo: deactivated it, or revoked it
    /// because somebody else has its key.
    pub(crate) fn is_barred(&self) -> bool {
        match self.status {
            CertificateStatus::Inactive => self.superseded_by.is_none(),
            CertificateStatus::Revoked => {
                let revocation = self.revocation.as_ref();
                revocation.is_some_and(|r| r.reason == RevocationReason::KeyCompromise)
            }
            CertificateStatus::Active | CertificateStatus::PendingActivation => false,
        }
    }
}

/// The ways in which a certificate comes into the registry, for `muster:EnrolmentWay`. A renewed one came the way of
/// the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnrolmentWay {
    /// An operator asked for it: `device create`, `device replace` or one of AWS's operations.
    Operator,
    /// Fleet provisioning by claim.
    Claim,
    /// EST, with a one-time password.
    Est,
    /// Just-in-time provisioning: a registered authority signed it, and a template did the rest.
    Jitp,
    /// Just-in-time registration: a registered authority signed it, and it waited for an operator.
    Jitr,
    /// A registration task.
    Bulk,
    /// An operator registered what others had signed.
    Import,
}

impl EnrolmentWay {
    /// The word for it in policies, which is the one in the row.
    pub fn as_str(self) -> &'static str {
        match self {
            EnrolmentWay::Operator => "operator",
            EnrolmentWay::Claim => "claim",
            EnrolmentWay::Est => "est",
            EnrolmentWay::Jitp => "jitp",
            EnrolmentWay::Jitr => "jitr",
            EnrolmentWay::Bulk => "bulk",
            EnrolmentWay::Import => "import",
        }
    }
}

/// When and why a certificate was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The moment of the decision.
    pub at: SystemTime,
    /// RFC 5280 §5.3.1.
    pub reason: RevocationReason,
}

/// A named policy with its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// Its name.
    pub name: PolicyName,
    /// All versions kept, oldest first; never empty.
    pub versions: Vec<PolicyVersion>,
    /// The number of the version that decides.
    pub default_version: u32,
    /// The number the next version gets.
    pub next_version: u32,
    /// When the policy was made.
    pub created: SystemTime,
    /// What the operator calls it by; nothing asks for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl PolicyRecord {
    /// The version that decides.
    pub fn default(&self) -> Option<&PolicyVersion> {
        self.versions
            .iter()
            .find(|v| v.number == self.default_version)
    }
}

/// One version of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Its number, from 1, never used twice.
    pub number: u32,
    /// The document as it was given.
    pub document: String,
    /// When it was made.
    pub created: SystemTime,
}

/// What a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// A certificate.
    Certificate(CertificateId),
    /// A thing group: counts for every member.
    Group(GroupName),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Certificate(id) => write!(f, "cert:{id}"),
            Target::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or_default();
        match kind {
            "cert" => name
                .parse()
                .map(Target::Certificate)
                .map_err(|e: ca::InvalidIdentifier| e.to_string()),
            "group" => name
                .parse()
                .map(Target::Group)
                .map_err(|e: crate::NameError| e.to_string()),
            _ => Err(format!("{text:?} is no target of a policy")),
        }
    }
}

/// The value of a row whose key says it all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Present;

/// How a certificate is a thing's, for its policies. Whose it is does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attachment {
    /// It speaks as the thing whatever its client id.
    Exclusive,
    /// It speaks as the thing where its client id is the thing's name.
    NonExclusive,
}

/// Whose a certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The thing.
    pub thing: ThingName,
    /// How it is attached to it.
    pub attachment: Attachment,
}

impl Stored for Binding {
    const VERSION: u16 = 2;

    /// Before there were two ways, all had the one.
    fn upgrade(_: u16, old: serde_json::Value) -> Result<Self, String> {
        let thing = serde_json::from_value(old).map_err(|error| error.to_string())?;
        Ok(Self {
            thing,
            attachment: Attachment::Exclusive,
        })
    }
}

impl Stored for Present {}
impl Stored for Thing {}
impl Stored for Group {}
impl Stored for CertificateRecord {}
impl Stored for PolicyRecord {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_of_before_there_were_two_ways_is_exclusive() {
        let read = Binding::upgrade(1, serde_json::json!("lamp-1")).unwrap();
        assert_eq!(read.thing.as_str(), "lamp-1");
        assert_eq!(read.attachment, Attachment::Exclusive);
        assert!(Binding::upgrade(1, serde_json::json!("a/b")).is_err());
    }
}
