//! Delegates: who they are, and what was left to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MAX_DELEGATES, MAX_SCOPES, WHAT, malformed};
use crate::signed::Quorum;
use crate::trust::{RoleWire, read_key};
use crate::{Error, FirmwareName, HardwareId, KeyId, Manifest, PublicKey, RoleName};

/// Unknown fields are refused: one that this release does not know could narrow what a delegate may sign.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DelegationsWire {
    keys: BTreeMap<KeyId, Value>,
    roles: Vec<DelegateWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DelegateWire {
    name: RoleName,
    keyids: Vec<KeyId>,
    threshold: u32,
    terminating: bool,
    paths: Vec<String>,
}

/// Which images a delegate may sign: of this hardware, under this name; `None` is any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// The hardware.
    pub hardware: Option<HardwareId>,
    /// The firmware's name.
    pub name: Option<FirmwareName>,
}

impl Scope {
    /// Reads a path pattern of the form `HARDWARE/NAME/*`.
    pub(super) fn read(pattern: &str) -> Option<Self> {
        let mut parts = pattern.split('/');
        let (hardware, name, rest) = (parts.next()?, parts.next()?, parts.next()?);
        if rest != "*" || parts.next().is_some() {
            return None;
        }
        let given = |part: &str| (part != "*").then(|| part.to_owned());
        Some(Self {
            hardware: given(hardware).map(|part| part.parse()).transpose().ok()?,
            name: given(name).map(|part| part.parse()).transpose().ok()?,
        })
    }

    pub(super) fn covers(&self, hardware: &HardwareId, name: &FirmwareName) -> bool {
        self.hardware.as_ref().is_none_or(|mine| mine == hardware)
            && self.name.as_ref().is_none_or(|mine| mine == name)
    }
}

/// The path pattern that a TUF client matches.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hardware = self.hardware.as_ref().map_or("*", HardwareId::as_str);
        let name = self.name.as_ref().map_or("*", FirmwareName::as_str);
        write!(f, "{hardware}/{name}/*")
    }
}

/// A role that others than the release team hold the keys of, and what it may sign.
#[derive(Clone, Debug)]
pub struct Delegate {
    pub(super) name: RoleName,
    pub(super) quorum: Quorum,
    pub(super) scopes: BTreeSet<Scope>,
}

impl Delegate {
    /// A delegate of these keys, of which `threshold` must sign.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the threshold could never be met, or where it may sign nothing.
    pub fn new(
        name: RoleName,
        keys: &[PublicKey],
        threshold: u32,
        scopes: BTreeSet<Scope>,
    ) -> Result<Self, Error> {
        let mut known = BTreeMap::new();
        for key in keys {
            known.insert(key.id()?, *key);
        }
        let wire = RoleWire {
            keyids: known.keys().copied().collect(),
            threshold,
        };
        let made = Self {
            quorum: wire.quorum(WHAT, name.as_str(), &known)?,
            name,
            scopes,
        };
        made.bounds()?;
        Ok(made)
    }

    /// What the role is called.
    #[must_use]
    pub const fn name(&self) -> &RoleName {
        &self.name
    }

    /// Which images it may sign.
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter()
    }

    /// How many of its keys must sign.
    #[must_use]
    pub const fn threshold(&self) -> u32 {
        self.quorum.threshold.get()
    }

    /// The keys, by their ids.
    pub fn keys(&self) -> impl Iterator<Item = (KeyId, PublicKey)> + '_ {
        self.quorum.keys.iter().map(|(id, key)| (*id, *key))
    }

    fn bounds(&self) -> Result<(), Error> {
        if !self.name.is_free() {
            return Err(malformed(format!(
                "`{}` is a role of the trust root and no name for a delegate",
                self.name
            )));
        }
        if (1..=MAX_SCOPES).contains(&self.scopes.len()) {
            return Ok(());
        }
        Err(malformed(format!(
            "role `{}` has {} path patterns; 1 to {MAX_SCOPES} are possible (`--hardware`, `--product`)",
            self.name,
            self.scopes.len()
        )))
    }

    /// Refuses an image that is not this role's to sign, for any of its hardware.
    pub(super) fn may_sign(&self, manifest: &Manifest) -> Result<(), Error> {
        for hardware in &manifest.hardware {
            let covered = self
                .scopes
                .iter()
                .any(|scope| scope.covers(hardware, &manifest.name));
            if !covered {
                return Err(
                    self.outside(format!("{hardware}/{}/{}", manifest.name, manifest.version))
                );
            }
        }
        Ok(())
    }

    pub(super) fn outside(&self, path: String) -> Error {
        let may: Vec<String> = self.scopes.iter().take(8).map(Scope::to_string).collect();
        Error::OutsideDelegation {
            path,
            role: self.name.to_string(),
            may: may.join(", "),
        }
    }
}

impl DelegationsWire {
    pub(super) fn read(self) -> Result<Vec<Delegate>, Error> {
        if self.roles.len() > MAX_DELEGATES {
            return Err(malformed(format!(
                "it delegates to {} roles; at most {MAX_DELEGATES} are read",
                self.roles.len()
            )));
        }
        let mut keys = BTreeMap::new();
        for (id, value) in &self.keys {
            keys.insert(*id, read_key(WHAT, *id, value)?);
        }
        let mut delegates: Vec<Delegate> = Vec::new();
        for wire in self.roles {
            if delegates.iter().any(|known| known.name == wire.name) {
                return Err(malformed(format!("it names role `{}` twice", wire.name)));
            }
            let role = RoleWire {
                keyids: wire.keyids,
                threshold: wire.threshold,
            };
            let scopes = wire.paths.iter().map(|pattern| {
                Scope::read(pattern).ok_or_else(|| {
                    malformed(format!(
                        "role `{}` has the path pattern `{}`; Muster reads `HARDWARE/NAME/*`",
                        wire.name,
                        pattern.chars().take(100).collect::<String>().escape_debug()
                    ))
                })
            });
            let delegate = Delegate {
                quorum: role.quorum(WHAT, wire.name.as_str(), &keys)?,
                scopes: scopes.collect::<Result<_, _>>()?,
                name: wire.name,
            };
            delegate.bounds()?;
            delegates.push(delegate);
        }
        Ok(delegates)
    }

    pub(super) fn of(delegates: &[Delegate]) -> Option<Self> {
        if delegates.is_empty() {
            return None;
        }
        let mut keys = BTreeMap::new();
        let mut roles = Vec::new();
        for delegate in delegates {
            keys.extend(delegate.keys().map(|(id, key)| (id, key.to_tuf())));
            roles.push(DelegateWire {
                name: delegate.name.clone(),
                keyids: delegate.quorum.keys.keys().copied().collect(),
                threshold: delegate.threshold(),
                // What was left to somebody is not looked for elsewhere.
                terminating: true,
                paths: delegate.scopes.iter().map(Scope::to_string).collect(),
            });
        }
        Some(Self { keys, roles })
    }
}
