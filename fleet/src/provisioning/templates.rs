//! Provisioning templates in the registry: made, versioned, switched off, deleted.

use super::{Hook, TemplateName};
use crate::Tagged;
use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, Kind, Page,
    authorities::check_template, keys, records::Present, template::Template,
};
use ca::{CertificateId, RevocationReason};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use store::Stored;

/// Most versions of one template (AWS IoT: 5).
pub const TEMPLATE_VERSIONS_LIMIT_ITEMS: usize = 5;
/// Longest description (AWS IoT: 500).
const DESCRIPTION_LIMIT_CHARS: usize = 500;

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TemplateKind {
    /// Devices with a claim certificate.
    FleetProvisioning,
    /// Devices whose certificate a registered authority signed.
    Jitp,
}

/// A provisioning template with its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Its name.
    pub name: TemplateName,
    /// For people.
    pub description: Option<String>,
    /// Whether devices may use it.
    pub enabled: bool,
    /// What it is for.
    pub kind: TemplateKind,
    /// Who else is asked.
    pub hook: Option<Hook>,
    /// What AWS's clients send and read back; nothing is decided by it.
    pub role_arn: Option<String>,
    /// All versions kept, oldest first; never empty.
    pub versions: Vec<TemplateVersion>,
    /// The version devices get.
    pub default_version: u32,
    /// The number the next version gets.
    pub next_version: u32,
    /// When it was made.
    pub created: SystemTime,
    /// When it last changed.
    pub modified: SystemTime,
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateVersion {
    /// Its number, from 1, never used twice.
    pub number: u32,
    /// The body as it was given.
    pub body: String,
    /// When it was made.
    pub created: SystemTime,
}

/// What is to change; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct TemplateChange {
    /// The description.
    pub description: Option<String>,
    /// Whether devices may use it.
    pub enabled: Option<bool>,
    /// The version devices get.
    pub default_version: Option<u32>,
    /// The hook; `Some(None)` removes it.
    pub hook: Option<Option<Hook>>,
    /// What AWS's clients send.
    pub role_arn: Option<String>,
}

impl Stored for TemplateRecord {}

impl TemplateRecord {
    /// One of its versions.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn version(&self, number: u32) -> Result<&TemplateVersion, FleetError> {
        let found = self.versions.iter().find(|v| v.number == number);
        found.ok_or_else(|| {
            FleetError::not_found(Kind::Template, format!("{} version {number}", self.name))
        })
    }

    /// The version devices get.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], of a row no release wrote.
    pub fn default(&self) -> Result<&TemplateVersion, FleetError> {
        self.version(self.default_version)
    }
}

/// Reads a body and holds it to what its kind can do.
fn check(kind: TemplateKind, body: &str, hook: Option<&Hook>) -> Result<(), FleetError> {
    let template = Template::parse(body)?;
    if kind == TemplateKind::FleetProvisioning && !template.takes_certificate_by_id() {
        return Err(FleetError::Invalid(
            "a fleet provisioning template names its certificate by CertificateId: {\"Ref\": \"AWS::IoT::Certificate::Id\"}"
                .into(),
        ));
    }
    if kind == TemplateKind::Jitp {
        check_template(body)?;
    }
    if let Some(Hook::AllowList { parameter }) = hook
        && !template.parameters().any(|(name, _)| name == parameter)
    {
        return Err(FleetError::Invalid(format!(
            "the allow list is of parameter {parameter:?}, which the template does not declare"
        )));
    }
    Ok(())
}

fn check_description(text: Option<&str>) -> Result<(), FleetError> {
    let text = text.unwrap_or_default();
    if text.chars().count() > DESCRIPTION_LIMIT_CHARS || text.chars().any(char::is_control) {
        return Err(FleetError::Invalid(format!(
            "a template's description has at most {DESCRIPTION_LIMIT_CHARS} characters and no control character"
        )));
    }
    Ok(())
}

