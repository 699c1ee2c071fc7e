//! RegisterThing: token, claim, hook and template decide; then thing, certificate, attachments and the end of the
//! token are one batch.

use super::{
    HOOK_DEADLINE, Hook, HookCaller, Rejection, TemplateKind, TemplateName, TemplateRecord,
    claims::{Claim, ClaimUse},
    hook::{refused, verdict},
    pending::{Pending, digest_of},
};
use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, GroupName, PolicyRecord, Target,
    Thing, ThingName, ThingTypeName,
    attachments::{POLICIES_PER_TARGET_LIMIT_ITEMS, put_attachment, put_binding, require_policy},
    events::leave_group,
    groups::put_memberships,
    keys, policies,
    registry::Transaction,
    template::{
        CERTIFICATE_ID, CertificateSource, Override, PolicyPlan, Provision, Template, ThingPlan,
    },
    things,
};
use aws_lc_rs::digest;
use ca::{CertificateId, RevocationReason};
use data_encoding::HEXLOWER;
use policy::PolicyName;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

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

/// A plan whose names have been read.
struct Names {
    thing: ThingName,
    type_name: Option<ThingTypeName>,
    groups: Vec<GroupName>,
    policies: Vec<Policy>,
}

enum Policy {
    Named(PolicyName),
    Document(PolicyName, String),
}

fn bad_token() -> Rejection {
    Rejection::new(
        400,
        "InvalidCertificateOwnershipToken",
        "the token is not good: unknown, used, older than an hour, or of another claim; ask for a new certificate",
    )
}

