//! The targets documents that the release team and its delegates have signed: whom an image may be signed
//! by besides the release keys, and what each lists.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use store::Stored;

use super::records::key;
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::{Error, KeyId, PublicKey, RoleName, Root, Sha256, Targets};

/// A targets document, as it was given.
#[derive(Serialize, Deserialize)]
struct TargetsRow {
    json: String,
}
impl Stored for TargetsRow {}

impl Ota {
    /// Takes the release team's targets document: signed by the trusted root's threshold, no older than the
    /// one before. The same one again changes nothing.
    ///
    /// # Errors
    /// [`Error::NoTrust`], [`Error::Older`], and what [`Targets::read`] and [`Targets::fresh`] say.
    pub fn trust_targets(&self, bytes: &[u8], now: SystemTime) -> Result<Targets, Error> {
        let _turn = self.turn();
        let (_, root) = self.newest_root()?.ok_or(Error::NoTrust)?;
        let next = Targets::read(bytes, &root)?;
        self.keep_targets(&key::targets(None), next, bytes, now, |known| {
            Targets::read(known, &root)
        })
    }

    /// Takes a delegate's targets document, as [`Ota::trust_targets`] takes the team's.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is delegated to `role`, and those of
    /// [`Targets::read_delegated`].
    pub fn trust_delegated(
        &self,
        role: &RoleName,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<Targets, Error> {
        let _turn = self.turn();
        let (_, root) = self.newest_root()?.ok_or(Error::NoTrust)?;
        let (_, top) = self.delegations(&root)?.ok_or_else(|| Error::NotFound {
            kind: "firmware delegate",
            name: role.to_string(),
        })?;
        let next = top.read_delegated(role, bytes)?;
        self.keep_targets(&key::targets(Some(role)), next, bytes, now, |known| {
            top.read_delegated(role, known)
        })
    }

    fn keep_targets(
        &self,
        key: &str,
        next: Targets,
        bytes: &[u8],
        now: SystemTime,
        read: impl FnOnce(&[u8]) -> Result<Targets, Error>,
    ) -> Result<Targets, Error> {
        next.fresh(now)?;
        let mut rows = Transaction::new(&self.inner.table);
        if let Some(known) = rows.get::<TargetsRow>(key)? {
            if known.json.as_bytes() == bytes {
                return Ok(next);
            }
            // One whose signers are trusted no longer is no measure.
            if let Ok(known) = read(known.json.as_bytes()) {
                next.not_older_than(&known)?;
                if next.version() == known.version() {
                    return Err(Error::AlreadyExists {
                        kind: "version",
                        name: next.version().to_string(),
                        hint: " of this targets document with another content; give it the next version with --previous",
                    });
                }
            }
        }
        let json = String::from_utf8(bytes.to_vec()).map_err(|error| Error::Malformed {
            what: "targets document",
            why: error.to_string(),
        })?;
        rows.put(key.to_owned(), &TargetsRow { json })?;
        rows.commit()?;
        Ok(next)
    }

    /// The release team's targets document as it was given, and what it says; `None` where there is none,
    /// or none that `root` still vouches for.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn delegations(&self, root: &Root) -> Result<Option<(String, Targets)>, Error> {
        let row = self.inner.table.get_as::<TargetsRow>(&key::targets(None))?;
        Ok(row.and_then(|row| {
            let json = row.value.json;
            let read = Targets::read(json.as_bytes(), root);
            read.ok().map(|targets| (json, targets))
        }))
    }

