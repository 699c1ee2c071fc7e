//! Named policies and their versions. A document that is not understood whole is never stored.

use crate::{
    Fleet, FleetError, Kind, Page, PolicyRecord, PolicyVersion, Target,
    events::{Change, RegistryEvent},
    keys,
    records::Present,
    registry::Transaction,
};
use policy::{DEVICE_DEFAULT, FindingKind, Limits, Policy, PolicyError, PolicyName};
use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

/// Lines of the log about one policy.
const WARNINGS_ITEMS: usize = 5;

/// Bounds on policies. What was taken under others stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Bytes of one document, white space included.
    pub document_bytes: usize,
    /// Characters of one document besides white space (AWS IoT: 2,048).
    pub document_visible_chars: usize,
    /// Versions of one policy (AWS IoT: 5).
    pub versions: usize,
    /// Policies attached to one certificate or group (AWS IoT: 10).
    pub attached: usize,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            document_bytes: Limits::default().document_max_bytes,
            document_visible_chars: Limits::default().document_max_visible_chars,
            versions: 5,
            attached: 10,
        }
    }
}

impl PolicyLimits {
    /// Reads a document that is new.
    ///
    /// # Errors
    /// The first thing in it that is not understood, with its place.
    pub fn parse(&self, document: &str) -> Result<Policy, PolicyError> {
        let limits = Limits {
            document_max_bytes: self.document_bytes,
            document_max_visible_chars: self.document_visible_chars,
        };
        Policy::parse_within(document, &limits)
    }

    /// Whether so many policies may be attached to one target.
    pub(crate) fn check_attached(&self, what: &str, count: usize) -> Result<(), FleetError> {
        if count > self.attached {
            return Err(FleetError::Limit {
                what: what.to_owned(),
                limit: self.attached,
            });
        }
        Ok(())
    }
}

/// Makes `device-default` where it is not.
pub(crate) fn seed(fleet: &Fleet, now: SystemTime) -> Result<(), FleetError> {
    let document = policy::device_default_text(&fleet.inner.realm.account);
    let name: PolicyName = DEVICE_DEFAULT.parse().map_err(|e| {
        FleetError::Invalid(format!(
            "the name {DEVICE_DEFAULT:?} of the built-in policy: {e}"
        ))
    })?;
    Policy::parse(&document)?;
    fleet.transact(|t| {
        if !t.exists(keys::SEEDED)? {
            // An earlier release makes the policy anew without it, whatever it says now.
            t.put(keys::SEEDED.to_owned(), &Present)?;
        }
        if t.exists(&keys::policy(&name))? {
            return Ok(());
        }
        t.put(keys::policy(&name), &first_version(&name, &document, now))
    })
}

fn tell(t: &mut Transaction<'_>, change: Change, record: &PolicyRecord) {
    let (name, version) = (record.name.clone(), record.default_version);
    t.tell(RegistryEvent::Policy(change, name, version));
}

pub(crate) fn first_version(name: &PolicyName, document: &str, now: SystemTime) -> PolicyRecord {
    PolicyRecord {
        name: name.clone(),
        versions: vec![PolicyVersion {
            number: 1,
            document: document.to_owned(),
            created: now,
        }],
        default_version: 1,
        next_version: 2,
        created: now,
        tags: BTreeMap::new(),
    }
}

impl PolicyRecord {
    /// One of its versions.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn version(&self, number: u32) -> Result<&PolicyVersion, FleetError> {
        let found = self.versions.iter().find(|v| v.number == number);
        found.ok_or_else(|| {
            FleetError::not_found(Kind::Policy, format!("{} version {number}", self.name))
        })
    }
}

impl Fleet {
    /// Sets the bounds that policies are held to from now on.
    pub fn limit_policies(&self, limits: PolicyLimits) {
        self.inner.policy_limits.store(Arc::new(limits));
    }