impl Fleet {
    /// Makes a template of its first version (its number is set here).
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`], [`FleetError::Template`], [`FleetError::Invalid`].
    pub fn create_provisioning_template(
        &self,
        name: &TemplateName,
        kind: TemplateKind,
        body: &str,
        change: &TemplateChange,
        now: SystemTime,
    ) -> Result<TemplateRecord, FleetError> {
        let hook = change.hook.clone().flatten();
        check(kind, body, hook.as_ref())?;
        check_description(change.description.as_deref())?;
        let deleting = format!("{}{name}", keys::DELETING);
        let refuse_deleting = || {
            Err(FleetError::Invalid(format!(
                "template {name} is being deleted, with its claims: wait until it is"
            )))
        };
        if self.read::<Present>(&deleting)?.is_some() {
            return refuse_deleting();
        }
        if self
            .read::<TemplateRecord>(&keys::template(name))?
            .is_none()
        {
            // Of a namesake whose deletion a crash cut short under an older release.
            self.revoke_claims_of(name, now)?;
            self.clear_allow_list(name)?;
        }
        self.transact(|t| {
            if t.exists(&deleting)? {
                return refuse_deleting();
            }
            if t.exists(&keys::template(name))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Template,
                    name: name.to_string(),
                    hint: ": give it a new version instead (template update)",
                });
            }
            let record = TemplateRecord {
                name: name.clone(),
                description: change.description.clone(),
                enabled: change.enabled.unwrap_or(false),
                kind,
                hook: hook.clone(),
                role_arn: change.role_arn.clone(),
                versions: vec![TemplateVersion {
                    number: 1,
                    body: body.to_owned(),
                    created: now,
                }],
                default_version: 1,
                next_version: 2,
                created: now,
                modified: now,
            };
            t.put(keys::template(name), &record)?;
            Ok(record)
        })
    }

    /// Reads a template with its versions.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn provisioning_template(&self, name: &TemplateName) -> Result<TemplateRecord, FleetError> {
        self.read(&keys::template(name))?
            .ok_or_else(|| FleetError::not_found(Kind::Template, name))
    }

    /// Templates in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn provisioning_templates(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<TemplateRecord>, FleetError> {
        self.page_of_values(keys::TEMPLATE, after, limit)
    }

    fn change_template<R>(
        &self,
        name: &TemplateName,
        now: SystemTime,
        mut work: impl FnMut(&mut TemplateRecord) -> Result<R, FleetError>,
    ) -> Result<R, FleetError> {
        self.transact(|t| {
            let mut record: TemplateRecord = t
                .get(&keys::template(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Template, name))?;
            let done = work(&mut record)?;
            record.modified = now;
            t.put(keys::template(name), &record)?;
            Ok(done)
        })
    }

    /// Changes what is not the body.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the template or the version, [`FleetError::Invalid`].
    pub fn update_provisioning_template(
        &self,
        name: &TemplateName,
        change: &TemplateChange,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        check_description(change.description.as_deref())?;
        self.change_template(name, now, |record| {
            if let Some(number) = change.default_version {
                record.version(number)?;
                record.default_version = number;
            }
            if let Some(description) = &change.description {
                record.description = Some(description.clone());
            }
            if let Some(role) = &change.role_arn {
                record.role_arn = Some(role.clone());
            }
            record.enabled = change.enabled.unwrap_or(record.enabled);
            if let Some(hook) = &change.hook {
                record.hook.clone_from(hook);
            }
            let body = &record.default()?.body;
            check(record.kind, body, record.hook.as_ref())
        })
    }

    /// Gives a template a new version; with `make_room` the oldest of five goes for it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Template`], [`FleetError::Limit`] past five versions.
    pub fn create_provisioning_template_version(
        &self,
        name: &TemplateName,
        body: &str,
        set_default: bool,
        make_room: bool,
        now: SystemTime,
    ) -> Result<(u32, bool), FleetError> {
        self.change_template(name, now, |record| {
            check(record.kind, body, record.hook.as_ref())?;
            if record.versions.len() >= TEMPLATE_VERSIONS_LIMIT_ITEMS {
                let default = record.default_version;
                let oldest = record.versions.iter().position(|v| v.number != default);
                match oldest.filter(|_| make_room) {
                    Some(place) => drop(record.versions.remove(place)),
                    None => {
                        return Err(FleetError::Limit {
                            what: format!("versions of template {name}"),
                            limit: TEMPLATE_VERSIONS_LIMIT_ITEMS,
                        });
                    }
                }
            }
            let number = record.next_version;
            record.next_version += 1;
            record.versions.push(TemplateVersion {
                number,
                body: body.to_owned(),
                created: now,
            });
            if set_default {
                record.default_version = number;
            }
            Ok((number, record.default_version == number))
        })
    }

    /// Deletes a version devices do not get.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either, [`FleetError::DeleteConflict`] for the default version.
    pub fn delete_provisioning_template_version(
        &self,
        name: &TemplateName,
        number: u32,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.change_template(name, now, |record| {
            record.version(number)?;
            if record.default_version == number {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Template,
                    name: name.to_string(),
                    reason: format!("version {number} is the default; make another one that first"),
                });
            }
            record.versions.retain(|version| version.number != number);
            Ok(())
        })
    }

    /// Deletes a template that has one version only, as AWS does; its claims are revoked.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::DeleteConflict`] while it has several versions.
    pub fn delete_provisioning_template(
        &self,
        name: &TemplateName,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            let record: TemplateRecord = t
                .get(&keys::template(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Template, name))?;
            if record.versions.len() > 1 {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Template,
                    name: name.to_string(),
                    reason: format!(
                        "it has {} versions; delete those that are not the default first",
                        record.versions.len()
                    ),
                });
            }
            Tagged::Template(name.clone()).forget(t);
            t.delete(keys::template(name));
            // Until its claims are revoked nobody makes another of this name, and a start goes on where this was cut short.
            t.put(format!("{}{name}", keys::DELETING), &Present)
        })?;
        self.finish_deletion(name, now)
    }

    /// Goes on with deletions that were cut short; how many there were.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish_template_deletions(&self, now: SystemTime) -> Result<usize, FleetError> {
        let names: Vec<TemplateName> = self.all_names(keys::DELETING)?;
        for name in &names {
            self.finish_deletion(name, now)?;
        }
        Ok(names.len())
    }

    fn finish_deletion(&self, name: &TemplateName, now: SystemTime) -> Result<(), FleetError> {
        self.revoke_claims_of(name, now)?;
        self.clear_allow_list(name)?;
        self.transact(|t| {
            t.delete(format!("{}{name}", keys::DELETING));
            Ok(())
        })
    }

    /// Of a template that is gone, or was when it is made anew: its claims are not those of the next one of that name.
    pub(super) fn revoke_claims_of(
        &self,
        name: &TemplateName,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.claims(after.as_deref(), crate::LIST_LIMIT_ITEMS)?;
            let of_it = page.items.iter().filter(|claim| claim.template == *name);
            let of_it: Vec<CertificateId> = of_it.map(|claim| claim.id).collect();
            if !of_it.is_empty() {
                self.transact(|t| {
                    for id in &of_it {
                        let record: Option<CertificateRecord> = t.get(&keys::certificate(id))?;
                        if record.is_some_and(|one| one.status != CertificateStatus::Revoked) {
                            let reason = RevocationReason::CessationOfOperation;
                            self.change_status(t, id, CertificateStatus::Revoked, reason, now)?;
                        }
                    }
                    Ok(())
                })?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn clear_allow_list(&self, name: &TemplateName) -> Result<(), FleetError> {
        loop {
            let page =
                self.page_of_names::<String>(&keys::allowed(name), None, crate::LIST_LIMIT_ITEMS)?;
            if page.items.is_empty() {
                return Ok(());
            }
            self.transact(|t| {
                for value in &page.items {
                    t.delete(format!("{}{value}", keys::allowed(name)));
                }
                Ok(())
            })?;
        }
    }
}
