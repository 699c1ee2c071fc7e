//! Where an identity comes to be: one file that says how far the device has come, and at the end the identity itself.
//!
//! `NAME.crt` is written last, and is what an agent takes a directory for an identity by. So there is nothing of one,
//! or all of it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::EnrolError;
use crate::files::{self, Files};
use crate::identity::{in_pem, names_with};

/// The file that says how far it has come. It holds the device's key.
const FILE: &str = "enrolling.json";
/// The largest such file that is read.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// How it is written.
const FORMAT: u32 = 1;

/// How far a device has come.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// The key, made here, in PEM.
    key: String,
    given: Option<Given>,
}

/// A certificate for the key.
#[derive(Serialize, Deserialize)]
struct Given {
    /// The certificate and what stands above it, in PEM.
    chain: String,
    standing: Standing,
}

#[derive(Serialize, Deserialize)]
enum Standing {
    /// Not the device's before the server was shown this token.
    Token(String),
    /// This thing's, whose server is known by these roots (PEM).
    Thing {
        name: String,
        roots: String,
        /// What the template tells the device.
        configuration: Option<serde_json::Value>,
    },
}

/// A directory without an identity, held by this process alone.
pub(super) struct Place<'a> {
    files: &'a dyn Files,
    dir: PathBuf,
    kept: Option<Kept>,
    /// Held as long as it is open.
    _lock: File,
}

/// What a directory was found to be.
pub(super) enum Taken<'a> {
    /// An enrolment that was cut short at the very end, and is ended now: the thing's name.
    Whole(String),
    /// Without an identity.
    Open(Place<'a>),
}

/// A certificate that waits for its registration.
pub(super) struct Waiting {
    pub(super) key: String,
    pub(super) chain: String,
    pub(super) token: String,
}

