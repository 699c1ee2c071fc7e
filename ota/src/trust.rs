//! The trust root: which release keys may make an image acceptable, as a TUF 1.0 `root.json`. A root is
//! believed once, and from then on only followed by successors that its own threshold signed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::canonical;
use crate::digest::sha256;
use crate::signed::{Document, Quorum, fresh, read_time, write_time};
use crate::{Error, KeyId, PublicKey, ReleaseKey};

/// Largest trust root read: 64 keys, their roles and their signatures take a quarter of it.
pub const MAX_ROOT_BYTES: usize = 96 * 1024;
/// Most keys a trust root may name.
pub const MAX_KEYS: usize = 64;
/// The version of the TUF specification our documents follow.
pub(crate) const SPEC_VERSION: &str = "1.0.31";

const WHAT: &str = "trust root";

#[derive(Clone, Serialize, Deserialize)]
struct RootWire {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
    consistent_snapshot: bool,
    keys: BTreeMap<KeyId, Value>,
    roles: RolesWire,
}

#[derive(Clone, Serialize, Deserialize)]
struct RolesWire {
    root: RoleWire,
    targets: RoleWire,
    snapshot: RoleWire,
    timestamp: RoleWire,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct RoleWire {
    pub(crate) keyids: Vec<KeyId>,
    pub(crate) threshold: u32,
}

#[derive(Deserialize)]
struct KeyWire {
    keytype: String,
    scheme: String,
    keyval: KeyValueWire,
}

#[derive(Deserialize)]
struct KeyValueWire {
    public: String,
}

/// A trust root whose own threshold signed it. Only [`Root::read`] (the first, believed because a person
/// said so) and [`Root::successor`] make one.
#[derive(Clone)]
pub struct Root {
    document: Document,
    wire: RootWire,
    version: u64,
    expires: SystemTime,
    root: Quorum,
    targets: Quorum,
}

impl Root {
    /// Reads a root that is believed for a reason of its own: the first one, or one kept from before.
    /// Checks that it is whole and that its own root role signed it; not whether it has expired, which is
    /// [`Root::fresh`]'s to say, because a newer one may follow an expired one (TUF 1.0 §5.3.10).
    ///
    /// # Errors
    /// Says what is missing: [`Error::Unsigned`], [`Error::Short`], [`Error::KeyNotTrusted`],
    /// [`Error::Altered`], [`Error::Malformed`], [`Error::TooLarge`].
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let root = Self::parse(bytes)?;
        root.document
            .check(&root.what(), &root.root, root.version)?;
        Ok(root)
    }

    /// Reads the root that follows this one: signed by this root's threshold and by its own (TUF 1.0
    /// §5.3.4), its version exactly one higher (§5.3.5).
    ///
    /// # Errors
    /// [`Error::NotSuccessor`] where this root did not sign it, [`Error::WrongVersion`], and those of
    /// [`Root::read`].
    pub fn successor(&self, bytes: &[u8]) -> Result<Self, Error> {
        let next = Self::parse(bytes)?;
        let need = self.root.threshold.get();
        let have = next.document.tally(&self.root)?.have;
        if have < need {
            return Err(Error::NotSuccessor {
                version: next.version,
                trusted: self.version,
                have,
                need,
            });
        }
        next.document
            .check(&next.what(), &next.root, next.version)?;
        if self.version.checked_add(1) != Some(next.version) {
            return Err(Error::WrongVersion {
                version: next.version,
                trusted: self.version,
            });
        }
        Ok(next)
    }

    /// Refuses an expired root.
    ///
    /// # Errors
    /// [`Error::Expired`].
    pub fn fresh(&self, now: SystemTime) -> Result<(), Error> {
        fresh(&self.what(), self.expires, now)
    }

    /// The root's version, counted from 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// From when on it is no longer believed.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// How many release keys must sign an image, and how many there are.
    #[must_use]
    pub fn threshold(&self) -> (u32, usize) {
        (self.targets.threshold.get(), self.targets.keys.len())
    }

