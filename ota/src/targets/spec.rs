//! Targets documents made anew, offline.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::delegate::DelegationsWire;
use super::{
    Delegate, HashesWire, Listed, ListedWire, MAX_TARGETS_BYTES, TOP, Targets, TargetsWire, WHAT,
};
use crate::signed::{Document, write_time};
use crate::trust::SPEC_VERSION;
use crate::{Error, Manifest, ReleaseKey, RoleName};

/// What a new targets document says (`firmware delegate`, `firmware index`).
#[derive(Debug)]
pub struct TargetsSpec {
    version: u64,
    listed: BTreeMap<String, Listed>,
    delegates: Vec<Delegate>,
    /// From when on it is no longer believed.
    pub expires: SystemTime,
}

impl TargetsSpec {
    /// The successor of `previous` that says the same, or version 1 that says nothing yet.
    #[must_use]
    pub fn following(previous: Option<&Targets>, expires: SystemTime) -> Self {
        Self {
            version: previous.map_or(1, |known| known.version.saturating_add(1)),
            listed: previous
                .map(|known| known.listed.clone())
                .unwrap_or_default(),
            delegates: previous
                .map(|known| known.delegates.clone())
                .unwrap_or_default(),
            expires,
        }
    }

    /// Delegates, in place of what was delegated to a role of the same name.
    pub fn delegate(&mut self, delegate: Delegate) {
        match self
            .delegates
            .iter_mut()
            .find(|known| known.name == delegate.name)
        {
            Some(known) => *known = delegate,
            None => self.delegates.push(delegate),
        }
    }

    /// Takes a delegation back.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn withdraw(&mut self, role: &RoleName) -> Result<(), Error> {
        let before = self.delegates.len();
        self.delegates.retain(|known| known.name != *role);
        if self.delegates.len() < before {
            return Ok(());
        }
        Err(Error::NotFound {
            kind: "firmware delegate",
            name: role.to_string(),
        })
    }

    /// Lists an image under each hardware it runs on.
    pub fn list(&mut self, manifest: &Manifest) {
        for hardware in &manifest.hardware {
            let path = format!("{hardware}/{}/{}", manifest.name, manifest.version);
            let image = Listed {
                length: manifest.size,
                sha256: manifest.sha256,
            };
            self.listed.insert(path, image);
        }
    }

    /// Lists an image no longer, whatever its hardware.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn drop_listed(&mut self, name: &str, version: &str) -> Result<(), Error> {
        let before = self.listed.len();
        let rest = format!("{name}/{version}");
        self.listed
            .retain(|path, _| path.split_once('/').is_none_or(|(_, known)| known != rest));
        if self.listed.len() < before {
            return Ok(());
        }
        Err(Error::NotFound {
            kind: "listed firmware",
            name: rest,
        })
    }

    /// The version it will have.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Makes the document, signed by `signers`; [`crate::co_sign`] adds further signatures.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::Time`].
    pub fn sign<'k>(
        &self,
        signers: impl IntoIterator<Item = &'k ReleaseKey>,
    ) -> Result<Vec<u8>, Error> {
        let targets = self
            .listed
            .iter()
            .map(|(path, image)| {
                let hashes = HashesWire {
                    sha256: image.sha256,
                };
                let file = ListedWire {
                    length: image.length,
                    hashes,
                };
                (path.clone(), file)
            })
            .collect();
        let wire = TargetsWire {
            kind: TOP.into(),
            spec_version: SPEC_VERSION.into(),
            version: self.version,
            expires: write_time(self.expires)?,
            targets,
            delegations: DelegationsWire::of(&self.delegates),
        };
        let signed = serde_json::to_value(&wire).map_err(|error| Error::Canonical {
            why: error.to_string(),
        })?;
        let mut document = Document::new(signed);
        document.sign(signers)?;
        let bytes = document.to_bytes()?;
        // What could not be read back is not handed out.
        Self::readable(&bytes)?;
        Ok(bytes)
    }

    fn readable(bytes: &[u8]) -> Result<(), Error> {
        Targets::parse(Document::parse(WHAT, bytes, MAX_TARGETS_BYTES)?, TOP).map(|_| ())
    }
}
