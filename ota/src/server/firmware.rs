//! The firmware repository: trust roots, packages that were verified before anything of them was kept,
//! and who may fetch what. The server holds no key that could sign an image.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store::{BlobWriter, files};

use super::records::{Delta, Execution, Firmware, JobRef, Kept, TrustRow, key};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::image::read_some;
use crate::manifest::{MAX_IMAGE_BYTES, MAX_MANIFEST_BYTES};
use crate::{
    Content, Error, FirmwareName, FirmwareVersion, ImageCheck, Manifest, ReleaseKey, Root, Sha256,
    package, sha256,
};

/// How long after its execution is over a thing may still fetch the image: a download that was under way
/// when the report crossed it is let to its end.
pub const FETCH_GRACE_SECONDS: u64 = 15 * 60;

/// Makes `online.key` (0600) and `online.pub` in `dir` where they are not there yet: the key of the roles
/// that only say what is newest.
pub(super) fn online_key(dir: &Path) -> Result<(), Error> {
    let private = dir.join("online.key");
    let io = |what| move |source| Error::Io { what, source };
    std::fs::create_dir_all(dir).map_err(io("making the firmware directory"))?;
    let key = match std::fs::read_to_string(&private) {
        Ok(pem) => ReleaseKey::from_pem(&pem).map_err(|error| Error::Malformed {
            what: "firmware/online.key",
            why: error.to_string(),
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = ReleaseKey::generate()?;
            files::write_private(&private, key.to_pem()?.as_bytes())?;
            key
        }
        Err(source) => {
            return Err(Error::Io {
                what: "reading firmware/online.key",
                source,
            });
        }
    };
    let public = key.public().to_pem()?;
    let path = dir.join("online.pub");
    if std::fs::read_to_string(&path).ok().as_deref() != Some(public.as_str()) {
        files::write_public(&path, public.as_bytes())?;
    }
    Ok(())
}

impl Ota {
    /// Takes a trust root: the first one is believed, each later one must be the successor of the one
    /// before; the same one again changes nothing.
    ///
    /// # Errors
    /// What [`Root::read`], [`Root::successor`] and [`Root::fresh`] say.
    pub fn trust(&self, bytes: &[u8], now: SystemTime) -> Result<Root, Error> {
        let _turn = self.turn();
        let next = match self.newest_root()? {
            None => Root::read(bytes)?,
            Some((known, root)) if known.as_bytes() == bytes => return Ok(root),
            Some((_, root)) => root.successor(bytes)?,
        };
        next.fresh(now)?;
        let json = String::from_utf8(bytes.to_vec()).map_err(|error| Error::Malformed {
            what: "trust root",
            why: error.to_string(),
        })?;
        let mut rows = Transaction::new(&self.inner.table);
        let key = key::root(next.version());
        rows.get::<TrustRow>(&key)?;
        rows.put(key, &TrustRow { json })?;
        rows.commit()?;
        Ok(next)
    }

    /// The newest trust root, as it was given, and what it says.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn newest_root(&self) -> Result<Option<(String, Root)>, Error> {
        let mut newest = None;
        let mut after: Option<String> = None;
        loop {
            let rows = self
                .inner
                .table
                .scan_as::<TrustRow>(key::ROOTS, after.as_deref(), 100)?;
            let Some((last, row)) = rows.into_iter().last() else {
                break;
            };
            newest = Some(row.value.json);
            after = Some(last);
        }
        newest
            .map(|json| Root::read(json.as_bytes()).map(|root| (json, root)))
            .transpose()
    }

    /// Trust root version `version` as it was given, for devices that walk from one to the next.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn root(&self, version: u64) -> Result<Option<String>, Error> {
        Ok(self
            .inner
            .table
            .get_as::<TrustRow>(&key::root(version))?
            .map(|row| row.value.json))
    }

    /// Takes a package as it streams in. Nothing of it is kept unless everything holds: the signatures of
    /// the trusted root's threshold (or of a delegate's, for what was left to it), its expiry, size, hash and chunk hashes, and that no other image goes
    /// by its name and version. The same image signed anew replaces the manifest.
    ///
    /// # Errors
    /// [`Error::NoTrust`], [`Error::AlreadyExists`], the store's where the disk has no room for it, and what
    /// [`Manifest::verify_under`], [`ImageCheck`] and [`package::read`] say.
    pub fn add(&self, package: impl Read, now: SystemTime) -> Result<Firmware, Error> {
        let (_, root) = self.newest_root()?.ok_or(Error::NoTrust)?;
        let delegations = self.delegations(&root)?.map(|(_, targets)| targets);
        let ((manifest, delegate), signed, kept) = package::read_with_deltas(
            package,
            |signed, size, image| {
                let (manifest, delegate) =
                    Manifest::verify_under(&signed, &root, delegations.as_ref(), now)?;
                self.same_or_new(&manifest)?;
                let image = self.keep(Content::image(&manifest), size, image)?;
                let deltas = manifest.deltas.len();
                Ok((((manifest, delegate), signed, vec![image]), deltas))
            },
            |((manifest, _), _, kept), number, size, delta| {
                // The package asks for as many as the manifest names.
                if let Some(source) = manifest.deltas.get(number) {
                    kept.push(self.keep(Content::delta(manifest, source), size, delta)?);
                }
                Ok(())
            },
        )?;
        let mut writer = self.inner.blobs.writer(MAX_MANIFEST_BYTES as u64)?;
        writer.write_all(&signed).map_err(|source| Error::Io {
            what: "keeping the manifest",
            source,
        })?;

        let _turn = self.turn();
        self.same_or_new(&manifest)?;
        for file in kept {
            file.commit()?;
        }
        writer.commit()?;
        for hash in manifest.deltas.iter().map(|delta| delta.sha256) {
            self.mended(&hash);
        }
        self.mended(&manifest.sha256);
        self.mended(&sha256(&signed));
        let deltas = manifest.deltas.iter().map(|delta| Delta {
            from: delta.from.clone(),
            size: delta.size,
            sha256: delta.sha256,
        });
        let firmware = Firmware {
            sha256: manifest.sha256,
            manifest_sha256: sha256(&signed),
            size: manifest.size,
            hardware: manifest.hardware.into_iter().collect(),
            requires: manifest.requires,
            components: manifest.components,
            counter: manifest.counter,
            expires: seconds(manifest.expires),
            notes: manifest.notes,
            added_at: seconds(now),
            delegate,
            deltas: deltas.collect(),
            name: manifest.name,
            version: manifest.version,
        };
        let mut rows = Transaction::new(&self.inner.table);
        let key = key::firmware(&firmware.name, &firmware.version);
        rows.get::<Firmware>(&key)?;
        rows.put(key, &firmware)?;
        rows.commit()?;
        Ok(firmware)
    }

    /// Writes what arrives down as it is checked; nothing of it is there before it is committed.
    fn keep(
        &self,
        content: Content<'_>,
        size: u64,
        mut from: &mut dyn Read,
    ) -> Result<BlobWriter, Error> {
        if size != content.size() {
            return Err(content.refuse(format!(
                "it has {size} bytes, signed were {}",
                content.size()
            )));
        }
        self.inner.blobs.room_for(size)?;
        let mut writer = self.inner.blobs.writer(MAX_IMAGE_BYTES)?;
        let mut check = ImageCheck::new(content);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let bytes = read_some(&mut from, &mut buffer)?;
            if bytes.is_empty() {
                break;
            }
            check.update(bytes)?;
            writer.write_all(bytes).map_err(|source| Error::Io {
                what: "keeping the image",
                source,
            })?;
        }
        check.finish()?;
        Ok(writer)
    }

    fn same_or_new(&self, manifest: &Manifest) -> Result<(), Error> {
        let known = self
            .inner
            .table
            .get_as::<Firmware>(&key::firmware(&manifest.name, &manifest.version))?;
        let same = |known: &Firmware| {
            known.sha256 == manifest.sha256
                && known.counter == manifest.counter
                && known.requires == manifest.requires
                && known.components == manifest.components
                && known.hardware.iter().eq(&manifest.hardware)
        };
        if known.is_none_or(|row| same(&row.value)) {
            return Ok(());
        }
        let hint = " with another content; give the new image a version of its own";
        Err(Error::AlreadyExists {
            kind: "firmware",
            name: manifest.title(),
            hint,
        })
    }

    /// The firmware of this name and version.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn firmware(
        &self,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> Result<Firmware, Error> {
        let row = self
            .inner
            .table
            .get_as::<Firmware>(&key::firmware(name, version))?;
        row.map(|row| row.value).ok_or_else(|| Error::NotFound {
            kind: "firmware",
            name: format!("{name} {version}"),
        })
    }

    /// Firmware in the order of names and versions, at most `limit`; the next page's `after` is the last
    /// one's `NAME/VERSION`.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn firmwares(&self, after: Option<&str>, limit: usize) -> Result<Vec<Firmware>, Error> {
        let after = after.map(|after| format!("{}{after}", key::FIRMWARE));
        let rows = self
            .inner
            .table
            .scan_as::<Firmware>(key::FIRMWARE, after.as_deref(), limit)?;
        Ok(rows.into_iter().map(|(_, row)| row.value).collect())
    }

    /// The signed manifest, byte for byte as it came.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn manifest(
        &self,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> Result<Vec<u8>, Error> {
        let firmware = self.firmware(name, version)?;
        let mut bytes = Vec::new();
        self.blob(&firmware, firmware.manifest_sha256)?
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Io {
                what: "reading the manifest",
                source,
            })?;
        Ok(bytes)
    }

    /// The image, to be sent from any byte on, and what is known of it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn open_image(
        &self,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> Result<(File, Firmware), Error> {
        let firmware = self.firmware(name, version)?;
        Ok((self.blob(&firmware, firmware.sha256)?, firmware))
    }

    /// The patch that makes this firmware's image out of version `from`'s, to be sent from any byte on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn open_delta(
        &self,
        name: &FirmwareName,
        version: &FirmwareVersion,
        from: &FirmwareVersion,
    ) -> Result<(File, Kept), Error> {
        let firmware = self.firmware(name, version)?;
        let delta = firmware.deltas.iter().find(|delta| delta.from == *from);
        let kept = delta.map(|delta| Kept {
            size: delta.size,
            sha256: delta.sha256,
        });
        let kept = kept.ok_or_else(|| Error::NotFound {
            kind: "the delta to firmware",
            name: format!("{name} {version} from {from}"),
        })?;
        Ok((self.blob(&firmware, kept.sha256)?, kept))
    }

    fn blob(&self, firmware: &Firmware, hash: Sha256) -> Result<File, Error> {
        self.whole(firmware, &hash)?;
        self.inner
            .blobs
            .open(&hash.to_string())?
            .ok_or_else(|| Error::NotFound {
                kind: "the kept file of firmware",
                name: format!("{} {}", firmware.name, firmware.version),
            })
    }

    /// Whether `thing` may fetch this firmware: only while it has a job for it, and
    /// [`FETCH_GRACE_SECONDS`] beyond.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn may_fetch(
        &self,
        thing: &str,
        name: &FirmwareName,
        version: &FirmwareVersion,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let Some(row) = self
            .inner
            .table
            .get_as::<JobRef>(&key::fetch(thing, name, version))?
        else {
            return self.was_handed(thing, name, version, now);
        };
        let execution = self
            .inner
            .table
            .get_as::<Execution>(&key::execution(&row.value.job, thing))?;
        let may = execution.is_some_and(|row| {
            let execution = row.value;
            let grace = execution
                .last_updated_at
                .saturating_add(FETCH_GRACE_SECONDS);
            let under_way = execution.started_at.is_some() && seconds(now) <= grace;
            !execution.status.is_terminal() || under_way
        });
        Ok(may || self.was_handed(thing, name, version, now)?)
    }

    /// Refuses firmware that devices would refuse as well by now.
    pub(super) fn still_good(
        &self,
        name: &FirmwareName,
        version: &FirmwareVersion,
        now: u64,
    ) -> Result<Firmware, Error> {
        let firmware = self.firmware(name, version)?;
        self.whole(&firmware, &firmware.sha256)?;
        let (_, root) = self.newest_root()?.ok_or(Error::NoTrust)?;
        let now = UNIX_EPOCH + Duration::from_secs(now);
        let delegations = self.delegations(&root)?.map(|(_, targets)| targets);
        let manifest = self.manifest(name, version)?;
        Manifest::verify_under(&manifest, &root, delegations.as_ref(), now)?;
        Ok(firmware)
    }
}