fn conflict(message: String) -> Rejection {
    Rejection::new(409, "ResourceConflict", message)
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
            let overrides = self.ask_hook(hook_record, asked, &parameters, &id, hook)?;
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
        let names = read_names(&plan)?;
        let mut refusal = None;
        let done = self.transact(|t| {
            refusal = None;
            match self.register_in(t, asked, (&digest, &pending), &plan, &names, now)? {
                Ok(revoked) => Ok(revoked),
                Err(rejection) => {
                    // Carried past the transaction, which is given up by an error of its own kind.
                    let message = rejection.message.clone();
                    refusal = Some(rejection);
                    Err(FleetError::Invalid(message))
                }
            }
        });
        let revoked = match (done, refusal) {
            (Ok(revoked), _) => revoked,
            (Err(_), Some(rejection)) => return Err(rejection),
            (Err(error), None) => return Err(error.into()),
        };
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

    fn ask_hook(
        &self,
        hook: &Hook,
        asked: &ThingRegistration<'_>,
        parameters: &BTreeMap<String, String>,
        id: &CertificateId,
        caller: &dyn HookCaller,
    ) -> Result<BTreeMap<String, String>, Rejection> {
        match hook {
            Hook::AllowList { parameter } => {
                let value = parameters
                    .get(parameter)
                    .map(String::as_str)
                    .unwrap_or_default();
                match self.allows(asked.template, value)? {
                    true => Ok(BTreeMap::new()),
                    false => Err(refused(&format!(
                        "{parameter} is not on the template's allow list"
                    ))),
                }
            }
            Hook::Https { url, roots } => {
                let account = &self.inner.realm.account;
                let (region, template) = (asked.region, asked.template);
                let body = json!({
                    "claimCertificateId": asked.claim.to_string(),
                    "certificateId": id.to_string(),
                    "certificatePem": self.certificate(id)?.pem,
                    "templateArn": format!("arn:aws:iot:{region}:{account}:provisioningtemplate/{template}"),
                    "clientId": asked.client_id,
                    "parameters": asked.parameters,
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
        if record.status == CertificateStatus::Revoked
            || t.get::<ThingName>(&keys::bound(&id))?.is_some()
        {
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
        let mut revoked = Vec::new();
        let groups = match t.get::<Thing>(&keys::thing(&names.thing))? {
            None => {
                let thing = Thing {
                    name: names.thing.clone(),
                    attributes: plan.thing.attributes.clone(),
                    type_name: names.type_name.clone(),
                    version: 1,
                    created: now,
                };
                things::put_thing(t, None, &thing)?;
                names.groups.iter().cloned().collect()
            }
            Some(known) => match self.rejoin(t, known, &plan.thing, names, now)? {
                Ok((groups, old)) => {
                    revoked = old;
                    groups
                }
                Err(rejection) => return Ok(Err(rejection)),
            },
        };
        put_memberships(t, &names.thing, &groups)?;
        put_binding(t, &names.thing, (&id, &record.pem))?;
        let target = Target::Certificate(id);
        for policy in &names.policies {
            let name = match policy {
                Policy::Named(name) => {
                    require_policy(t, name)?;
                    name
                }
                Policy::Document(name, document) => {
                    if t.get::<PolicyRecord>(&keys::policy(name))?.is_none() {
                        t.put(
                            keys::policy(name),
                            &policies::first_version(name, document, now),
                        )?;
                    }
                    name
                }
            };
            put_attachment(t, name, &target)?;
        }
        Ok(Ok(revoked))
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
        if t.get::<ThingName>(&keys::bound(id))?.is_some() {
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

    /// A thing that is there already gets the new certificate where the template says so (`OverrideSettings`) or it
    /// has none that could still be used; the certificates it had are revoked. Otherwise whoever holds a claim could
    /// take any device's name.
    #[expect(
        clippy::type_complexity,
        reason = "the groups it is in then, and what was revoked for it"
    )]
    fn rejoin(
        &self,
        t: &mut Transaction<'_>,
        known: Thing,
        plan: &ThingPlan,
        names: &Names,
        now: SystemTime,
    ) -> Result<Result<(BTreeSet<GroupName>, Vec<CertificateId>), Rejection>, FleetError> {
        let name = known.name.clone();
        let mut live = Vec::new();
        for id in self.all_names::<CertificateId>(&keys::principals(&name))? {
            let record: Option<CertificateRecord> = t.get(&keys::certificate(&id))?;
            if record.is_some_and(|record| record.status != CertificateStatus::Revoked) {
                live.push(id);
            }
        }
        if !live.is_empty() && plan.existing.is_none() {
            return Ok(Err(conflict(format!(
                "thing {name} exists and has a certificate: revoke that first, or let the template's OverrideSettings \
                 say what a device that comes again does to its thing"
            ))));
        }
        let existing = plan.existing.unwrap_or_default();
        if [existing.attributes, existing.type_name, existing.groups].contains(&Override::Fail) {
            return Ok(Err(conflict(format!(
                "thing {name} exists, and the template says FAIL"
            ))));
        }
        for id in &live {
            let reason = RevocationReason::Superseded;
            self.change_status(t, id, CertificateStatus::Revoked, reason, now)?;
        }
        let mut thing = known.clone();
        match existing.attributes {
            Override::Replace => thing.attributes.clone_from(&plan.attributes),
            Override::Merge => thing.attributes.extend(plan.attributes.clone()),
            Override::DoNothing | Override::Fail => {}
        }
        things::check_attributes(&thing.attributes)?;
        if existing.type_name == Override::Replace {
            thing.type_name.clone_from(&names.type_name);
        }
        if thing != known {
            thing.version += 1;
        }
        // Written even when it says the same: of two that come at once for one thing, one is tried again.
        things::put_thing(t, Some(&known), &thing)?;
        let were: BTreeSet<GroupName> = self.groups_of(&name)?.into_iter().collect();
        let planned = names.groups.iter().cloned();
        let groups = match existing.groups {
            Override::Replace => planned.collect(),
            Override::Merge => were.iter().cloned().chain(planned).collect(),
            Override::DoNothing | Override::Fail => were.clone(),
        };
        for group in were.difference(&groups) {
            leave_group(t, group, &name)?;
        }
        Ok(Ok((groups, live)))
    }
}

/// Reads the names a plan consists of, and its policies.
fn read_names(plan: &Provision) -> Result<Names, FleetError> {
    things::check_attributes(&plan.thing.attributes)?;
    let groups = plan.thing.groups.iter().map(|group| group.parse());
    if plan.policies.len() > POLICIES_PER_TARGET_LIMIT_ITEMS {
        return Err(FleetError::Limit {
            what: "policies of one certificate".into(),
            limit: POLICIES_PER_TARGET_LIMIT_ITEMS,
        });
    }
    let mut named = Vec::with_capacity(plan.policies.len());
    for policy in &plan.policies {
        named.push(match policy {
            PolicyPlan::Named(name) => Policy::Named(policy_name(name)?),
            PolicyPlan::Document(document) => {
                policy::Policy::parse(document)?;
                let hash = digest::digest(&digest::SHA256, document.as_bytes());
                Policy::Document(
                    policy_name(&HEXLOWER.encode(hash.as_ref()))?,
                    document.clone(),
                )
            }
        });
    }
    Ok(Names {
        thing: plan.thing.name.parse()?,
        type_name: plan
            .thing
            .type_name
            .as_ref()
            .map(|name| name.parse())
            .transpose()?,
        groups: groups.collect::<Result<_, _>>()?,
        policies: named,
    })
}

fn policy_name(name: &str) -> Result<PolicyName, FleetError> {
    name.parse()
        .map_err(|error| FleetError::Invalid(format!("policy name: {error}")))
}
