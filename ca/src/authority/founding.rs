//! Founding an authority once, and opening it ever after.
//!
//! A new authority is made in a directory beside its place and renamed into it when all of it is
//! on disk: a crash leaves no authority or a whole one, and the next start sweeps away what a
//! crash left beside it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;

use super::issuer::{CertificateFile, Issuer, IssuerNumber, check_chain};
use super::{BACKDATED, State, root_key, rotation};
use crate::custody::{Custody, Keyring, Signer};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::CertificateFacts;
use crate::identifier::Serial;
use crate::public_key::PublicKey;
use crate::{pem, profile, times};

pub(super) const ROOT_CERTIFICATE: &str = "root.crt";
pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const ISSUING_CERTIFICATE: &str = "issuing.crt";
pub(super) const ISSUING_KEY: &str = "issuing.key";
/// Keys by name; what keeps them settles the ending.
pub(super) const ROOT: &str = "root";
pub(super) const ISSUING: &str = "issuing";
const FILES: [&str; 4] = [ROOT_CERTIFICATE, ROOT_KEY, ISSUING_CERTIFICATE, ISSUING_KEY];

const YEAR: Duration = Duration::from_secs(31_557_600);
/// Life of the root.
const ROOT_VALIDITY: Duration = YEAR.saturating_mul(20);
/// Life of the issuing certificate.
const ISSUING_VALIDITY: Duration = YEAR.saturating_mul(5);

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

/// Makes a root, an issuing certificate and their keys, and puts them into `dir` in one step.
pub(super) fn found(
    dir: &Path,
    name: &str,
    keyring: &Keyring,
    now: SystemTime,
) -> Result<(), CaError> {
    /// So that `<name> Issuing CA` fits into 64 characters (RFC 5280, ub-common-name).
    const MAX_NAME_CHARS: usize = 48;
    profile::check_common_name("authority's name", name)?;
    if name.chars().count() > MAX_NAME_CHARS {
        let reason = format!("it has at most {MAX_NAME_CHARS} characters");
        return Err(CaError::invalid("authority's name", name, reason));
    }
    let beside = durable::parent(dir);
    durable::create_dir(&beside)?;
    let prefix = staging_prefix(dir)?;
    sweep(&beside, &prefix)?;
    let staging = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&beside)
        .map_err(durable::failed("create a directory in", &beside))?;
    fill(staging.path(), name, keyring, now)?;
    durable::sync_dir(staging.path())?;
    // Atomic; an empty directory in its place is replaced, anything else refuses it.
    fs::rename(staging.path(), dir).map_err(durable::failed("put the new authority into", dir))?;
    let _ = staging.keep();
    durable::sync_dir(&beside)
}

fn staging_prefix(dir: &Path) -> Result<String, CaError> {
    let name = dir.file_name().ok_or_else(|| {
        let reason = "the authority's directory has a name of its own";
        CaError::invalid("directory", &dir.to_string_lossy(), reason)
    })?;
    Ok(format!(".{}-founding-", name.to_string_lossy()))
}

/// Removes what foundings that were cut short left behind: keys that signed nothing in use.
fn sweep(beside: &Path, prefix: &str) -> Result<(), CaError> {
    let entries = fs::read_dir(beside).map_err(durable::failed("read the directory", beside))?;
    for entry in entries {
        let entry = entry.map_err(durable::failed("read the directory", beside))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            fs::remove_dir_all(&path).map_err(durable::failed("remove", &path))?;
        }
    }
    Ok(())
}

