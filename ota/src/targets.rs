//! What a targets role says (TUF 1.0 §4.5): which images it lists, and to which other keys it leaves which
//! images. Images are named `HARDWARE/NAME/VERSION` here, once for each hardware they run on, so that any
//! TUF client holds a delegate to its hardware and products by the paths alone.
//!
//! Stricter than [`crate::tuf`]: one signature scheme, key ids that are hashes, delegations of the one form
//! `HARDWARE/NAME/*` (either part may be `*`), and one level of them.

mod delegate;
mod spec;

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::signed::{Document, fresh, read_time};
use crate::trust::Root;
use crate::{Error, FirmwareName, HardwareId, Manifest, RoleName, Sha256};

use delegate::DelegationsWire;
pub use delegate::{Delegate, Scope};
pub use spec::TargetsSpec;

/// Largest targets document read: some three thousand images.
pub const MAX_TARGETS_BYTES: usize = 1024 * 1024;
/// Most roles a document may delegate to.
pub const MAX_DELEGATES: usize = 64;
/// Most hardware and product pairs of a delegation.
pub const MAX_SCOPES: usize = 1024;

const WHAT: &str = "targets document";
/// The role that the root itself names.
const TOP: &str = "targets";

#[derive(Serialize, Deserialize)]
struct TargetsWire {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
    targets: BTreeMap<String, ListedWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delegations: Option<DelegationsWire>,
}

#[derive(Serialize, Deserialize)]
struct ListedWire {
    length: u64,
    hashes: HashesWire,
}

#[derive(Serialize, Deserialize)]
struct HashesWire {
    sha256: Sha256,
}

/// An image that a role lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Bytes.
    pub length: u64,
    /// Its hash.
    pub sha256: Sha256,
}

/// A targets document that its role's threshold signed. Only [`Targets::read`] and
/// [`Targets::read_delegated`] make one.
#[derive(Clone)]
pub struct Targets {
    document: Document,
    role: String,
    version: u64,
    expires: SystemTime,
    listed: BTreeMap<String, Listed>,
    delegates: Vec<Delegate>,
}

impl Targets {
    /// Reads the document of the release keys that `root` names. Whether it has expired is
    /// [`Targets::fresh`]'s to say.
    ///
    /// # Errors
    /// [`Error::Unsigned`], [`Error::Short`], [`Error::KeyNotTrusted`], [`Error::Altered`],
    /// [`Error::Malformed`], [`Error::TooLarge`].
    pub fn read(bytes: &[u8], root: &Root) -> Result<Self, Error> {
        let document = Document::parse(WHAT, bytes, MAX_TARGETS_BYTES)?;
        document.check(&format!("the {WHAT}"), root.targets(), root.version())?;
        Self::parse(document, TOP)
    }

    /// Reads the document of a role that this one delegates to. It lists images only of what it was left,
    /// and delegates no further.
    ///
    /// # Errors
    /// As [`Targets::read`]; [`Error::NotFound`] for a role this document does not name,
    /// [`Error::OutsideDelegation`].
    pub fn read_delegated(&self, role: &RoleName, bytes: &[u8]) -> Result<Self, Error> {
        let delegate = self.known(role)?;
        let document = Document::parse(WHAT, bytes, MAX_TARGETS_BYTES)?;
        let quorum = &delegate.quorum;
        let need = quorum.threshold.get();
        let have = document.tally(quorum)?.have;
        if have < need {
            return Err(Error::NotByDelegate {
                what: format!("the {WHAT}"),
                role: role.to_string(),
                have,
                need,
            });
        }
        let read = Self::parse(document, role.as_str())?;
        if !read.delegates.is_empty() {
            return Err(malformed(format!(
                "role `{role}` delegates further; one level of delegations is followed"
            )));
        }
        for path in read.listed.keys() {
            let (hardware, name) = split(path)?;
            if !delegate.scopes.iter().any(|s| s.covers(&hardware, &name)) {
                return Err(delegate.outside(path.clone()));
            }
        }
        Ok(read)
    }

    fn parse(document: Document, role: &str) -> Result<Self, Error> {
        let wire: TargetsWire = serde_json::from_value(document.signed.clone())
            .map_err(|error| malformed(error.to_string()))?;
        if wire.kind != TOP {
            return Err(malformed("`_type` is not `targets`".into()));
        }
        if wire.spec_version.split('.').next() != Some("1") {
            return Err(malformed("`spec_version` is not 1.x".into()));
        }
        if wire.version == 0 {
            return Err(malformed("`version` counts from 1".into()));
        }
        let mut listed = BTreeMap::new();
        for (path, file) in wire.targets {
            // A manifest is a document of the same kind; its target is not named so.
            split(&path)?;
            let image = Listed {
                length: file.length,
                sha256: file.hashes.sha256,
            };
            listed.insert(path, image);
        }
        let delegates = wire
            .delegations
            .map_or_else(|| Ok(Vec::new()), DelegationsWire::read)?;
        Ok(Self {
            role: role.to_owned(),
            version: wire.version,
            expires: read_time(WHAT, &wire.expires)?,
            listed,
            delegates,
            document,
        })
    }

