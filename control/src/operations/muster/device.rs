//! A device as one object: thing, groups, health, certificates and their policies.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ca::CertificateId;
use fleet::{CertificateStatus, GroupName, Health, Target, Thing};
use policy::PolicyName;
use serde::Serialize;

use crate::answer::EpochSeconds;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::page::MAX_PAGE_ITEMS;
use crate::rooms::Rooms;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    thing_name: String,
    thing_arn: String,
    attributes: BTreeMap<String, String>,
    version: u64,
    created_at: EpochSeconds,
    groups: Vec<GroupName>,
    posture: Posture,
    certificates: Vec<Certificate>,
}

/// What policies can ask of its health.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posture {
    quarantined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<SetApart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firmware_version: Option<String>,
    /// Whether one of its certificates is attested now.
    attested: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    attestation: Option<Attested>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_violation: Option<Violated>,
}

#[derive(Serialize)]
struct SetApart {
    since: EpochSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attested {
    /// Those it counts for.
    certificate_ids: Vec<String>,
    since: EpochSeconds,
    until: EpochSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Violated {
    at: EpochSeconds,
    reason: String,
    /// `broker`, or `operator`.
    seen_by: &'static str,
}

impl Posture {
    /// `active` are the certificates it can come with.
    fn of(health: Health, active: &[CertificateId], now: SystemTime) -> Self {
        let (firmware_name, firmware_version) = health.firmware.unzip();
        Self {
            quarantined: health.quarantine.is_some(),
            quarantine: health.quarantine.map(|quarantine| SetApart {
                since: EpochSeconds(quarantine.since),
                reason: quarantine.reason,
            }),
            firmware_name,
            firmware_version,
            attested: health.attestation.as_ref().is_some_and(|attestation| {
                now < attestation.until && active.iter().any(|id| attestation.is_for(id))
            }),
            attestation: health.attestation.map(|attestation| Attested {
                certificate_ids: attestation
                    .certificates
                    .iter()
                    .map(CertificateId::to_string)
                    .collect(),
                since: EpochSeconds(attestation.since),
                until: EpochSeconds(attestation.until),
                by: attestation.by,
            }),
            last_violation: health.violation.map(|violation| Violated {
                at: EpochSeconds(violation.at),
                reason: violation.reason,
                seen_by: if violation.seen { "broker" } else { "operator" },
            }),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    certificate_id: String,
    certificate_arn: String,
    status: &'static str,
    /// It is let in by nobody although it is ACTIVE: the authority that it depends on is INACTIVE, has ended or is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    without_authority: bool,
    not_before: EpochSeconds,
    not_after: EpochSeconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<EpochSeconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_reason: Option<&'static str>,
    policies: Vec<String>,
}

impl Device {
    /// All there is to say of a thing; of its certificates the first page.
    pub(super) fn of(rooms: &Rooms, call: &Call, thing: Thing) -> Result<Self, ApiError> {
        let arns = call.arns(rooms);
        let principals = rooms.fleet.principals(&thing.name, None, MAX_PAGE_ITEMS)?;
        let mut certificates = Vec::with_capacity(principals.items.len());
        let mut active = Vec::new();
        for id in principals.items {
            let record = rooms.fleet.certificate(&id)?;
            let policies = rooms.fleet.attached_policies(&Target::Certificate(id))?;
            if record.status == CertificateStatus::Active {
                active.push(id);
            }
            let vouched = rooms.fleet.vouched_until(&record)?;
            let revocation = record.revocation;
            certificates.push(Certificate {
                certificate_id: id.to_string(),
                certificate_arn: arns.certificate(&id),
                status: record.status.as_str(),
                without_authority: vouched
                    .is_some_and(|until| until.is_none_or(|until| until < call.now)),
                not_before: EpochSeconds(record.not_before),
                not_after: EpochSeconds(record.not_after),
                revoked_at: revocation.as_ref().map(|one| EpochSeconds(one.at)),
                revocation_reason: revocation.map(|one| one.reason.name()),
                policies: policies.iter().map(PolicyName::to_string).collect(),
            });
        }
        Ok(Self {
            thing_arn: arns.thing(&thing.name),
            groups: rooms.fleet.groups_of(&thing.name)?,
            posture: Posture::of(rooms.fleet.health(&thing.name)?, &active, call.now),
            thing_name: thing.name.to_string(),
            attributes: thing.attributes,
            version: thing.version,
            created_at: EpochSeconds(thing.created),
            certificates,
        })
    }
}
