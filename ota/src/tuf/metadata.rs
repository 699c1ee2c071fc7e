//! The four kinds of metadata, read but not yet believed (TUF 1.0 §4.3 to §4.6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::TufError;
use super::delegation::{Delegations, TOP_LEVEL};
use super::hashes::{Check, Hashes};
use super::key::Keys;
use crate::Error;
use crate::signed::{Document, read_time, write_time};

/// Who may sign for a role, and how many of them it takes.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RoleKeys {
    keyids: Vec<String>,
    threshold: u32,
}

impl RoleKeys {
    pub(super) fn check(&self, role: &str) -> Result<(), String> {
        if self.threshold == 0 {
            return Err(format!(
                "role `{role}` has threshold 0: nobody would have to sign"
            ));
        }
        Ok(())
    }

    fn ids(&self) -> BTreeSet<&str> {
        self.keyids.iter().map(String::as_str).collect()
    }
}

/// Root metadata (TUF 1.0 §4.3).
#[derive(Debug, Deserialize)]
pub(super) struct Root {
    #[serde(default)]
    consistent_snapshot: Option<bool>,
    keys: Keys,
    roles: BTreeMap<String, RoleKeys>,
}

/// Timestamp metadata (TUF 1.0 §4.6).
#[derive(Debug, Deserialize)]
pub(super) struct Timestamp {
    meta: BTreeMap<String, MetaFile>,
}

/// Snapshot metadata (TUF 1.0 §4.4).
#[derive(Debug, Deserialize)]
pub(super) struct Snapshot {
    pub(super) meta: BTreeMap<String, MetaFile>,
}

/// Targets metadata, top-level or delegated (TUF 1.0 §4.5).
#[derive(Debug, Deserialize)]
pub(super) struct Targets {
    pub(super) targets: BTreeMap<String, TargetFile>,
    pub(super) delegations: Option<Delegations>,
}

/// What one metadata file says of another.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct MetaFile {
    pub(super) version: u64,
    pub(super) length: Option<u64>,
    hashes: Option<Hashes>,
}

impl MetaFile {
    fn check(&self, file: &str) -> Result<(), String> {
        if self.version == 0 {
            return Err(format!("`{file}` has version 0; versions count from 1"));
        }
        Ok(())
    }

    /// Whether `bytes` are the file meant, as far as length and hashes are stated.
    pub(super) fn fits(&self, role: &str, bytes: &[u8]) -> Result<(), TufError> {
        let what = format!("{role} metadata");
        let mut check = Check::new(what, self.length, self.hashes.as_ref())?;
        check.update(bytes)?;
        check.finish()
    }
}

/// What targets metadata says of a target.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TargetFile {
    pub(super) length: u64,
    pub(super) hashes: Hashes,
}

/// A kind of metadata.
pub(super) trait Kind: DeserializeOwned {
    /// Its `_type`.
    const TYPE: &'static str;

    /// Refuses what reads well but cannot be meant.
    fn check(&self) -> Result<(), String>;
}

impl Kind for Root {
    const TYPE: &'static str = "root";

    fn check(&self) -> Result<(), String> {
        for name in TOP_LEVEL {
            self.roles
                .get(name)
                .ok_or_else(|| format!("`roles` lacks `{name}`"))?
                .check(name)?;
        }
        Ok(())
    }
}

impl Root {
    pub(super) fn consistent(&self) -> bool {
        self.consistent_snapshot.unwrap_or(false)
    }