    /// The ids of the release keys that may sign images.
    pub fn release_keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.targets.keys.keys().copied()
    }

    /// Whether `key` alone may say what is newest (the roles snapshot and timestamp).
    #[cfg(feature = "server")]
    pub(crate) fn leaves_newest_to(&self, key: PublicKey) -> Result<bool, Error> {
        let id = key.id()?;
        let roles = &self.wire.roles;
        let alone = |role: &RoleWire| role.threshold == 1 && role.keyids.contains(&id);
        Ok(alone(&roles.snapshot) && alone(&roles.timestamp))
    }

    /// Each role with the keys that may sign for it and how many must.
    pub fn roles(&self) -> impl Iterator<Item = (&'static str, u32, Vec<(KeyId, PublicKey)>)> + '_ {
        let roles = &self.wire.roles;
        [
            ("root", &roles.root),
            ("targets", &roles.targets),
            ("snapshot", &roles.snapshot),
            ("timestamp", &roles.timestamp),
        ]
        .into_iter()
        .map(|(name, role)| {
            // Checked when the root was read, so none is left out here.
            let key = |id: &KeyId| {
                let value = self.wire.keys.get(id)?;
                Some((*id, read_key(WHAT, *id, value).ok()?))
            };
            (
                name,
                role.threshold,
                role.keyids.iter().filter_map(key).collect(),
            )
        })
    }

    /// The ids of the keys it carries a signature of.
    pub fn signed_by(&self) -> impl Iterator<Item = &str> {
        self.document.signers()
    }

    pub(crate) const fn targets(&self) -> &Quorum {
        &self.targets
    }

    fn what(&self) -> String {
        format!("{WHAT} version {}", self.version)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let document = Document::parse(WHAT, bytes, MAX_ROOT_BYTES)?;
        let wire: RootWire =
            serde_json::from_value(document.signed.clone()).map_err(|error| Error::Malformed {
                what: WHAT,
                why: error.to_string(),
            })?;
        let malformed = |why: String| Error::Malformed { what: WHAT, why };
        if wire.kind != "root" {
            return Err(malformed(format!(
                "`_type` is `{}`, not `root`",
                brief(&wire.kind)
            )));
        }
        // TUF 1.0 §4.2: the same major version is understood.
        if wire.spec_version.split('.').next() != Some("1") {
            return Err(malformed(format!(
                "`spec_version` {} is not 1.x",
                brief(&wire.spec_version)
            )));
        }
        if wire.version == 0 {
            return Err(malformed("`version` counts from 1".into()));
        }
        if wire.keys.len() > MAX_KEYS {
            return Err(malformed(format!(
                "it names {} keys; at most {MAX_KEYS} are read",
                wire.keys.len()
            )));
        }
        let mut keys = BTreeMap::new();
        for (id, value) in &wire.keys {
            keys.insert(*id, read_key(WHAT, *id, value)?);
        }
        let root = wire.roles.root.quorum(WHAT, "root", &keys)?;
        let targets = wire.roles.targets.quorum(WHAT, "targets", &keys)?;
        wire.roles.snapshot.quorum(WHAT, "snapshot", &keys)?;
        wire.roles.timestamp.quorum(WHAT, "timestamp", &keys)?;
        let expires = read_time(WHAT, &wire.expires)?;
        Ok(Self {
            version: wire.version,
            expires,
            root,
            targets,
            document,
            wire,
        })
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Root(version {}, threshold {:?})",
            self.version,
            self.threshold()
        )
    }
}

fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}

pub(crate) fn read_key(what: &'static str, id: KeyId, value: &Value) -> Result<PublicKey, Error> {
    let malformed = |why: String| Error::Malformed { what, why };
    let key: KeyWire = serde_json::from_value(value.clone())
        .map_err(|error| malformed(format!("key {id}: {error}")))?;
    if key.keytype != "ed25519" || key.scheme != "ed25519" {
        return Err(malformed(format!(
            "key {id} is `{}`; release keys are `ed25519`",
            brief(&key.keytype)
        )));
    }
    // TUF 1.0 §4.2: the id is the hash of the key, so no key can stand under a name it chose.
    if sha256(&canonical(value)?) != *id.digest() {
        return Err(malformed(format!(
            "key id {id} is not the SHA-256 of its key"
        )));
    }
    PublicKey::from_hex(&key.keyval.public).map_err(|_| {
        malformed(format!(
            "key {id}: `keyval.public` is no Ed25519 key in lower-case hex"
        ))
    })
}

