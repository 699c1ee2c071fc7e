//! Roots: the one that signs issuing certificates now, and those before it.
//!
//! The first lies in the authority's own directory, each that followed in a directory of its own
//! beside it, `root-2`, `root-3`, …, with its cross-certificates. `root.crt` is what devices trust:
//! every root that is not retired, oldest first.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::cross;
use super::founding::{ROOT, ROOT_CERTIFICATE, ROOT_KEY};
use super::issuer::{CertificateFile, is_self_signed};
use super::root_key;
use super::root_list::RootList;
use crate::custody::{Keyring, find};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::CertificateFacts;
use crate::pem;
use crate::public_key::PublicKey;

/// The first root alone, once there are others.
const FIRST_ROOT: &str = "root-1.crt";
const LATER: &str = "root-";
const STAGING: &str = ".root-";
const RETIRED: &str = "retired";
const RETIRED_TEXT: &str = "This root is not trusted any more, on purpose.\n";
/// The successor, signed by the former root's key.
pub(super) const BY_FORMER: &str = "by-former.crt";
/// The former root, signed by the successor's key.
pub(super) const OF_FORMER: &str = "of-former.crt";

/// Which of an authority's roots: 1 is the one it was founded with, each that follows has the next
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootNumber(u32);

impl RootNumber {
    /// The one an authority was founded with.
    pub const FIRST: Self = Self(1);

    /// The number `number`; `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(number)),
        }
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for RootNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A root certificate, what ties it to the one before, and where its key is.
#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) number: RootNumber,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) facts: CertificateFacts,
    pub(crate) public: PublicKey,
    /// Signed by the former root's key, so that who trusts that one trusts this.
    pub(crate) by_former: Option<CertificateDer<'static>>,
    /// The former root signed by this one's key, for who has this one alone.
    pub(crate) of_former: Option<CertificateDer<'static>>,
    pub(crate) retired: bool,
    /// Which of the certificates that it signed are withdrawn.
    pub(crate) list: Option<Arc<RootList>>,
    /// The directory where its key is, or where it says that it is elsewhere.
    pub(super) place: PathBuf,
}

impl Root {
    /// Of a certificate alone.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for what is no root.
    pub(crate) fn new(
        number: RootNumber,
        der: CertificateDer<'static>,
        place: &Path,
    ) -> Result<Self, CaError> {
        let refused = |reason: &str| CaError::invalid("root certificate", "(as given)", reason);
        let facts = CertificateFacts::read(&der)?;
        let usages = facts.key_usages;
        if !(facts.is_ca && usages.key_cert_sign && usages.crl_sign) {
            return Err(refused(
                "it is not an authority's (CA:TRUE, keyCertSign and cRLSign)",
            ));
        }
        if !is_self_signed(&der)? {
            return Err(refused("it is not signed by its own key"));
        }
        let public =
            PublicKey::of_certificate(&der).map_err(|error| refused(&error.to_string()))?;
        Ok(Self {
            number,
            der,
            facts,
            public,
            by_former: None,
            of_former: None,
            retired: false,
            list: None,
            place: place.to_owned(),
        })
    }

    /// Whether it may be followed at this time.
    pub(crate) fn is_live(&self, now: SystemTime) -> bool {
        !self.retired && now <= self.facts.not_after
    }
}

