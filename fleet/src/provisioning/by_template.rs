//! RegisterThing as an operator asks for it: a template and parameters in, a whole device out, in one batch.

use super::{
    Rejection,
    settle::{Names, conflict, read_names},
};
use crate::{
    CertificateRecord, CertificateStatus, DeviceKey, EnrolmentWay, Fleet, FleetError, ThingName,
    authorities::{AuthorityRecord, ForeignKind, NewForeign},
    certificates::record_of,
    issued::put_issued,
    keys,
    registry::Transaction,
    template::{CertificateSource, Override, Provision, Template},
};
use ca::{CertificateId, RevocationReason};
use policy::PolicyName;
use std::{collections::BTreeMap, time::SystemTime};

/// A device that was made by a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByTemplate {
    /// The thing.
    pub thing: ThingName,
    /// Its certificate.
    pub certificate: CertificateId,
    /// The certificate, PEM, with the issuing one where it was made here.
    pub certificate_pem: String,
    /// The policies attached to it.
    pub policies: Vec<PolicyName>,
}

/// The certificate a plan names, before the transaction.
enum Source {
    /// Made here.
    Issued(CertificateRecord, String),
    /// Made elsewhere.
    Foreign(CertificateRecord, Option<AuthorityRecord>),
    /// Registered already.
    Known(CertificateId),
}

/// A device about to be made.
pub(super) struct Made {
    plan: Provision,
    names: Names,
    source: Source,
}

impl Made {
    /// What it must not share with another that is written in the same batch: its thing, its certificate, its key. `None`
    /// where only the registry knows.
    pub(super) fn marks(&self) -> Option<Vec<String>> {
        let record = match &self.source {
            Source::Issued(record, _) | Source::Foreign(record, _) => record,
            Source::Known(_) => return None,
        };
        Some(vec![
            keys::thing(&self.names.thing),
            keys::certificate(&record.id),
            keys::key(&ca::key_id(&record.pem).ok()?),
        ])
    }
}

impl Fleet {
    /// Makes a device by a template. Nothing has changed when it is refused.
    ///
    /// # Errors
    /// [`Rejection`] with AWS's word for it.
    pub fn register_by_template(
        &self,
        template: &Template,
        parameters: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<ByTemplate, Rejection> {
        let made = self.plan_by_template(None, template, parameters, now)?;
        self.transact_or_reject(|t| self.put_by_template(t, &made, now))
    }

    /// All that is done before the transaction: the signature is the costly part. Without a `way` a certificate comes by
    /// an operator's hand, signed here or imported.
    pub(super) fn plan_by_template(
        &self,
        way: Option<EnrolmentWay>,
        template: &Template,
        parameters: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<Made, Rejection> {
        let plan = template.evaluate(parameters).map_err(FleetError::from)?;
        let names = read_names(&plan, &self.policy_limits())?;
        let status = match plan.certificate.active {
            true => CertificateStatus::Active,
            false => CertificateStatus::Inactive,
        };
        let source = match &plan.certificate.source {
            CertificateSource::Request(csr) => {
                let key = DeviceKey::Csr(csr.as_bytes());
                let (issued, _) = self.mint_for(&names.thing, key, now)?;
                let way = way.unwrap_or(EnrolmentWay::Operator);
                Source::Issued(record_of(&issued, status, way, now), issued.chain_pem)
            }
            CertificateSource::Pem {
                certificate,
                authority,
            } => {
                let new = NewForeign {
                    pem: certificate,
                    kind: ForeignKind::Authority(authority.as_deref()),
                    status,
                };
                let (mut record, authority) = self.foreign_record(&new, now)?;
                record.way = way.or(record.way);
                Source::Foreign(record, authority)
            }
            CertificateSource::Id(text) => Source::Known(text.parse().map_err(|_| {
                Rejection::invalid("certificate.CertificateId is 64 lower-case hex digits")
            })?),
        };
        Ok(Made {
            plan,
            names,
            source,
        })
    }

    pub(super) fn put_by_template(
        &self,
        t: &mut Transaction<'_>,
        made: &Made,
        now: SystemTime,
    ) -> Result<Result<ByTemplate, Rejection>, FleetError> {
        let (id, pem, shown) = match &made.source {
            Source::Issued(record, chain) => {
                put_issued(t, record)?;
                (record.id, record.pem.clone(), chain.clone())
            }
            Source::Foreign(record, authority) => {
                self.put_new_foreign(t, record, authority.as_ref())?;
                (record.id, record.pem.clone(), record.pem.clone())
            }
            Source::Known(id) => match self.known(t, id, &made.plan, now)? {
                Ok(record) => (record.id, record.pem.clone(), record.pem),
                Err(rejection) => return Ok(Err(rejection)),
            },
        };
        if let Err(rejection) = self.settle(t, (&id, &pem), &made.plan, &made.names, now)? {
            return Ok(Err(rejection));
        }
        Ok(Ok(ByTemplate {
            thing: made.names.thing.clone(),
            certificate: id,
            certificate_pem: shown,
            policies: made
                .names
                .policies
                .iter()
                .map(|policy| policy.name().clone())
                .collect(),
        }))
    }

    fn known(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
        plan: &Provision,
        now: SystemTime,
    ) -> Result<Result<CertificateRecord, Rejection>, FleetError> {
        let record: CertificateRecord = t
            .get(&keys::certificate(id))?
            .ok_or_else(|| FleetError::not_found(crate::Kind::Certificate, id))?;
        if record.status == CertificateStatus::Revoked || t.exists(&keys::bound(id))? {
            return Ok(Err(conflict(format!(
                "certificate {id} was revoked or belongs to a thing already"
            ))));
        }
        let status = match plan.certificate.active {
            true => CertificateStatus::Active,
            false => CertificateStatus::Inactive,
        };
        match (record.status, plan.certificate.existing_status) {
            (CertificateStatus::PendingActivation, _) | (_, Override::Replace) => {
                self.change_status(t, id, status, RevocationReason::Unspecified, now)?;
            }
            (_, Override::Fail) => {
                return Ok(Err(conflict(format!(
                    "certificate {id} is {} already",
                    record.status
                ))));
            }
            _ => {}
        }
        Ok(Ok(record))
    }
}