impl RoleWire {
    pub(crate) fn quorum(
        &self,
        what: &'static str,
        name: &str,
        keys: &BTreeMap<KeyId, PublicKey>,
    ) -> Result<Quorum, Error> {
        let malformed = |why: String| Error::Malformed { what, why };
        let mut members = BTreeMap::new();
        for id in &self.keyids {
            let key = keys.get(id).ok_or_else(|| {
                malformed(format!(
                    "role `{name}` names key {id}, which `keys` does not hold"
                ))
            })?;
            if members.insert(*id, *key).is_some() {
                return Err(malformed(format!("role `{name}` names key {id} twice")));
            }
        }
        let threshold = NonZeroU32::new(self.threshold).ok_or_else(|| {
            malformed(format!(
                "role `{name}` has threshold 0: nobody would have to sign"
            ))
        })?;
        let distinct = members.values().collect::<BTreeSet<_>>().len();
        if (distinct as u64) < u64::from(threshold.get()) {
            return Err(malformed(format!(
                "role `{name}` has threshold {threshold} but only {distinct} keys: it could never be met"
            )));
        }
        Ok(Quorum {
            keys: members,
            threshold,
        })
    }
}

/// What a new trust root says (`firmware root`).
#[derive(Debug)]
pub struct RootSpec<'a> {
    /// The release keys that may sign roots and images from now on.
    pub release_keys: Vec<PublicKey>,
    /// How many of them it takes; at least 1.
    pub threshold: u32,
    /// The server's online key, for the roles that only say what is newest (snapshot, timestamp). `None`
    /// keeps the previous root's, and in a first root gives these roles to the release keys as well:
    /// then nothing online can sign anything.
    pub online: Option<PublicKey>,
    /// From when on the root is no longer believed.
    pub expires: SystemTime,
    /// The root this one follows; `None` makes version 1.
    pub previous: Option<&'a Root>,
}

/// A root as [`RootSpec::sign`] made it, perhaps not yet signed by enough.
#[derive(Debug)]
pub struct RootDraft {
    /// The document to write to `ROOT.json`.
    pub bytes: Vec<u8>,
    /// The version it has.
    pub version: u64,
    /// Signatures its own threshold still lacks; [`crate::co_sign`] adds them.
    pub missing: u32,
    /// Signatures the previous root's threshold still lacks.
    pub missing_of_previous: u32,
}

impl RootSpec<'_> {
    /// Makes the root and signs it with `signers`: the release keys at hand and, for a successor, those
    /// of the previous root, whether or not the new one still names them.
    ///
    /// # Errors
    /// [`Error::Malformed`] where nobody could ever meet the threshold.
    pub fn sign(&self, signers: &[ReleaseKey]) -> Result<RootDraft, Error> {
        let mut keys = BTreeMap::new();
        let mut release = BTreeMap::new();
        for key in &self.release_keys {
            release.insert(key.id()?, key.to_tuf());
        }
        keys.extend(release.clone());
        let offline = RoleWire {
            keyids: release.into_keys().collect(),
            threshold: self.threshold,
        };
        let (snapshot, timestamp) = match (self.online, self.previous) {
            (Some(key), _) => {
                keys.insert(key.id()?, key.to_tuf());
                let role = RoleWire {
                    keyids: vec![key.id()?],
                    threshold: 1,
                };
                (role.clone(), role)
            }
            (None, Some(previous)) => {
                let roles = &previous.wire.roles;
                for id in roles.snapshot.keyids.iter().chain(&roles.timestamp.keyids) {
                    if let Some(key) = previous.wire.keys.get(id) {
                        keys.insert(*id, key.clone());
                    }
                }
                (roles.snapshot.clone(), roles.timestamp.clone())
            }
            (None, None) => (offline.clone(), offline.clone()),
        };
        let version = self
            .previous
            .map_or(1, |previous| previous.version.saturating_add(1));
        let wire = RootWire {
            kind: "root".into(),
            spec_version: SPEC_VERSION.into(),
            version,
            expires: write_time(self.expires)?,
            consistent_snapshot: false,
            keys,
            roles: RolesWire {
                root: offline.clone(),
                targets: offline,
                snapshot,
                timestamp,
            },
        };
        let signed = serde_json::to_value(&wire).map_err(|error| Error::Canonical {
            why: error.to_string(),
        })?;
        let mut document = Document::new(signed);
        document.sign(signers)?;
        let bytes = document.to_bytes()?;
        let made = Root::parse(&bytes)?;
        let lacks = |quorum: &Quorum| -> Result<u32, Error> {
            Ok(quorum
                .threshold
                .get()
                .saturating_sub(document.tally(quorum)?.have))
        };
        Ok(RootDraft {
            version,
            missing: lacks(&made.root)?,
            missing_of_previous: self
                .previous
                .map_or(Ok(0), |previous| lacks(&previous.root))?,
            bytes,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
