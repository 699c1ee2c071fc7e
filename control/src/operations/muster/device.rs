//! A device as one object: thing, groups, certificates and their policies.

use std::collections::BTreeMap;

use fleet::{GroupName, Target, Thing};
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
    certificates: Vec<Certificate>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    certificate_id: String,
    certificate_arn: String,
    status: &'static str,
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
        for id in principals.items {
            let record = rooms.fleet.certificate(&id)?;
            let policies = rooms.fleet.attached_policies(&Target::Certificate(id))?;
            let revocation = record.revocation;
            certificates.push(Certificate {
                certificate_id: id.to_string(),
                certificate_arn: arns.certificate(&id),
                status: record.status.as_str(),
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
            thing_name: thing.name.to_string(),
            attributes: thing.attributes,
            version: thing.version,
            created_at: EpochSeconds(thing.created),
            certificates,
        })
    }
}
