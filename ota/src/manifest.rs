//! The firmware manifest: what an image is, for whom, and what it takes; signed offline, in the frame of
//! a TUF `targets` document so that further TUF metadata can stand beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::signed::{Document, fresh, read_time, write_time};
use crate::trust::{Root, SPEC_VERSION};
use crate::{Error, FirmwareName, FirmwareVersion, HardwareId, ReleaseKey, RoleName, Targets};

/// Bytes per chunk; the last one may be shorter.
pub const CHUNK_BYTES: u64 = 1024 * 1024;
/// Largest image.
pub const MAX_IMAGE_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Largest manifest: the chunk hashes of the largest image and room for the rest.
pub const MAX_MANIFEST_BYTES: usize = 1024 * 1024;
/// Most hardware ids in a manifest.
pub const MAX_HARDWARE_IDS: usize = 64;
/// Most other components a manifest requires.
pub const MAX_COMPONENTS: usize = 16;
/// Most delta sources in a manifest.
pub const MAX_DELTAS: usize = 16;
/// Longest notes.
pub const MAX_NOTES_BYTES: usize = 16 * 1024;
/// How long a signature holds unless the signer says otherwise: 90 days.
pub const DEFAULT_VALIDITY_SECONDS: u64 = 90 * 24 * 60 * 60;

const WHAT: &str = "firmware manifest";

/// Firmware by name, each of a version.
pub type Components = BTreeMap<FirmwareName, FirmwareVersion>;

/// What is signed about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What the firmware is called.
    pub name: FirmwareName,
    /// Which version this is.
    pub version: FirmwareVersion,
    /// The hardware it runs on; at least one.
    pub hardware: BTreeSet<HardwareId>,
    /// The oldest version a device may come from (by [`FirmwareVersion::precedence`]).
    pub requires: Option<FirmwareVersion>,
    /// Other firmware the device must have beside it, each of this version or newer.
    pub components: Components,
    /// The image's size in bytes; at least 1.
    pub size: u64,
    /// The image's hash.
    pub sha256: Sha256,
    /// The hash of each [`CHUNK_BYTES`] of it.
    pub chunks: Vec<Sha256>,
    /// The security counter: a device never goes to an image with a lower one.
    pub counter: u64,
    /// From when on the manifest is no longer believed.
    pub expires: SystemTime,
    /// For people.
    pub notes: Option<String>,
    /// What makes the image out of earlier ones; the whole image is always there beside them.
    pub deltas: Vec<DeltaSource>,
}

/// A patch ([`crate::delta`]) that makes a manifest's image out of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaSource {
    /// The version it is applied to.
    pub from: FirmwareVersion,
    /// Hash of that version's image.
    pub from_sha256: Sha256,
    /// The patch's size in bytes: fewer than the image's.
    pub size: u64,
    /// The patch's hash.
    pub sha256: Sha256,
    /// The hash of each [`CHUNK_BYTES`] of the patch.
    pub chunks: Vec<Sha256>,
}

#[derive(Serialize, Deserialize)]
struct TargetsWire {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
    targets: BTreeMap<String, TargetWire>,
}

#[derive(Serialize, Deserialize)]
struct TargetWire {
    length: u64,
    hashes: HashesWire,
    custom: CustomWire,
}

#[derive(Serialize, Deserialize)]
struct HashesWire {
    sha256: Sha256,
}

/// Unknown fields are refused: a field that this release does not know could narrow where the image may
/// go, and must not be overlooked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CustomWire {
    name: FirmwareName,
    version: FirmwareVersion,
    hardware: BTreeSet<HardwareId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requires: Option<FirmwareVersion>,
    #[serde(default, skip_serializing_if = "Components::is_empty")]
    components: Components,
    counter: u64,
    chunk_size: u64,
    chunks: Vec<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deltas: Vec<DeltaSource>,
}