    pub(super) fn role(&self, name: &str) -> Option<&RoleKeys> {
        self.roles.get(name)
    }

    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether a key that could sign for role `name` no longer can in `next`.
    pub(super) fn rotated(&self, next: &Self, name: &str) -> bool {
        let ids = |root: &Self| -> BTreeSet<String> {
            let role = root.roles.get(name);
            role.map(|role| role.ids().into_iter().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        !ids(self).is_subset(&ids(next))
    }
}

impl Kind for Timestamp {
    const TYPE: &'static str = "timestamp";

    fn check(&self) -> Result<(), String> {
        self.snapshot()
            .ok_or("`meta` lacks `snapshot.json`")?
            .check("snapshot.json")
    }
}

impl Timestamp {
    pub(super) fn snapshot(&self) -> Option<&MetaFile> {
        self.meta.get("snapshot.json")
    }
}

impl Kind for Snapshot {
    const TYPE: &'static str = "snapshot";

    fn check(&self) -> Result<(), String> {
        self.meta
            .iter()
            .try_for_each(|(name, file)| file.check(name))
    }
}

impl Kind for Targets {
    const TYPE: &'static str = "targets";

    fn check(&self) -> Result<(), String> {
        self.delegations.as_ref().map_or(Ok(()), Delegations::check)
    }
}

/// The part of an error that does not say again which document it is about.
fn words(error: Error) -> String {
    match error {
        Error::Malformed { why, .. } => why,
        other => other.to_string(),
    }
}

#[derive(Deserialize)]
struct Common {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
}

/// Metadata of role `role`, read.
pub(super) struct Metadata<T> {
    role: String,
    document: Document,
    pub(super) version: u64,
    expires: SystemTime,
    pub(super) body: T,
}

impl<T: Kind> Metadata<T> {
    pub(super) fn read(role: &str, bytes: &[u8]) -> Result<Self, TufError> {
        let malformed = |why: String| TufError::Malformed {
            role: role.to_owned(),
            why,
        };
        // Whoever fetched the bytes has bounded them.
        let document =
            Document::parse(T::TYPE, bytes, usize::MAX).map_err(|error| malformed(words(error)))?;
        let common =
            Common::deserialize(&document.signed).map_err(|error| malformed(error.to_string()))?;
        let brief = |text: &str| -> String { text.chars().take(40).collect() };
        if common.kind != T::TYPE {
            return Err(malformed(format!(
                "`_type` is `{}`, not `{}`",
                brief(&common.kind),
                T::TYPE
            )));
        }
        // TUF 1.0 §4.2.1: the same major version is understood.
        if common.spec_version.split('.').next() != Some("1") {
            return Err(malformed(format!(
                "`spec_version` {} is not 1.x",
                brief(&common.spec_version)
            )));
        }
        if common.version == 0 {
            return Err(malformed("`version` counts from 1".into()));
        }
        // TUF 1.0 §4.2.1: the key ids of the signatures are unique.
        if let Some(key) = document.repeated() {
            return Err(TufError::RepeatedSignature {
                role: role.to_owned(),
                key: key.chars().take(64).collect(),
            });
        }
        let expires =
            read_time(T::TYPE, &common.expires).map_err(|error| malformed(words(error)))?;
        let body =
            T::deserialize(&document.signed).map_err(|error| malformed(error.to_string()))?;
        body.check().map_err(malformed)?;
        Ok(Self {
            role: role.to_owned(),
            document,
            version: common.version,
            expires,
            body,
        })
    }

    /// Refuses what fewer than the threshold of `by` signed (the check for an arbitrary software attack of
    /// TUF 1.0 §5.3.4, §5.4.2, §5.5.3 and §5.6.3). `delegator` is who says so.
    pub(super) fn signed_by(
        &self,
        by: Option<&RoleKeys>,
        keys: &Keys,
        delegator: &str,
    ) -> Result<(), TufError> {
        let ids = by.map(RoleKeys::ids).unwrap_or_default();
        let have = self
            .document
            .tally_by(|id| keys.get(id).filter(|_| ids.contains(id)))
            .map_err(|error| TufError::Malformed {
                role: self.role.clone(),
                why: words(error),
            })?
            .have;
        // A role the delegator does not name has no threshold that could be met.
        let need = by.map_or(u32::MAX, |by| by.threshold);
        if have >= need {
            return Ok(());
        }
        Err(TufError::Threshold {
            role: self.role.clone(),
            delegator: delegator.to_owned(),
            have,
            need,
        })
    }

    /// Refuses what has expired (the check for a freeze attack of TUF 1.0 §5.3.10, §5.4.4, §5.5.6 and
    /// §5.6.5): good until, not at, its last second.
    pub(super) fn fresh(&self, now: SystemTime) -> Result<(), TufError> {
        if now < self.expires {
            return Ok(());
        }
        let words = |time| write_time(time).unwrap_or_else(|error| error.to_string());
        Err(TufError::Expired {
            role: self.role.clone(),
            version: self.version,
            expires: words(self.expires),
            now: words(now),
        })
    }

    /// Refuses another version than the announced one.
    pub(super) fn is_version(&self, wanted: u64) -> Result<(), TufError> {
        if self.version == wanted {
            return Ok(());
        }
        Err(TufError::WrongVersion {
            role: self.role.clone(),
            version: self.version,
            wanted,
        })
    }
}