    /// Refuses an expired document.
    ///
    /// # Errors
    /// [`Error::Expired`].
    pub fn fresh(&self, now: SystemTime) -> Result<(), Error> {
        fresh(&self.what(), self.expires, now)
    }

    /// Refuses a document that is older than one that was trusted before (TUF 1.0 §5.6.5).
    ///
    /// # Errors
    /// [`Error::Older`].
    pub fn not_older_than(&self, trusted: &Self) -> Result<(), Error> {
        if self.version >= trusted.version {
            return Ok(());
        }
        Err(Error::Older {
            what: self.what(),
            trusted: trusted.version,
        })
    }

    /// The role that speaks: `targets`, or a delegate.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Its version, counted from 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// From when on it is no longer believed.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The images listed, by path.
    #[must_use]
    pub const fn listed(&self) -> &BTreeMap<String, Listed> {
        &self.listed
    }

    /// To whom it delegates, in the order in which they are asked.
    #[must_use]
    pub fn delegates(&self) -> &[Delegate] {
        &self.delegates
    }

    /// The ids of the keys it carries a signature of; not all of them need be trusted.
    pub fn signed_by(&self) -> impl Iterator<Item = &str> {
        self.document.signers()
    }

    fn known(&self, role: &RoleName) -> Result<&Delegate, Error> {
        self.delegates
            .iter()
            .find(|delegate| delegate.name == *role)
            .ok_or_else(|| Error::NotFound {
                kind: "firmware delegate",
                name: role.to_string(),
            })
    }

    fn what(&self) -> String {
        format!(
            "the {WHAT} of role `{}`, version {},",
            self.role, self.version
        )
    }

    /// The delegate whose threshold signed `manifest`, if it may. Expiry is judged here, because this is
    /// where a delegation counts.
    ///
    /// # Errors
    /// `None` where no delegate signed; [`Error::NotByDelegate`] where one did but not enough of its keys,
    /// [`Error::OutsideDelegation`], [`Error::Expired`], [`Error::Malformed`].
    pub(crate) fn vouch(
        &self,
        document: &Document,
        parse: impl FnOnce(&Document) -> Result<Manifest, Error>,
        now: SystemTime,
    ) -> Result<Option<(Manifest, RoleName)>, Error> {
        let mut short = None;
        let mut signed = Vec::new();
        for delegate in &self.delegates {
            let need = delegate.threshold();
            match document.tally(&delegate.quorum)?.have {
                have if have >= need => signed.push(delegate),
                0 => {}
                have => {
                    short.get_or_insert(Error::NotByDelegate {
                        what: "the firmware manifest".into(),
                        role: delegate.name.to_string(),
                        have,
                        need,
                    });
                }
            }
        }
        if signed.is_empty() {
            return short.map_or(Ok(None), Err);
        }
        self.fresh(now)?;
        let manifest = parse(document)?;
        let mut outside = None;
        for delegate in signed {
            match delegate.may_sign(&manifest) {
                Ok(()) => return Ok(Some((manifest, delegate.name.clone()))),
                Err(error) => outside = outside.or(Some(error)),
            }
        }
        outside.map_or(Ok(None), Err)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Targets({} version {})", self.role, self.version)
    }
}

/// How many signatures of `role` (of the top-level role where it is `None`) a document lacks.
///
/// # Errors
/// [`Error::Malformed`], [`Error::NotFound`] for a role that `top` does not name.
pub fn missing(
    bytes: &[u8],
    root: &Root,
    role: Option<(&Targets, &RoleName)>,
) -> Result<u32, Error> {
    let document = Document::parse(WHAT, bytes, MAX_TARGETS_BYTES)?;
    let quorum = match role {
        Some((top, role)) => &top.known(role)?.quorum,
        None => root.targets(),
    };
    let have = document.tally(quorum)?.have;
    Ok(quorum.threshold.get().saturating_sub(have))
}

/// Hardware and name of a listed path.
fn split(path: &str) -> Result<(HardwareId, FirmwareName), Error> {
    let mut parts = path.split('/');
    let read = (|| {
        let hardware = parts.next()?.parse().ok()?;
        let name = parts.next()?.parse().ok()?;
        let _: crate::FirmwareVersion = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((hardware, name))
    })();
    read.ok_or_else(|| {
        malformed(format!(
            "it lists `{}`; images are listed as HARDWARE/NAME/VERSION",
            path.chars().take(100).collect::<String>().escape_debug()
        ))
    })
}

fn malformed(why: String) -> Error {
    Error::Malformed { what: WHAT, why }
}

#[cfg(test)]
mod tests;