impl Manifest {
    /// Signs the manifest. Whether the keys are enough is for the trust root to say; [`crate::co_sign`]
    /// adds further signatures.
    ///
    /// # Errors
    /// [`Error::Malformed`] where a field is out of its bounds.
    pub fn sign(&self, keys: &[ReleaseKey]) -> Result<Vec<u8>, Error> {
        self.bounds()?;
        let custom = CustomWire {
            name: self.name.clone(),
            version: self.version.clone(),
            hardware: self.hardware.clone(),
            requires: self.requires.clone(),
            components: self.components.clone(),
            counter: self.counter,
            chunk_size: CHUNK_BYTES,
            chunks: self.chunks.clone(),
            notes: self.notes.clone(),
            deltas: self.deltas.clone(),
        };
        let target = TargetWire {
            length: self.size,
            hashes: HashesWire {
                sha256: self.sha256,
            },
            custom,
        };
        let wire = TargetsWire {
            kind: "targets".into(),
            spec_version: SPEC_VERSION.into(),
            version: 1,
            expires: write_time(self.expires)?,
            targets: BTreeMap::from([(self.target_name(), target)]),
        };
        let signed = serde_json::to_value(&wire).map_err(|error| Error::Canonical {
            why: error.to_string(),
        })?;
        let mut document = Document::new(signed);
        document.sign(keys)?;
        let bytes = document.to_bytes()?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(Error::TooLarge {
                what: WHAT,
                bytes: bytes.len() as u64,
                bound: MAX_MANIFEST_BYTES as u64,
            });
        }
        Ok(bytes)
    }

    /// Reads a manifest that `root`'s threshold of release keys signed and that, like the root, has not
    /// expired. There is no other way to one that is to be believed.
    ///
    /// # Errors
    /// [`Error::Unsigned`], [`Error::Short`], [`Error::KeyNotTrusted`], [`Error::Altered`],
    /// [`Error::Expired`], [`Error::Malformed`], [`Error::TooLarge`].
    pub fn verify(bytes: &[u8], root: &Root, now: SystemTime) -> Result<Self, Error> {
        root.fresh(now)?;
        let manifest = Self::verify_signatures(bytes, root)?;
        fresh(&manifest.what(), manifest.expires, now)?;
        Ok(manifest)
    }

    /// As [`Manifest::verify`], where the release team has delegated: what its own threshold signed is
    /// believed as before, and what a delegate's threshold signed where it was left to it. Says which
    /// delegate vouched.
    ///
    /// # Errors
    /// As [`Manifest::verify`], and [`Error::NotByDelegate`], [`Error::OutsideDelegation`].
    pub fn verify_under(
        bytes: &[u8],
        root: &Root,
        delegations: Option<&Targets>,
        now: SystemTime,
    ) -> Result<(Self, Option<RoleName>), Error> {
        let refused = match Self::verify(bytes, root, now) {
            Ok(manifest) => return Ok((manifest, None)),
            Err(error) => error,
        };
        let Some(delegations) = delegations.filter(|_| refused.is_of_strangers()) else {
            return Err(refused);
        };
        let document = Document::parse(WHAT, bytes, MAX_MANIFEST_BYTES)?;
        let vouched = delegations.vouch(&document, |found| Self::parse(found.clone()), now)?;
        let Some((manifest, role)) = vouched else {
            return Err(refused);
        };
        fresh(&manifest.what(), manifest.expires, now)?;
        Ok((manifest, Some(role)))
    }

    /// As [`Manifest::verify`] without looking at a clock, for what was verified when it came in.
    ///
    /// # Errors
    /// As [`Manifest::verify`], without [`Error::Expired`].
    pub fn verify_signatures(bytes: &[u8], root: &Root) -> Result<Self, Error> {
        let document = Document::parse(WHAT, bytes, MAX_MANIFEST_BYTES)?;
        // Signatures first: nothing else is said about a document nobody vouches for.
        document.check(&format!("the {WHAT}"), root.targets(), root.version())?;
        Self::parse(document)
    }

    /// What a manifest states, whoever signed it: of use only to who is to sign it, or knows its image's hash from having
    /// verified it before.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooLarge`].
    pub fn stated(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(Document::parse(WHAT, bytes, MAX_MANIFEST_BYTES)?)
    }

    fn parse(document: Document) -> Result<Self, Error> {
        let malformed = |why: String| Error::Malformed { what: WHAT, why };
        let wire: TargetsWire = serde_json::from_value(document.signed)
            .map_err(|error| malformed(error.to_string()))?;
        if wire.kind != "targets" {
            return Err(malformed("`_type` is not `targets`".into()));
        }
        if wire.spec_version.split('.').next() != Some("1") {
            return Err(malformed("`spec_version` is not 1.x".into()));
        }
        let count = wire.targets.len();
        let mut targets = wire.targets.into_iter();
        let (Some((target_name, target)), None) = (targets.next(), targets.next()) else {
            return Err(malformed(format!(
                "it describes {count} images; a package's describes one"
            )));
        };
        let custom = target.custom;
        if custom.chunk_size != CHUNK_BYTES {
            return Err(malformed(format!(
                "`chunk_size` is {}; it is {CHUNK_BYTES}",
                custom.chunk_size
            )));
        }
        let manifest = Self {
            name: custom.name,
            version: custom.version,
            hardware: custom.hardware,
            requires: custom.requires,
            components: custom.components,
            size: target.length,
            sha256: target.hashes.sha256,
            chunks: custom.chunks,
            counter: custom.counter,
            expires: read_time(WHAT, &wire.expires)?,
            notes: custom.notes,
            deltas: custom.deltas,
        };
        if manifest.target_name() != target_name {
            return Err(malformed(
                "the target's name is not `NAME-VERSION` of what it holds".into(),
            ));
        }
        manifest.bounds()?;
        Ok(manifest)
    }

    fn bounds(&self) -> Result<(), Error> {
        let malformed = |why: String| Error::Malformed { what: WHAT, why };
        if self.size == 0 || self.size > MAX_IMAGE_BYTES {
            return Err(malformed(format!(
                "the image has {} bytes; 1 to {MAX_IMAGE_BYTES} are possible",
                self.size
            )));
        }
        let chunks = self.size.div_ceil(CHUNK_BYTES);
        if self.chunks.len() as u64 != chunks {
            return Err(malformed(format!(
                "{} chunk hashes for an image of {chunks} chunks",
                self.chunks.len()
            )));
        }
        if self.hardware.is_empty() || self.hardware.len() > MAX_HARDWARE_IDS {
            return Err(malformed(format!(
                "{} hardware ids; 1 to {MAX_HARDWARE_IDS} are possible (`--hardware`)",
                self.hardware.len()
            )));
        }
        if self.components.len() > MAX_COMPONENTS {
            return Err(malformed(format!(
                "{} other components; at most {MAX_COMPONENTS} are possible",
                self.components.len()
            )));
        }
        if self.components.contains_key(&self.name) {
            return Err(malformed(format!(
                "`components` has {} itself; what its own version must be is `requires`",
                self.name
            )));
        }
        if self
            .notes
            .as_ref()
            .is_some_and(|notes| notes.len() > MAX_NOTES_BYTES)
        {
            return Err(malformed(format!(
                "`notes` has more than {MAX_NOTES_BYTES} bytes"
            )));
        }
        self.delta_bounds()
    }

    fn delta_bounds(&self) -> Result<(), Error> {
        let malformed = |why: String| Error::Malformed { what: WHAT, why };
        if self.deltas.len() > MAX_DELTAS {
            return Err(malformed(format!(
                "{} deltas; at most {MAX_DELTAS} are possible",
                self.deltas.len()
            )));
        }
        for (index, delta) in self.deltas.iter().enumerate() {
            let whose = format!("the delta from {}", delta.from);
            let others = || self.deltas.iter().take(index);
            if delta.from == self.version || others().any(|other| other.from == delta.from) {
                return Err(malformed(format!(
                    "{whose} is its own version's or stands there twice"
                )));
            }
            if delta.size == 0 || delta.size >= self.size {
                return Err(malformed(format!(
                    "{whose} has {} bytes; a delta has 1 or more, and fewer than the image's {}",
                    delta.size, self.size
                )));
            }
            let chunks = delta.size.div_ceil(CHUNK_BYTES);
            if delta.chunks.len() as u64 != chunks {
                return Err(malformed(format!(
                    "{} chunk hashes for {whose}, which has {chunks} chunks",
                    delta.chunks.len()
                )));
            }
        }
        Ok(())
    }

    /// The delta that is applied to the image with this hash.
    #[must_use]
    pub fn delta_from(&self, image: &Sha256) -> Option<&DeltaSource> {
        self.deltas.iter().find(|delta| delta.from_sha256 == *image)
    }

    /// Refuses what must not go on this device: other hardware, a lower security counter than the device
    /// has reached, a version the image cannot be installed over, other firmware that is missing or too old. What
    /// the device has is in `has`, each by its name.
    ///
    /// # Errors
    /// [`Error::NotForDevice`] with what was expected and what is.
    pub fn fits(
        &self,
        hardware: &HardwareId,
        reached_counter: u64,
        has: &Components,
    ) -> Result<(), Error> {
        let refuse = |why: String| {
            Err(Error::NotForDevice {
                firmware: self.title(),
                why,
            })
        };
        if !self.hardware.contains(hardware) {
            let made_for = self
                .hardware
                .iter()
                .map(HardwareId::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            return refuse(format!(
                "it is made for hardware {made_for}; this is {hardware}"
            ));
        }
        if self.counter < reached_counter {
            return refuse(format!(
                "its security counter {} is lower than {reached_counter}, which this device has reached",
                self.counter
            ));
        }
        let own = self.requires.iter().map(|requires| (&self.name, requires));
        for (name, requires) in own.chain(&self.components) {
            let of = if *name == self.name {
                "version"
            } else {
                name.as_str()
            };
            match has.get(name) {
                Some(has) if has.precedence(requires).is_ge() => {}
                Some(has) => {
                    return refuse(format!(
                        "it requires {of} {requires} or newer; this device has {has}"
                    ));
                }
                None => {
                    return refuse(format!(
                        "it requires {of} {requires} or newer; this device has none"
                    ));
                }
            }
        }
        Ok(())
    }

    /// `NAME VERSION`, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn what(&self) -> String {
        format!("the manifest of {}", self.title())
    }

    fn target_name(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

#[cfg(test)]
pub(crate) mod tests;