    /// A delegate's targets document as it was given, and what it says; `None` where there is none, or none
    /// that `top` still vouches for.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn delegated(
        &self,
        top: &Targets,
        role: &RoleName,
    ) -> Result<Option<(String, Targets)>, Error> {
        let row = self
            .inner
            .table
            .get_as::<TargetsRow>(&key::targets(Some(role)))?;
        Ok(row.and_then(|row| {
            let json = row.value.json;
            let read = top.read_delegated(role, json.as_bytes());
            read.ok().map(|targets| (json, targets))
        }))
    }

    /// A metadata file of the repository, as a TUF client asks for it: `N.root.json`, `timestamp.json`,
    /// `snapshot.json`, `targets.json`, and `ROLE.json` of each delegate.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn metadata(&self, file: &str, now: SystemTime) -> Result<Option<String>, Error> {
        let Some(role) = file.strip_suffix(".json") else {
            return Ok(None);
        };
        if let Some(version) = role.strip_suffix(".root") {
            // As it is written, so that a file has one name.
            let read = version
                .parse()
                .ok()
                .filter(|n: &u64| n.to_string() == version);
            return read.map_or(Ok(None), |version| self.root(version));
        }
        let Some((_, root)) = self.newest_root()? else {
            return Ok(None);
        };
        let Some((json, top)) = self.delegations(&root)? else {
            return Ok(None);
        };
        Ok(match role {
            "targets" => Some(json),
            "snapshot" | "timestamp" => self
                .newest(&root, &top, now)?
                .and_then(|newest| newest.document(role)),
            role => match role.parse() {
                Ok(role) => self.delegated(&top, &role)?.map(|(json, _)| json),
                Err(_) => None,
            },
        })
    }

    /// The hash of the image that the repository lists at `path` (`HARDWARE/NAME/VERSION`).
    ///
    /// # Errors
    /// [`Error::NotFound`] where none is listed there.
    pub fn listed(&self, path: &str) -> Result<Sha256, Error> {
        let mut found = None;
        if let Some((_, root)) = self.newest_root()?
            && let Some((_, top)) = self.delegations(&root)?
        {
            found = top.listed().get(path).map(|image| image.sha256);
            for delegate in top.delegates() {
                if found.is_none()
                    && let Some((_, own)) = self.delegated(&top, delegate.name())?
                {
                    found = own.listed().get(path).map(|image| image.sha256);
                }
            }
        }
        found.ok_or_else(|| Error::NotFound {
            kind: "target",
            name: path.chars().take(200).collect(),
        })
    }

    /// What is signed offline and ends: the trust root, and the documents that list images or leave them to delegates.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn offline_documents(&self) -> Result<Vec<OfflineDocument>, Error> {
        let Some((_, root)) = self.newest_root()? else {
            return Ok(Vec::new());
        };
        let document = |role: &str, version, expires| OfflineDocument {
            role: role.to_owned(),
            version,
            expires,
        };
        let mut found = vec![document("root", root.version(), root.expires())];
        if let Some((_, top)) = self.delegations(&root)? {
            found.push(document("targets", top.version(), top.expires()));
            for delegate in top.delegates() {
                if let Some((_, own)) = self.delegated(&top, delegate.name())? {
                    let role = delegate.name().as_str();
                    found.push(document(role, own.version(), own.expires()));
                }
            }
        }
        Ok(found)
    }

    /// The repository's metadata, to be looked at.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn repository(&self, now: SystemTime) -> Result<RepositoryShown, Error> {
        let mut shown = RepositoryShown {
            not_served: self.serves_no_repository_because()?,
            roles: Vec::new(),
            delegations: Vec::new(),
            targets: Vec::new(),
        };
        let Some((_, root)) = self.newest_root()? else {
            return Ok(shown);
        };
        let top = self.delegations(&root)?.map(|(_, top)| top);
        let online = self.inner.online.public();
        for (name, threshold, keys) in root.roles() {
            let mut role = RepositoryRole::new(name, threshold, &keys, online);
            match name {
                "root" => role.stands(root.version(), root.expires(), root.signed_by(), now),
                "targets" => {
                    if let Some(top) = &top {
                        role.stands(top.version(), top.expires(), top.signed_by(), now);
                    }
                }
                _ => {
                    if let Some(top) = &top
                        && let Some(newest) = self.newest(&root, top, now)?
                    {
                        let (version, expires) = newest.stands(name);
                        let signer = online.id()?.to_string();
                        role.stands(version, expires, std::iter::once(signer.as_str()), now);
                    }
                }
            }
            shown.roles.push(role);
        }
        let Some(top) = top else { return Ok(shown) };
        shown.list(&top, self)?;
        for delegate in top.delegates() {
            let keys: Vec<_> = delegate.keys().collect();
            let name = delegate.name();
            let mut role = RepositoryRole::new(name.as_str(), delegate.threshold(), &keys, online);
            if let Some((_, own)) = self.delegated(&top, name)? {
                role.stands(own.version(), own.expires(), own.signed_by(), now);
                shown.list(&own, self)?;
            }
            shown.delegations.push(RepositoryDelegate {
                role,
                paths: delegate.scopes().map(ToString::to_string).collect(),
            });
        }
        Ok(shown)
    }
}