/// Every root in an authority's directory, oldest first, held against their keys and each other.
/// What a crash left unfinished is removed or made good.
pub(super) fn open(dir: &Path, keyring: &Keyring) -> Result<Vec<Arc<Root>>, CaError> {
    let mut later = Vec::new();
    for entry in fs::read_dir(dir).map_err(durable::failed("read the directory", dir))? {
        let entry = entry.map_err(durable::failed("read the directory", dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with(STAGING) {
            keyring.sweep(&path, &[ROOT], Path::new(""))?;
        } else if let Some(number) = name
            .strip_prefix(LATER)
            .and_then(|number| number.parse().ok())
            .and_then(RootNumber::new)
        {
            later.push((number, path));
        }
    }
    later.sort();
    let alone = dir.join(FIRST_ROOT);
    let first = match durable::read(&alone)? {
        Some(_) => alone,
        None => dir.join(ROOT_CERTIFICATE),
    };
    let first = read(
        RootNumber::FIRST,
        &CertificateFile::read(first)?,
        dir,
        keyring,
    )?;
    let mut roots = vec![Arc::new(first)];
    for (number, place) in later {
        let file = CertificateFile::read(place.join(ROOT_CERTIFICATE))?;
        let mut root = read(number, &file, &place, keyring)?;
        if let Some(former) = roots.last() {
            let by_former = CertificateFile::read(place.join(BY_FORMER))?;
            let fits = |error: CaError| by_former.damaged(format!("cannot be used ({error})"));
            cross::check(by_former.der()?, &root, former).map_err(fits)?;
            root.by_former = Some(by_former.der()?.clone());
            if durable::read(&place.join(OF_FORMER))?.is_some() {
                let of_former = CertificateFile::read(place.join(OF_FORMER))?;
                let fits = |error: CaError| of_former.damaged(format!("cannot be used ({error})"));
                cross::check(of_former.der()?, former, &root).map_err(fits)?;
                root.of_former = Some(of_former.der()?.clone());
            }
        }
        roots.push(Arc::new(root));
    }
    for root in &mut roots {
        if durable::read(&retired_mark(dir, root.number))?.is_some() {
            Arc::make_mut(root).retired = true;
            root_key::remove(&root.place.join(ROOT_KEY))?;
            if let Some(file) = find(&root.place, ROOT)? {
                // Where its token is away, at a later start.
                let _ = keyring.forget(&file);
            }
        }
    }
    write_trusted(dir, &roots)?;
    Ok(roots)
}

fn read(
    number: RootNumber,
    file: &CertificateFile,
    place: &Path,
    keyring: &Keyring,
) -> Result<Root, CaError> {
    let mut root = Root::new(number, file.der()?.clone(), place)
        .map_err(|error| file.damaged(format!("cannot be used ({error})")))?;
    if durable::read(&retired_mark(&authority_of(&root), number))?.is_none()
        && !root_key::settle(place)?
    {
        let key = keyring.open(place, ROOT)?;
        file.require_key(&place.join(ROOT_KEY), key.as_ref())?;
    }
    root.list = RootList::open(&root)?;
    Ok(root)
}

/// The authority's directory.
fn authority_of(root: &Root) -> PathBuf {
    match root.number {
        RootNumber::FIRST => root.place.clone(),
        _ => durable::parent(&root.place),
    }
}

fn retired_mark(dir: &Path, number: RootNumber) -> PathBuf {
    dir.join(format!("{LATER}{number}.{RETIRED}"))
}

/// Says for good that a root is retired.
pub(super) fn mark_retired(dir: &Path, number: RootNumber) -> Result<(), CaError> {
    let mark = retired_mark(dir, number);
    durable::write(&mark, RETIRED_TEXT.as_bytes(), Readers::Everyone)
}

/// The directory of a root that follows.
pub(super) fn place_of(dir: &Path, number: RootNumber) -> PathBuf {
    dir.join(format!("{LATER}{number}"))
}

/// A directory beside the others for one that is not whole yet; swept at the next start.
pub(super) fn staging(dir: &Path) -> Result<tempfile::TempDir, CaError> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new()
        .prefix(STAGING)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(dir)
        .map_err(durable::failed("create a directory in", dir))
}

/// The roots that are trusted, as PEM, oldest first.
pub(super) fn trusted_pem(roots: &[Arc<Root>]) -> String {
    let trusted = roots.iter().filter(|root| !root.retired);
    trusted.map(|root| pem::certificate(&root.der)).collect()
}

/// Keeps the first root apart before others stand beside it.
pub(super) fn keep_first(dir: &Path, first: &Root) -> Result<(), CaError> {
    let text = pem::certificate(&first.der);
    durable::write(&dir.join(FIRST_ROOT), text.as_bytes(), Readers::Everyone)
}

/// Brings `root.crt`, which devices are given, to what is trusted.
pub(super) fn write_trusted(dir: &Path, roots: &[Arc<Root>]) -> Result<(), CaError> {
    let path = dir.join(ROOT_CERTIFICATE);
    if roots.len() < 2 {
        return Ok(());
    }
    let wanted = trusted_pem(roots);
    match durable::read(&path)? {
        Some((found, _)) if found[..] == *wanted.as_bytes() => Ok(()),
        _ => durable::write(&path, wanted.as_bytes(), Readers::Everyone),
    }
}
