//! Founding an authority once, and opening it ever after.
//!
//! A new authority is made in a directory beside its place and renamed into it when all of it is
//! on disk: a crash leaves no authority or a whole one, and the next start sweeps away what a
//! crash left beside it.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DistinguishedName, DnType, IsCa,
    KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

use super::constraints::Permitted;
use super::issuer::{CertificateFile, Issuer, IssuerNumber, check_chain, check_fresh, read_chain};
use super::plan::{IssuingPlan, Made, Plan, RootPlan};
use super::root::{self, Root, RootNumber};
use super::root_list::{self, RootList};
use super::{BACKDATED, State, root_key, rotation};
use crate::custody::{Custody, FileKey, Keyring, Signer};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::CertificateFacts;
use crate::identifier::Serial;
use crate::public_key::PublicKey;
use crate::secret_key::SecretKey;
use crate::{pem, profile, times};

pub(super) const ROOT_CERTIFICATE: &str = "root.crt";
pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const ISSUING_CERTIFICATE: &str = "issuing.crt";
pub(super) const ISSUING_KEY: &str = "issuing.key";
/// Keys by name; what keeps them settles the ending.
pub(super) const ROOT: &str = "root";
pub(super) const ISSUING: &str = "issuing";
const FILES: [&str; 4] = [ROOT_CERTIFICATE, ROOT_KEY, ISSUING_CERTIFICATE, ISSUING_KEY];

/// Whether an authority may be founded in `dir`: it is missing or empty.
pub(super) fn is_vacant(dir: &Path) -> Result<bool, CaError> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(true),
        Err(other) => return Err(durable::failed("read the directory", dir)(other)),
    };
    let Some(first) = entries.next() else {
        return Ok(true);
    };
    let first = first.map_err(durable::failed("read the directory", dir))?;
    let of_tokens = [ROOT, ISSUING].map(|key| format!("{key}.pkcs11"));
    let mut files = FILES
        .into_iter()
        .chain(of_tokens.iter().map(String::as_str));
    if files.any(|file| dir.join(file).exists()) {
        return Ok(false);
    }
    Err(CaError::Occupied {
        path: dir.to_owned(),
        found: first.file_name().to_string_lossy().into_owned(),
    })
}