fn fill(dir: &Path, name: &str, keyring: &Keyring, now: SystemTime) -> Result<(), CaError> {
    let not_before = times::seconds(now)?.saturating_sub_unsigned(BACKDATED.as_secs());
    let root_params = authority_params(
        &format!("{name} Root CA"),
        BasicConstraints::Unconstrained,
        not_before,
        not_before.saturating_add_unsigned(ROOT_VALIDITY.as_secs()),
    )?;
    let root_key = keyring.make(dir, ROOT)?;
    let signer = Signer::new(root_key.as_ref());
    let root = match root_params.self_signed(&signer) {
        Ok(root) => root.der().clone(),
        Err(error) => return Err(signer.explain(error)),
    };
    let issuing_key = keyring.make(dir, ISSUING)?;
    let common_name = format!("{name} Issuing CA");
    let issuing = sign_issuing(
        &root,
        root_key.as_ref(),
        &common_name,
        issuing_key.public_key(),
        now,
    )?;
    let write = |file, der: &CertificateDer<'_>| {
        let text = pem::certificate(der);
        durable::write(&dir.join(file), text.as_bytes(), Readers::Everyone)
    };
    write(ROOT_CERTIFICATE, &root)?;
    write(ISSUING_CERTIFICATE, &issuing)
}

/// Signs an issuing certificate with the root's key. It may sign leaves only, and ends with the
/// root at the latest.
pub(super) fn sign_issuing(
    root: &CertificateDer<'static>,
    root_key: &dyn Custody,
    common_name: &str,
    key: &PublicKey,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    let root_facts = CertificateFacts::read(root)?;
    let begin = times::seconds(now)?.saturating_sub_unsigned(BACKDATED.as_secs());
    let not_before = begin.max(times::seconds(root_facts.not_before)?);
    let not_after = begin
        .saturating_add_unsigned(ISSUING_VALIDITY.as_secs())
        .min(times::seconds(root_facts.not_after)?);
    if not_before >= not_after || !root_facts.is_valid_at(now) {
        return Err(CaError::OutsideIssuer {
            now: times::readable(now),
            not_before: times::readable(root_facts.not_before),
            not_after: times::readable(root_facts.not_after),
        });
    }
    let constraints = BasicConstraints::Constrained(0);
    let mut params = authority_params(common_name, constraints, not_before, not_after)?;
    params.use_authority_key_identifier_extension = true;
    let signer = Signer::new(root_key);
    let signed = rcgen::Issuer::from_ca_cert_der(root, &signer)
        .and_then(|issuer| params.signed_by(key, &issuer));
    let issuing = signed.map_err(|error| signer.explain(error))?.der().clone();
    // The second look, by the reader that certificates of others pass too.
    check_chain(std::slice::from_ref(&issuing), root).map_err(|error| CaError::Lint {
        rule: format!("the issuing certificate does not read back as it was meant: {error}"),
    })?;
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

/// Opens the authority in `dir`: its files, held against each other, and the root's public key.
pub(super) fn open(dir: &Path, keyring: &Keyring) -> Result<(State, PublicKey), CaError> {
    let root_file = CertificateFile::read(dir.join(ROOT_CERTIFICATE))?;
    root_file.require_self_signature()?;
    let root = root_file.der()?.clone();
    if !root_key::settle(dir)? {
        let key = keyring.open(dir, ROOT)?;
        root_file.require_key(&dir.join(ROOT_KEY), key.as_ref())?;
    }
    let root_public = PublicKey::of_certificate(&root)
        .map_err(|refused| root_file.damaged(format!("cannot be used: {refused}")))?;
    let mut current = Arc::new(read_issuer(IssuerNumber::FIRST, dir, keyring, &root)?);
    let mut issuers = vec![Arc::clone(&current)];
    for (number, dir) in rotation::later(dir)? {
        current = Arc::new(read_issuer(number, &dir, keyring, &root)?);
        issuers.push(Arc::clone(&current));
    }
    rotation::settle(dir, keyring, &issuers)?;
    let state = State {
        root,
        issuers,
        current,
    };
    Ok((state, root_public))
}

fn read_issuer(
    number: IssuerNumber,
    dir: &Path,
    keyring: &Keyring,
    root: &CertificateDer<'static>,
) -> Result<Issuer, CaError> {
    let file = CertificateFile::read(dir.join(ISSUING_CERTIFICATE))?;
    let key = keyring.open(dir, ISSUING)?;
    file.require_key(&dir.join(ISSUING_KEY), key.as_ref())?;
    Issuer::new(number, file.chain.clone(), root, key)
        .map_err(|error| file.damaged(format!("cannot be used ({error})")))
}

#[cfg(test)]
mod tests;