    /// The bounds that policies are held to.
    #[must_use]
    pub fn policy_limits(&self) -> PolicyLimits {
        **self.inner.policy_limits.load()
    }

    /// Makes a policy.
    ///
    /// # Errors
    /// [`FleetError::MalformedPolicy`], [`FleetError::AlreadyExists`].
    pub fn create_policy(
        &self,
        name: &PolicyName,
        document: &str,
        now: SystemTime,
    ) -> Result<PolicyRecord, FleetError> {
        self.create_tagged_policy(name, document, &BTreeMap::new(), now)
    }

    /// As [`Self::create_policy`], with tags.
    ///
    /// # Errors
    /// As there.
    pub fn create_tagged_policy(
        &self,
        name: &PolicyName,
        document: &str,
        tags: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<PolicyRecord, FleetError> {
        let policy = self.policy_limits().parse(document)?;
        let record = self.transact(|t| {
            if t.exists(&keys::policy(name))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Policy,
                    name: name.to_string(),
                    hint: ": give it a new version instead (policy update)",
                });
            }
            let record = PolicyRecord {
                tags: tags.clone(),
                ..first_version(name, document, now)
            };
            tell(t, Change::Created, &record);
            t.put(keys::policy(name), &record)?;
            Ok(record)
        })?;
        self.warn_of(name, &policy);
        Ok(record)
    }

    /// Tells the log what in a policy matches nothing: whoever made it over AWS's API hears nothing of it there.
    fn warn_of(&self, name: &PolicyName, policy: &Policy) {
        let vain = |finding: &policy::Finding| {
            matches!(
                finding.kind,
                FindingKind::OtherAccount | FindingKind::NeverMatches
            )
        };
        let findings = policy.lint_for(Some(&self.realm().account));
        for finding in findings
            .iter()
            .filter(|found| vain(found))
            .take(WARNINGS_ITEMS)
        {
            tracing::warn!(policy = %name, "a policy says what matches nothing: {finding}");
        }
    }

    /// Changes the tags of a policy. What it says stays, and nobody is judged anew.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; what `change` refuses.
    pub fn change_policy_tags<E: From<FleetError>>(
        &self,
        name: &PolicyName,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut refused = None;
        let done = self.transact(|t| {
            let mut record: PolicyRecord = t
                .get(&keys::policy(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Policy, name))?;
            refused = change(&mut record.tags).err();
            match refused {
                Some(_) => Ok(()),
                None => t.put(keys::policy(name), &record),
            }
        });
        match refused {
            Some(refused) => Err(refused),
            None => Ok(done?),
        }
    }

    /// Gives a policy a new version; with `set_default` it decides from now on, for live sessions too.
    ///
    /// # Errors
    /// [`FleetError::MalformedPolicy`], [`FleetError::NotFound`], [`FleetError::Limit`] past five versions.
    pub fn create_policy_version(
        &self,
        name: &PolicyName,
        document: &str,
        set_default: bool,
        now: SystemTime,
    ) -> Result<PolicyVersion, FleetError> {
        self.add_version(name, document, set_default, false, now)
    }

    /// Replaces what a policy says: a new default version, the oldest of five making room for it.
    ///
    /// # Errors
    /// [`FleetError::MalformedPolicy`], [`FleetError::NotFound`].
    pub fn update_policy(
        &self,
        name: &PolicyName,
        document: &str,
        now: SystemTime,
    ) -> Result<PolicyVersion, FleetError> {
        self.add_version(name, document, true, true, now)
    }

    fn add_version(
        &self,
        name: &PolicyName,
        document: &str,
        set_default: bool,
        make_room: bool,
        now: SystemTime,
    ) -> Result<PolicyVersion, FleetError> {
        let policy = self.policy_limits().parse(document)?;
        let version = self.transact(|t| {
            let mut record: PolicyRecord = t
                .get(&keys::policy(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Policy, name))?;
            let limit = self.policy_limits().versions;
            if record.versions.len() >= limit {
                let oldest = record
                    .versions
                    .iter()
                    .position(|v| v.number != record.default_version);
                match oldest.filter(|_| make_room) {
                    Some(place) => drop(record.versions.remove(place)),
                    None => {
                        return Err(FleetError::Limit {
                            what: format!("versions of policy {name}"),
                            limit,
                        });
                    }
                }
            }
            let version = PolicyVersion {
                number: record.next_version,
                document: document.to_owned(),
                created: now,
            };
            record.next_version += 1;
            if set_default {
                record.default_version = version.number;
            }
            record.versions.push(version.clone());
            tell(t, Change::Updated, &record);
            t.put(keys::policy(name), &record)?;
            Ok(version)
        })?;
        self.warn_of(name, &policy);
        Ok(version)
    }

    /// Lets another version decide, for live sessions too.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either.
    pub fn set_default_version(&self, name: &PolicyName, number: u32) -> Result<(), FleetError> {
        self.transact(|t| {
            let mut record: PolicyRecord = t
                .get(&keys::policy(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Policy, name))?;
            record.version(number)?;
            if record.default_version == number {
                return Ok(());
            }
            record.default_version = number;
            tell(t, Change::Updated, &record);
            t.put(keys::policy(name), &record)
        })
    }

    /// Deletes a version that does not decide.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either, [`FleetError::DeleteConflict`] for the default version.
    pub fn delete_policy_version(&self, name: &PolicyName, number: u32) -> Result<(), FleetError> {
        self.transact(|t| {
            let mut record: PolicyRecord = t
                .get(&keys::policy(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Policy, name))?;
            record.version(number)?;
            if record.default_version == number {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Policy,
                    name: name.to_string(),
                    reason: format!(
                        "version {number} is the default; make another one that (SetDefaultPolicyVersion), or delete the policy"
                    ),
                });
            }
            record.versions.retain(|version| version.number != number);
            tell(t, Change::Updated, &record);
            t.put(keys::policy(name), &record)
        })
    }

    /// What a policy is attached to, in order.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn targets_of(
        &self,
        name: &PolicyName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Target>, FleetError> {
        self.policy(name)?;
        self.page_of_names(&keys::targets(name), after, limit)
    }

    /// Reads a policy with its versions.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn policy(&self, name: &PolicyName) -> Result<PolicyRecord, FleetError> {
        self.read(&keys::policy(name))?
            .ok_or_else(|| FleetError::not_found(Kind::Policy, name))
    }

    /// Policies in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn policies(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<PolicyRecord>, FleetError> {
        self.page_of_values(keys::POLICY, after, limit)
    }

    /// Deletes a policy that is attached nowhere and has one version only, as AWS does.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::DeleteConflict`].
    pub fn delete_policy(&self, name: &PolicyName) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            let record: PolicyRecord = t
                .get(&keys::policy(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Policy, name))?;
            let conflict = |reason| {
                Err(FleetError::DeleteConflict {
                    kind: Kind::Policy,
                    name: name.to_string(),
                    reason,
                })
            };
            if name.as_str() == DEVICE_DEFAULT {
                return conflict(
                    "devices get it where no other is named; change what it says instead (CreatePolicyVersion, `muster policy update device-default FILE`)"
                        .to_owned(),
                );
            }
            let targets = self.page_of_names::<String>(&keys::targets(name), None, 1)?;
            if let Some(target) = targets.items.first() {
                return conflict(format!(
                    "it is attached to {target}; detach it first (DetachPolicy)"
                ));
            }
            if record.versions.len() > 1 {
                return conflict(format!(
                    "it has {} versions; delete the others first",
                    record.versions.len()
                ));
            }
            tell(t, Change::Deleted, &record);
            t.delete(keys::policy(name));
            Ok(())
        })
    }

    /// The policies attached to a target, in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn attached_policies(&self, target: &Target) -> Result<Vec<PolicyName>, FleetError> {
        self.all_names(&keys::attached(target))
    }
}