/// Makes what is planned, and puts it into `dir` in one step.
pub(super) fn found(
    dir: &Path,
    plan: Plan,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<(), CaError> {
    match put(stage(dir, plan, keyring, now)?, dir)? {
        Some(unflushed) => Err(unflushed),
        None => Ok(()),
    }
}

/// What was made, beside its place.
pub(super) struct Staged {
    dir: TempDir,
    /// The root's key, where it does not stay.
    pub(super) root_key: Option<FileKey>,
    /// Held while it is beside its place: whoever founds another would take this for what a crash left.
    _alone: Option<File>,
}

impl Staged {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Makes what is planned beside `dir`, whole and durable.
pub(super) fn stage(
    dir: &Path,
    plan: Plan,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Staged, CaError> {
    let beside = durable::parent(dir);
    durable::create_dir(&beside)?;
    let prefix = staging_prefix(dir)?;
    let alone = alone(&beside)?;
    sweep(&beside, &prefix, keyring)?;
    let staging = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&beside)
        .map_err(durable::failed("create a directory in", &beside))?;
    let root_key = fill(staging.path(), plan, keyring, now).map_err(|failed| {
        let names = [ROOT, ISSUING];
        keyring.abandon(staging.path(), &names, Path::new(""), failed)
    })?;
    durable::sync_dir(staging.path())?;
    Ok(Staged {
        dir: staging,
        root_key,
        _alone: alone,
    })
}

/// Locks a directory until the file is closed; where its file system knows no locks there is none.
fn alone(beside: &Path) -> Result<Option<File>, CaError> {
    let file = File::open(beside).map_err(durable::failed("open", beside))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(CaError::Founding {
            path: beside.to_owned(),
        }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Puts what was made into its place. What is there then is not taken back: where only the flush of its name failed, that
/// is the answer.
pub(super) fn put(staged: Staged, dir: &Path) -> Result<Option<CaError>, CaError> {
    put_and(staged, dir, durable::sync_dir)
}

fn put_and(
    staged: Staged,
    dir: &Path,
    flush: impl FnOnce(&Path) -> Result<(), CaError>,
) -> Result<Option<CaError>, CaError> {
    // Atomic; an empty directory in its place is replaced, anything else refuses it.
    fs::rename(staged.path(), dir).map_err(durable::failed("put the new authority into", dir))?;
    let _ = staged.dir.keep();
    Ok(flush(&durable::parent(dir)).err())
}

/// Removes what was made, with its keys. What cannot be removed now is swept when an authority is founded.
pub(super) fn withdraw(staged: Staged, keyring: &Keyring) {
    let dir = staged.dir.keep();
    let _ = keyring.sweep(&dir, &[ROOT, ISSUING], Path::new(""));
}

fn staging_prefix(dir: &Path) -> Result<String, CaError> {
    let name = dir.file_name().ok_or_else(|| {
        let reason = "the authority's directory has a name of its own";
        CaError::invalid("directory", &dir.to_string_lossy(), reason)
    })?;
    Ok(format!(".{}-founding-", name.to_string_lossy()))
}

/// Removes what foundings that were cut short left behind: keys that signed nothing in use.
fn sweep(beside: &Path, prefix: &str, keyring: &Keyring) -> Result<(), CaError> {
    let entries = fs::read_dir(beside).map_err(durable::failed("read the directory", beside))?;
    for entry in entries {
        let entry = entry.map_err(durable::failed("read the directory", beside))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            keyring.sweep(&entry.path(), &[ROOT, ISSUING], Path::new(""))?;
        }
    }
    Ok(())
}

/// The root's key, where it does not stay.
fn fill(
    dir: &Path,
    plan: Plan,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Option<FileKey>, CaError> {
    let leaves = plan.root_leaves;
    let list_url = plan.public_url.as_deref();
    let list_url = list_url.map(|url| root_list::url(url, RootNumber::FIRST));
    // One of the two.
    let (mut kept, mut leaving) = (None, None);
    let root = match plan.root {
        RootPlan::Made(made) if leaves => {
            let key = leaving.insert(FileKey::from(SecretKey::generate(made.key)?));
            make_root(&made, key, now)?
        }
        RootPlan::Made(made) => {
            let key = kept.insert(keyring.make(dir, ROOT, made.key)?);
            make_root(&made, key.as_ref(), now)?
        }
        RootPlan::Existing { certificate, key } => {
            let root = read_root(&certificate, key.as_ref())?;
            match key {
                Some(key) if leaves => leaving = Some(FileKey::from(key)),
                Some(key) => kept = Some(keyring.keep(key, dir, ROOT)?),
                None => {}
            }
            root
        }
    };
    if kept.is_none() {
        root_key::mark_offline(dir)?;
    }
    let root_key = match (&kept, &leaving) {
        (Some(key), _) => Some(key.as_ref()),
        (None, Some(key)) => Some(key as &dyn Custody),
        (None, None) => None,
    };
    let roots = [Arc::new(Root::new(RootNumber::FIRST, root.clone(), dir)?)];
    let (chain, key) = match plan.issuing {
        IssuingPlan::Made {
            certificate,
            permitted_dns,
            permitted_ip,
        } => {
            let permitted = Permitted::new(&permitted_dns, &permitted_ip)?;
            let Some(root_key) = root_key else {
                let reason = "the root's key is not here to sign it: bring the key, or the issuing certificate with its own";
                return Err(CaError::invalid(
                    "issuing certificate",
                    "(to be made)",
                    reason,
                ));
            };
            let key = keyring.make(dir, ISSUING, certificate.key)?;
            let signer = (&root, root_key);
            let signed = sign_issuing(
                signer,
                &certificate,
                &permitted,
                list_url.as_deref(),
                key.public_key(),
                now,
            )?;
            (vec![signed], key)
        }
        IssuingPlan::Existing { chain, key } => {
            let chain = read_chain(chain.as_bytes())?;
            (chain, keyring.keep(key, dir, ISSUING)?)
        }
    };
    let issuer = Issuer::new(IssuerNumber::FIRST, chain, &roots, key)?;
    check_fresh(&issuer, &[], &roots, now)?;
    let write =
        |file, text: &str| durable::write(&dir.join(file), text.as_bytes(), Readers::Everyone);
    write(ROOT_CERTIFICATE, &pem::certificate(&root))?;
    write(ISSUING_CERTIFICATE, &issuer.chain_pem())?;
    if let (Some(key), [root]) = (root_key, &roots) {
        RootList::next(root, key, None, now)?.write(dir)?;
    }
    Ok(leaving)
}

pub(super) fn make_root(
    made: &Made,
    key: &dyn Custody,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    profile::check_common_name("common name of the root", &made.common_name)?;
    let not_before = times::seconds(now)?.saturating_sub_unsigned(BACKDATED.as_secs());
    let not_after = not_before.saturating_add_unsigned(made.validity.as_secs());
    let constraints = BasicConstraints::Unconstrained;
    let params = authority_params(&made.common_name, constraints, not_before, not_after)?;
    let signer = Signer::new(key);
    match params.self_signed(&signer) {
        Ok(root) => Ok(root.der().clone()),
        Err(error) => Err(signer.explain(error)),
    }
}

/// A root that is there already, held against the key that came with it.
pub(super) fn read_root(
    text: &str,
    key: Option<&SecretKey>,
) -> Result<CertificateDer<'static>, CaError> {
    let refused = |reason: &str| CaError::invalid("root certificate", "(as given)", reason);
    let [root] = &read_chain(text.as_bytes())?[..] else {
        return Err(refused("it is one certificate"));
    };
    let public = Root::new(RootNumber::FIRST, root.clone(), Path::new(""))?.public;
    if key.is_some_and(|key| *key.public() != public) {
        return Err(refused("its key is another than the private key beside it"));
    }
    Ok(root.clone())
}

/// Signs an issuing certificate with the root's key. It may sign leaves only, and ends with the
/// root at the latest. `list_url` is where it says that the root's list is found.
pub(super) fn sign_issuing(
    (root, root_key): (&CertificateDer<'static>, &dyn Custody),
    made: &Made,
    permitted: &Permitted,
    list_url: Option<&str>,
    key: &PublicKey,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    profile::check_common_name("common name of the issuing certificate", &made.common_name)?;
    let root_facts = CertificateFacts::read(root)?;
    let begin = times::seconds(now)?.saturating_sub_unsigned(BACKDATED.as_secs());
    let not_before = begin.max(times::seconds(root_facts.not_before)?);
    let not_after = begin
        .saturating_add_unsigned(made.validity.as_secs())
        .min(times::seconds(root_facts.not_after)?);
    if not_before >= not_after || !root_facts.is_valid_at(now) {
        return Err(CaError::OutsideIssuer {
            now: times::readable(now),
            not_before: times::readable(root_facts.not_before),
            not_after: times::readable(root_facts.not_after),
        });
    }
    let constraints = BasicConstraints::Constrained(0);
    let mut params = authority_params(&made.common_name, constraints, not_before, not_after)?;
    params.use_authority_key_identifier_extension = true;
    params.name_constraints = permitted.encoded();
    params.crl_distribution_points = list_url
        .map(|url| CrlDistributionPoint {
            uris: vec![url.to_owned()],
        })
        .into_iter()
        .collect();
    let signer = Signer::new(root_key);
    let signed = rcgen::Issuer::from_ca_cert_der(root, &signer)
        .and_then(|issuer| params.signed_by(key, &issuer));
    let issuing = signed.map_err(|error| signer.explain(error))?.der().clone();
    // The second look, by the reader that certificates of others pass too.
    let slip = |what: String| CaError::Lint {
        rule: format!("the issuing certificate does not read back as it was meant: {what}"),
    };
    check_chain(std::slice::from_ref(&issuing), root).map_err(|error| slip(error.to_string()))?;
    if Permitted::read(&issuing)? != *permitted {
        return Err(slip("its name constraints are others".to_owned()));
    }
    Ok(issuing)
}

fn authority_params(
    common_name: &str,
    constraints: BasicConstraints,
    not_before: i64,
    not_after: i64,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(Serial::random()?.as_bytes()));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = times::encodable(not_before)?;
    params.not_after = times::encodable(not_after)?;
    Ok(params)
}

/// Opens the authority in `dir`: its files, held against each other.
pub(super) fn open(dir: &Path, keyring: &Keyring, now: SystemTime) -> Result<State, CaError> {
    let roots = root::open(dir, keyring)?;
    let first = read_issuer(IssuerNumber::FIRST, dir, keyring, &roots)?;
    let mut issuers = vec![Arc::new(first)];
    for (number, dir) in rotation::later(dir, keyring)? {
        issuers.push(Arc::new(read_issuer(number, &dir, keyring, &roots)?));
    }
    rotation::settle(dir, keyring, &issuers)?;
    State::new(roots, issuers, now)
}

fn read_issuer(
    number: IssuerNumber,
    dir: &Path,
    keyring: &Keyring,
    roots: &[Arc<Root>],
) -> Result<Issuer, CaError> {
    let file = CertificateFile::read(dir.join(ISSUING_CERTIFICATE))?;
    let key = keyring.open(dir, ISSUING)?;
    file.require_key(&dir.join(ISSUING_KEY), key.as_ref())?;
    Issuer::new(number, file.chain.clone(), roots, key)
        .map_err(|error| file.damaged(format!("cannot be used ({error})")))
}

#[cfg(test)]
mod tests;
