//! Packages that come in parts: what has come stays when a connection breaks, and is gone on with. Nothing of
//! it counts before the whole is there, is what it was announced as, and was taken like any package.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::Ota;
use super::records::Firmware;
use crate::image::read_some;
use crate::manifest::{MAX_IMAGE_BYTES, MAX_MANIFEST_BYTES};
use crate::{Error, Hasher, Sha256};

/// Uploads that may be half done at once.
pub const MAX_UPLOADS: usize = 8;
/// How long one that nobody goes on with is kept.
pub const UPLOAD_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest package: the image, as much again for its deltas, the manifest and the archive's heads.
const MAX_PACKAGE_BYTES: u64 = 2 * MAX_IMAGE_BYTES + MAX_MANIFEST_BYTES as u64 + 64 * 1024;

/// The directory of uploads that are half done, and those that somebody is at.
pub(super) struct Uploads {
    directory: PathBuf,
    busy: Mutex<BTreeSet<Sha256>>,
}

fn io(source: io::Error) -> Error {
    Error::Io {
        what: "keeping an upload",
        source,
    }
}

impl Uploads {
    pub(super) fn at(directory: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&directory).map_err(io)?;
        Ok(Self {
            directory,
            busy: Mutex::default(),
        })
    }

    /// The upload, for one caller at a time.
    fn take(&self, package: Sha256) -> Result<Turn<'_>, Error> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(package) {
            return Err(Error::AlreadyExists {
                kind: "a request for upload",
                name: package.to_string(),
                hint: " and is not done; wait for it",
            });
        }
        Ok(Turn {
            uploads: self,
            package,
            path: self.directory.join(format!("{package}.part")),
        })
    }

    /// Removes what nobody goes on with; how many others there are than `package`.
    fn sweep(&self, package: Sha256, now: SystemTime) -> Result<usize, Error> {
        let mut others = 0;
        for entry in fs::read_dir(&self.directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let changed = entry.metadata().and_then(|facts| facts.modified());
            let age = now.duration_since(changed.map_err(io)?).unwrap_or_default();
            if age > UPLOAD_KEPT {
                fs::remove_file(entry.path()).map_err(io)?;
            } else if *entry.file_name() != *format!("{package}.part") {
                others += 1;
            }
        }
        Ok(others)
    }
}

/// An upload that somebody is at.
struct Turn<'u> {
    uploads: &'u Uploads,
    package: Sha256,
    path: PathBuf,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self
            .uploads
            .busy
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.package);
    }
}

fn length(path: &Path) -> Result<u64, Error> {
    match fs::metadata(path) {
        Ok(facts) => Ok(facts.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io(error)),
    }
}

impl Ota {
    /// How many bytes of the package with this hash have come.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn uploaded(&self, package: Sha256) -> Result<u64, Error> {
        length(&self.inner.uploads.directory.join(format!("{package}.part")))
    }

    /// Takes the next bytes of the package with this hash, of which `offset` have come; how many have come then.
    /// Of a part that breaks off nothing is kept; of one that was taken all is on the disk.
    ///
    /// # Errors
    /// [`Error::Invalid`] where another number of bytes has come or too much is half done,
    /// [`Error::AlreadyExists`] where another request is at it, [`Error::TooLarge`], the store's where the disk
    /// is nearly full, [`Error::Io`].
    pub fn upload(
        &self,
        package: Sha256,
        offset: u64,
        mut part: &mut dyn Read,
        now: SystemTime,
    ) -> Result<u64, Error> {
        let uploads = &self.inner.uploads;
        let turn = uploads.take(package)?;
        let here = length(&turn.path)?;
        if offset != here {
            return Err(Error::Invalid {
                field: "offset".into(),
                why: format!("{offset} is not where it goes on: {here} bytes have come"),
            });
        }
        if uploads.sweep(package, now)? >= MAX_UPLOADS {
            return Err(Error::Invalid {
                field: "upload".into(),
                why: format!("{MAX_UPLOADS} others are half done; finish one, or wait a day"),
            });
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&turn.path)
            .map_err(io)?;
        let took = self.append(&mut file, here, &mut part);
        if took.is_err() {
            file.set_len(here).map_err(io)?;
        }
        let size = took?;
        file.sync_all().map_err(io)?;
        if here == 0 {
            File::open(&uploads.directory)
                .and_then(|directory| directory.sync_all())
                .map_err(io)?;
        }
        Ok(size)
    }

    fn append(&self, file: &mut File, here: u64, part: &mut &mut dyn Read) -> Result<u64, Error> {
        let mut buffer = vec![0; 64 * 1024];
        let mut size = here;
        loop {
            let bytes = read_some(part, &mut buffer)?;
            if bytes.is_empty() {
                return Ok(size);
            }
            size += bytes.len() as u64;
            if size > MAX_PACKAGE_BYTES {
                return Err(Error::TooLarge {
                    what: "package",
                    bytes: size,
                    bound: MAX_PACKAGE_BYTES,
                });
            }
            // The image of it is written once more when it is taken.
            self.inner.blobs.room_for(bytes.len() as u64)?;
            file.write_all(bytes).map_err(io)?;
        }
    }

    /// Takes the package with this hash, all of which has come, as [`Ota::add`] does. Where that refuses it, or
    /// it is not what it was announced as, it goes away.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing of it has come, [`Error::Package`] where it is another one or not whole,
    /// those of [`Ota::add`].
    pub fn finish_upload(&self, package: Sha256, now: SystemTime) -> Result<Firmware, Error> {
        let turn = self.inner.uploads.take(package)?;
        if length(&turn.path)? == 0 {
            return Err(Error::NotFound {
                kind: "upload",
                name: package.to_string(),
            });
        }
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut file = File::open(&turn.path).map_err(io)?;
        loop {
            let bytes = read_some(&mut file, &mut buffer)?;
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
        }
        let hash = hasher.finish();
        let added = if hash == package {
            self.add(File::open(&turn.path).map_err(io)?, now)
        } else {
            Err(Error::Package {
                why: format!("its SHA-256 is {hash}, announced was {package}; send it again"),
            })
        };
        // Room and disk may be better the next time; then it need not come again.
        let may_be_tried_again = matches!(added, Err(Error::Io { .. } | Error::Store(_)));
        if !may_be_tried_again {
            fs::remove_file(&turn.path).map_err(io)?;
        }
        added
    }
}