/// A document that is signed offline, and until when devices take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineDocument {
    /// `root`, `targets` or a delegate's name.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: SystemTime,
}

impl OfflineDocument {
    /// How long before its end somebody should see to the next.
    const NOTICE: Duration = Duration::from_secs(30 * 86_400);

    /// Whether it ends soon, or has ended.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.expires <= now + Self::NOTICE
    }
}

/// The repository's metadata as people and programs look at it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryShown {
    /// Why no TUF client could use it, in words; `None` where one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_served: Option<&'static str>,
    /// Root, targets, snapshot and timestamp; none before the first trust root.
    pub roles: Vec<RepositoryRole>,
    /// Whom the release team left images to.
    pub delegations: Vec<RepositoryDelegate>,
    /// The images listed.
    pub targets: Vec<RepositoryImage>,
}

/// A role: who may sign for it, and what they have signed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryRole {
    /// Its name.
    pub role: String,
    /// The version of its document; `None` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// When that expires, seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Whether it has.
    pub expired: bool,
    /// How many of the keys must sign.
    pub threshold: u32,
    /// The keys.
    pub keys: Vec<RepositoryKey>,
}

/// A key of a role.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryKey {
    /// Its id, as TUF has it.
    pub key_id: String,
    /// The Ed25519 key in hex.
    pub public: String,
    /// Whether it is this server's own; all others are held offline.
    pub online: bool,
    /// Whether the role's document carries its signature.
    pub signed: bool,
}

/// A delegation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryDelegate {
    /// The delegate, and the document in which it lists images of its own.
    #[serde(flatten)]
    pub role: RepositoryRole,
    /// What it may sign: `HARDWARE/NAME/*`.
    pub paths: Vec<String>,
}

/// An image that a role lists.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryImage {
    /// `HARDWARE/NAME/VERSION`.
    pub path: String,
    /// The role that lists it.
    pub role: String,
    /// Bytes.
    pub length: u64,
    /// Its hash.
    pub sha256: Sha256,
    /// Whether this server has it.
    pub kept: bool,
}

impl RepositoryRole {
    fn new(name: &str, threshold: u32, keys: &[(KeyId, PublicKey)], online: PublicKey) -> Self {
        let keys = keys.iter().map(|(id, key)| RepositoryKey {
            key_id: id.to_string(),
            public: key.to_hex(),
            online: *key == online,
            signed: false,
        });
        Self {
            role: name.to_owned(),
            version: None,
            expires: None,
            expired: false,
            threshold,
            keys: keys.collect(),
        }
    }

    fn stands<'a>(
        &mut self,
        version: u64,
        expires: SystemTime,
        signers: impl Iterator<Item = &'a str>,
        now: SystemTime,
    ) {
        self.version = Some(version);
        self.expires = Some(seconds(expires));
        self.expired = now >= expires;
        for signer in signers {
            for key in self.keys.iter_mut().filter(|key| key.key_id == signer) {
                key.signed = true;
            }
        }
    }
}

impl RepositoryShown {
    fn list(&mut self, targets: &Targets, ota: &Ota) -> Result<(), Error> {
        for (path, image) in targets.listed() {
            self.targets.push(RepositoryImage {
                path: path.clone(),
                role: targets.role().to_owned(),
                length: image.length,
                sha256: image.sha256,
                kept: ota.inner.blobs.open(&image.sha256.to_string())?.is_some(),
            });
        }
        Ok(())
    }
}
