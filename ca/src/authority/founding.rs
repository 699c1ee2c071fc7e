//! Founding an authority once, and opening it ever after.
//!
//! A new authority is made in a directory beside its place and renamed into it when all of it is
//! on disk: a crash leaves no authority or a whole one, and the next start sweeps away what a
//! crash left beside it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;

use super::{Authority, BACKDATED, Terms};
use crate::custody::{Custody, FileKey, Signer};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::{self, CertificateFacts};
use crate::identifier::Serial;
use crate::public_key::PublicKey;
use crate::{pem, profile, times};

const ROOT_CERTIFICATE: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
const ISSUING_CERTIFICATE: &str = "issuing.crt";
const ISSUING_KEY: &str = "issuing.key";
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
    if FILES.iter().any(|file| dir.join(file).exists()) {
        return Ok(false);
    }
    Err(CaError::Occupied {
        path: dir.to_owned(),
        found: first.file_name().to_string_lossy().into_owned(),
    })
}

/// Makes a root, an issuing certificate and their keys, and puts them into `dir` in one step.
pub(super) fn found(dir: &Path, name: &str, now: SystemTime) -> Result<(), CaError> {
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
    fill(staging.path(), name, now)?;
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

fn fill(dir: &Path, name: &str, now: SystemTime) -> Result<(), CaError> {
    let not_before = times::seconds(now)?.saturating_sub_unsigned(BACKDATED.as_secs());
    let root_params = authority_params(
        &format!("{name} Root CA"),
        BasicConstraints::Unconstrained,
        not_before,
        ROOT_VALIDITY,
    )?;
    let root_key = FileKey::create(&dir.join(ROOT_KEY))?;
    let signer = Signer::new(&root_key);
    let root = match root_params.self_signed(&signer) {
        Ok(root) => root,
        Err(error) => return Err(signer.explain(error)),
    };

    let mut issuing_params = authority_params(
        &format!("{name} Issuing CA"),
        BasicConstraints::Constrained(0),
        not_before,
        ISSUING_VALIDITY,
    )?;
    issuing_params.use_authority_key_identifier_extension = true;
    let issuing_key = FileKey::create(&dir.join(ISSUING_KEY))?;
    let issuer = rcgen::Issuer::from_params(&root_params, &signer);
    let issuing = match issuing_params.signed_by(issuing_key.public_key(), &issuer) {
        Ok(issuing) => issuing,
        Err(error) => {
            drop(issuer);
            return Err(signer.explain(error));
        }
    };

    let write = |file, der: &CertificateDer<'_>| {
        let text = pem::certificate(der);
        durable::write(&dir.join(file), text.as_bytes(), Readers::Everyone)
    };
    write(ROOT_CERTIFICATE, root.der())?;
    write(ISSUING_CERTIFICATE, issuing.der())
}

fn authority_params(
    common_name: &str,
    constraints: BasicConstraints,
    not_before: i64,
    validity: Duration,
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
    params.not_after = times::encodable(not_before.saturating_add_unsigned(validity.as_secs()))?;
    Ok(params)
}

/// Opens the authority in `dir` and holds its four files against each other.
pub(super) fn open(dir: &Path, public_url: String) -> Result<Authority, CaError> {
    let path = |file: &str| dir.join(file);
    let root = Certificate::read(path(ROOT_CERTIFICATE))?;
    let issuing = Certificate::read(path(ISSUING_CERTIFICATE))?;
    let root_key = FileKey::open(&path(ROOT_KEY))?;
    let issuing_key = FileKey::open(&path(ISSUING_KEY))?;

    root.require_signature_of(&root, "is not signed by its own key")?;
    issuing.require_signature_of(&root, "is not signed by the root beside it")?;
    root.require_key(&path(ROOT_KEY), &root_key)?;
    issuing.require_key(&path(ISSUING_KEY), &issuing_key)?;
    let issuing_key_id = issuing
        .key_id()?
        .ok_or_else(|| issuing.damaged("has no subject key identifier"))?;
    Ok(Authority {
        root_key: root_key.public_key().clone(),
        root: root.der,
        issuing: issuing.der,
        issuing_facts: issuing.facts,
        issuing_key_id,
        custody: Box::new(issuing_key),
        public_url,
        terms: Terms::default(),
    })
}

/// An authority's certificate and the file it came from.
struct Certificate {
    path: PathBuf,
    der: CertificateDer<'static>,
    facts: CertificateFacts,
}

impl Certificate {
    fn read(path: PathBuf) -> Result<Self, CaError> {
        let Some((text, _)) = durable::read(&path)? else {
            return Err(CaError::Missing { path });
        };
        let damaged = |problem: &str| CaError::Damaged {
            path: path.clone(),
            problem: problem.to_owned(),
        };
        let der = CertificateDer::from_pem_slice(&text)
            .map_err(|_| damaged("holds no whole certificate in PEM"))?;
        let facts = CertificateFacts::read(&der)
            .map_err(|_| damaged("holds a certificate that cannot be read"))?;
        let usages = facts.key_usages;
        if !(facts.is_ca && usages.key_cert_sign && usages.crl_sign) {
            return Err(damaged("is not a certificate of an authority"));
        }
        Ok(Self { path, der, facts })
    }

    fn damaged(&self, problem: impl Into<String>) -> CaError {
        CaError::Damaged {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    fn require_signature_of(&self, issuer: &Self, problem: &str) -> Result<(), CaError> {
        let certificate = facts::parse(&self.der)?;
        let issuer = facts::parse(&issuer.der)?;
        let signed = certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
            && certificate.issuer().as_raw() == issuer.subject().as_raw();
        if signed {
            Ok(())
        } else {
            Err(self.damaged(problem))
        }
    }

    fn require_key(&self, path: &Path, key: &dyn Custody) -> Result<(), CaError> {
        let certificate = facts::parse(&self.der)?;
        let public: &PublicKey = key.public_key();
        if certificate.public_key().raw == public.der() {
            return Ok(());
        }
        Err(CaError::Damaged {
            path: path.to_owned(),
            problem: format!("is not the key of {}", self.path.display()),
        })
    }

    fn key_id(&self) -> Result<Option<Vec<u8>>, CaError> {
        let certificate = facts::parse(&self.der)?;
        let id = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_owned()),
                _ => None,
            }
        });
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