impl<'a> Place<'a> {
    /// Takes a directory, made where there is none.
    pub(super) fn take(dir: &Path, files: &'a dyn Files) -> Result<Taken<'a>, EnrolError> {
        let fault = |path: &Path| {
            let path = path.to_owned();
            move |why| EnrolError::File { path, why }
        };
        make(dir, files).map_err(fault(dir))?;
        let lock = File::open(dir).map_err(fault(dir))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(EnrolError::Busy {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(why)) => return Err(fault(dir)(why)),
        }
        let mut place = Self {
            files,
            dir: dir.to_owned(),
            kept: read(&dir.join(FILE)).map_err(fault(&dir.join(FILE)))?,
            _lock: lock,
        };
        let certificates = names_with(dir, ".crt").map_err(fault(dir))?;
        match (place.thing(), certificates.first()) {
            // All of it is there then.
            (Some(thing), Some(name)) if thing == *name => {
                place.forget()?;
                Ok(Taken::Whole(thing))
            }
            (_, Some(name)) => Err(EnrolError::Enrolled {
                dir: dir.to_owned(),
                name: name.clone(),
            }),
            (Some(_), None) => {
                tracing::info!("an enrolment that was cut short is ended");
                place.finish().map(Taken::Whole)
            }
            (None, None) => match names_with(dir, ".key").map_err(fault(dir))?.pop() {
                Some(name) => Err(EnrolError::LoneKey {
                    dir: dir.to_owned(),
                    name,
                }),
                None => Ok(Taken::Open(place)),
            },
        }
    }

    /// Whose identity lies here whole, if it does.
    fn thing(&self) -> Option<String> {
        match &self.kept.as_ref()?.given.as_ref()?.standing {
            Standing::Thing { name, .. } => Some(name.clone()),
            Standing::Token(_) => None,
        }
    }

    /// The key that a certificate is asked for with: on disk before anybody hears of it. One that no certificate has
    /// come for is taken again.
    pub(super) fn key(&mut self) -> Result<KeyPair, EnrolError> {
        let unusable = |error: rcgen::Error| EnrolError::Key(error.to_string());
        if let Some(kept) = &self.kept
            && let Ok(key) = KeyPair::from_pem(&kept.key)
        {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(unusable)?;
        self.keep(key.serialize_pem(), None)?;
        Ok(key)
    }

    /// A certificate has come, which is the device's once the server has taken the token.
    pub(super) fn given(
        &mut self,
        chain: &[CertificateDer<'static>],
        token: &str,
    ) -> Result<(), EnrolError> {
        let key = self.present_key();
        let standing = Standing::Token(token.to_owned());
        let chain = in_pem(chain);
        self.keep(key, Some(Given { chain, standing }))
    }

    /// What came before and waits for its registration.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let kept = self.kept.as_ref()?;
        let Given { chain, standing } = kept.given.as_ref()?;
        match standing {
            Standing::Token(token) => Some(Waiting {
                key: kept.key.clone(),
                chain: chain.clone(),
                token: token.clone(),
            }),
            Standing::Thing { .. } => None,
        }
    }

    /// The certificate that waited is a thing's now.
    pub(super) fn registered(
        &mut self,
        thing: &str,
        roots: &[CertificateDer<'static>],
        configuration: Option<serde_json::Value>,
    ) -> Result<(), EnrolError> {
        let Some(waiting) = self.waiting() else {
            return Err(EnrolError::Refused(
                "there is no certificate to be registered: say it again".into(),
            ));
        };
        self.belongs(waiting.key, waiting.chain, thing, roots, configuration)
    }

    /// A certificate has come that is a thing's, for the key of [`Self::key`] or, where one is given, for that.
    pub(super) fn enrolled(
        &mut self,
        key: Option<&KeyPair>,
        chain: &[CertificateDer<'static>],
        thing: &str,
        roots: &[CertificateDer<'static>],
    ) -> Result<(), EnrolError> {
        let key = key.map_or_else(|| self.present_key(), KeyPair::serialize_pem);
        self.belongs(key, in_pem(chain), thing, roots, None)
    }

    fn belongs(
        &mut self,
        key: String,
        chain: String,
        thing: &str,
        roots: &[CertificateDer<'static>],
        configuration: Option<serde_json::Value>,
    ) -> Result<(), EnrolError> {
        let standing = Standing::Thing {
            name: thing.to_owned(),
            roots: in_pem(roots),
            configuration,
        };
        self.keep(key, Some(Given { chain, standing }))
    }

    fn present_key(&self) -> String {
        self.kept
            .as_ref()
            .map(|kept| kept.key.clone())
            .unwrap_or_default()
    }

    fn keep(&mut self, key: String, given: Option<Given>) -> Result<(), EnrolError> {
        let kept = Kept {
            format: FORMAT,
            key,
            given,
        };
        let path = self.dir.join(FILE);
        let fault = |why| EnrolError::File {
            path: path.clone(),
            why,
        };
        let bytes = serde_json::to_vec(&kept).map_err(|error| fault(io::Error::other(error)))?;
        files::replace(self.files, &path, &bytes).map_err(fault)?;
        self.kept = Some(kept);
        Ok(())
    }

    /// What came so far is of no use: key and certificate are forgotten.
    pub(super) fn forget(&mut self) -> Result<(), EnrolError> {
        let path = self.dir.join(FILE);
        let fault = |why| EnrolError::File {
            path: path.clone(),
            why,
        };
        self.files.remove(&path).map_err(fault)?;
        self.files.sync_dir(&self.dir).map_err(fault)?;
        self.kept = None;
        Ok(())
    }

    /// Writes the identity out of what was kept, its certificate last; returns the thing's name.
    pub(super) fn finish(&mut self) -> Result<String, EnrolError> {
        let whole = self.kept.as_ref().and_then(|kept| {
            let Given { chain, standing } = kept.given.as_ref()?;
            match standing {
                Standing::Thing {
                    name,
                    roots,
                    configuration,
                } => Some((name, &kept.key, chain, roots, configuration)),
                Standing::Token(_) => None,
            }
        });
        let Some((name, key, chain, roots, configuration)) = whole else {
            return Err(EnrolError::Refused(
                "no certificate has come: say it again".into(),
            ));
        };
        let put = |file: &str, text: &str| {
            let path = self.dir.join(file);
            files::replace(self.files, &path, text.as_bytes())
                .map_err(|why| EnrolError::File { path, why })
        };
        put("root.crt", roots)?;
        if let Some(configuration) = configuration {
            put("configuration.json", &format!("{configuration:#}\n"))?;
        }
        let stem = stem(name);
        put(&format!("{stem}.key"), key)?;
        put(&format!("{stem}.crt"), chain)?;
        let name = name.clone();
        self.forget()?;
        Ok(name)
    }
}

/// What the files of a thing are called: as the thing, but where that is what the roots' file is called.
pub(super) fn stem(thing: &str) -> String {
    if thing.eq_ignore_ascii_case("root") {
        format!("thing-{thing}")
    } else {
        thing.to_owned()
    }
}

/// Makes a directory whose name stays, and those above it.
fn make(dir: &Path, files: &dyn Files) -> io::Result<()> {
    let above = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        other => other.map(Path::to_owned),
    };
    let mut at = dir.to_owned();
    let mut fresh = Vec::new();
    while !at.exists() {
        let Some(parent) = above(&at) else { break };
        fresh.push(parent.clone());
        at = parent;
    }
    files.create_dir(dir)?;
    if fresh.is_empty()
        && let Some(parent) = above(dir)
    {
        // Whoever made it may have been killed before its name was durable. Where the directory above is not this
        // user's to open, somebody else has made it.
        let _ = files.sync_dir(&parent);
    }
    fresh.iter().try_for_each(|parent| files.sync_dir(parent))
}

/// Reads how far it had come; what cannot be read is begun anew, as nothing depends on it.
fn read(path: &Path) -> io::Result<Option<Kept>> {
    let size = match std::fs::metadata(path) {
        Ok(facts) => facts.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept = (size <= FILE_BYTES_MAX)
        .then(|| std::fs::read(path))
        .transpose()?
        .and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok())
        .filter(|kept| kept.format == FORMAT);
    if kept.is_none() {
        tracing::warn!(
            "{} cannot be understood; the enrolment begins anew",
            path.display()
        );
    }
    Ok(kept)
}
