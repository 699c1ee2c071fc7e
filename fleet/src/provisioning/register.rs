//! RegisterThing: token, claim, hook and template decide; then thing, certificate, attachments and the end of the
//! token are one batch.

use super::{
    HookCaller, HookQuestion, Rejection, TemplateKind, TemplateName, TemplateRecord,
    claims::{Claim, ClaimUse},
    hook::refused,
    pending::{Pending, digest_of},
    settle::{Names, conflict, read_names},
};
use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, ThingName, keys,
    registry::Transaction,
    template::{CERTIFICATE_ID, CertificateSource, Override, Provision, Template},
};
use ca::{CertificateId, RevocationReason};
use std::{collections::BTreeMap, time::SystemTime};

/// A device that asks to become a thing.
#[derive(Debug, Clone)]
pub struct ThingRegistration<'a> {
    /// The template it asks for.
    pub template: &'a TemplateName,
    /// The token it got with its certificate.
    pub token: &'a str,
    /// What it says of itself.
    pub parameters: BTreeMap<String, String>,
    /// The certificate it is connected with.
    pub claim: CertificateId,
    /// The client id it is connected with.
    pub client_id: &'a str,
    /// Of ARNs that a hook is told.
    pub region: &'a str,
}

/// What has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The thing.
    pub thing: ThingName,
    /// Its certificate.
    pub certificate: CertificateId,
    /// What the template tells it.
    pub configuration: BTreeMap<String, String>,
    /// Certificates of the same thing that were revoked for it.
    pub revoked: Vec<CertificateId>,
}

fn bad_token() -> Rejection {
    Rejection::new(
        400,
        "InvalidCertificateOwnershipToken",
        "the token is not good: unknown, used, older than an hour, or of another claim; ask for a new certificate",
    )
}

impl Fleet {
    /// Makes a thing of a device by a template. Nothing has changed when it is refused.
    ///
    /// # Errors
    /// [`Rejection`] with AWS's word for it.
    pub fn register_thing(
        &self,
        asked: &ThingRegistration<'_>,
        hook: &dyn HookCaller,
        now: SystemTime,
    ) -> Result<Registered, Rejection> {
        let template = self.template_for(asked.template)?;
        let digest = digest_of(asked.token).ok_or_else(bad_token)?;
        let pending = self.pending(&digest)?.ok_or_else(bad_token)?;
        if pending.claim != asked.claim || pending.expires <= now {
            return Err(bad_token());
        }
        let id = pending.certificate;
        let mut parameters = asked.parameters.clone();
        parameters.insert(CERTIFICATE_ID.to_owned(), id.to_string());
        if let Some(hook_record) = &template.hook {
            let pem = self.certificate(&id)?.pem;
            let question = HookQuestion {
                template: asked.template,
                asker: asked.claim,
                client_id: asked.client_id,
                region: asked.region,
                parameters: &parameters,
                certificate: (id, &pem),
            };
            let overrides = self.ask_hook(hook_record, &question, hook)?;
            parameters.extend(overrides);
            parameters.insert(CERTIFICATE_ID.to_owned(), id.to_string());
        }
        let body = &template.default()?.body;
        let plan = Template::parse(body)
            .and_then(|template| template.evaluate(&parameters))
            .map_err(FleetError::from)?;
        if plan.certificate.source != CertificateSource::Id(id.to_string()) {
            return Err(Rejection::invalid(
                "the template names another certificate than the one the token stands for",
            ));
        }
        let names = read_names(&plan, &self.policy_limits())?;
        let revoked = self.transact_or_reject(|t| {
            // A hook takes its time, and whoever switches a template off meanwhile has been told that it is.
            if t.get(&keys::template(asked.template))?.as_ref() != Some(&template) {
                return Ok(Err(conflict(format!(
                    "template {} was changed while this was decided: ask again",
                    asked.template
                ))));
            }
            self.register_in(t, asked, (&digest, &pending), &plan, &names, now)
        })?;
        Ok(Registered {
            thing: names.thing,
            certificate: id,
            configuration: plan.configuration,
            revoked,
        })
    }

    fn template_for(&self, name: &TemplateName) -> Result<TemplateRecord, Rejection> {
        let template = self.provisioning_template(name)?;
        if !template.enabled || template.kind != TemplateKind::FleetProvisioning {
            return Err(refused(&format!(
                "template {name} is not enabled for fleet provisioning"
            )));
        }
        Ok(template)
    }

    /// The transaction: everything is read again, and either all of it is written or none.
    fn register_in(
        &self,
        t: &mut Transaction<'_>,
        asked: &ThingRegistration<'_>,
        (digest, pending): (&str, &Pending),
        plan: &Provision,
        names: &Names,
        now: SystemTime,
    ) -> Result<Result<Vec<CertificateId>, Rejection>, FleetError> {
        let id = pending.certificate;
        if t.get::<Pending>(&keys::token(digest))?.is_none() {
            return Ok(Err(bad_token()));
        }
        pending
            .keys(digest)
            .into_iter()
            .for_each(|key| t.delete(key));
        if let Err(rejection) = self.use_claim(t, asked)? {
            return Ok(Err(rejection));
        }
        let Some(record) = t.get::<CertificateRecord>(&keys::certificate(&id))? else {
            return Ok(Err(bad_token()));
        };
        if record.status == CertificateStatus::Revoked || t.exists(&keys::bound(&id))? {
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
                self.change_status(t, &id, status, RevocationReason::Unspecified, now)?;
            }
            (_, Override::Fail) => {
                return Ok(Err(conflict(format!(
                    "certificate {id} is {} already",
                    record.status
                ))));
            }
            _ => {}
        }
        self.settle(t, (&id, &record.pem), plan, names, now)
    }

    /// Counts one use of a claim. A certificate without a claim of ours is bounded by its policy alone, as with AWS;
    /// one that belongs to a thing is nobody's claim.
    fn use_claim(
        &self,
        t: &mut Transaction<'_>,
        asked: &ThingRegistration<'_>,
    ) -> Result<Result<(), Rejection>, FleetError> {
        let id = &asked.claim;
        let record: Option<CertificateRecord> = t.get(&keys::certificate(id))?;
        if record.is_none_or(|record| record.status != CertificateStatus::Active) {
            return Ok(Err(refused("the claim certificate is not active")));
        }
        if t.exists(&keys::bound(id))? {
            return Ok(Err(refused("a device's own certificate is no claim")));
        }
        let Some(claim) = t.get::<Claim>(&keys::claim(id))? else {
            return Ok(Ok(()));
        };
        if claim.template != *asked.template {
            return Ok(Err(refused(&format!(
                "this claim is for template {}",
                claim.template
            ))));
        }
        let mut uses: ClaimUse = t.get(&keys::claim_use(id))?.unwrap_or_default();
        if claim.limits.uses.is_some_and(|most| uses.used >= most) {
            return Ok(Err(refused(
                "this claim has been used as often as it may be",
            )));
        }
        uses.used = uses.used.saturating_add(1);
        t.put(keys::claim_use(id), &uses)?;
        Ok(Ok(()))
    }
}
