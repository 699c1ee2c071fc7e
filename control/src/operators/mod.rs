//! Operators: who may use the API, and how far.
//!
//! Kept in one private file beside their certificates. Requests read an immutable snapshot; a
//! change writes the file first and swaps the snapshot after, under one lock.

mod name;
mod renewal;
mod role;
mod rotation;
mod secrets;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_credential_types::Credentials;
use ca::{
    Authority, CertificateId, Issued, IssuerNumber, KeyPair, Profile, RevocationReason, Serial,
    Subject,
};
use fleet::{Fleet, FleetError, KeyOwner};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use name::OperatorName;
pub use role::Role;

use crate::ControlError;

/// Most operators kept.
pub(crate) const MAX_OPERATORS: usize = 1000;
const REGISTRY_VERSION: u32 = 1;
/// What an operator's files beside the registry end with.
const FILES: [&str; 3] = [".credentials", ".key", ".crt"];

/// One operator, as requests see it.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Its name, which every recorded change carries.
    pub name: OperatorName,
    /// How far it may go.
    pub role: Role,
    /// When it was made.
    pub created: SystemTime,
    /// Its certificate.
    pub certificate: CertificateId,
    pub(crate) key: Credentials,
    /// Not known of operators that an older release has made.
    pub(crate) issued: Option<IssuedCertificate>,
}

/// What revoking a certificate takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IssuedCertificate {
    #[serde(default)]
    issuer: IssuerNumber,
    serial: Serial,
    not_after: SystemTime,
    /// SHA-256 of its SubjectPublicKeyInfo; not known of operators that an older release has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl IssuedCertificate {
    fn of(issued: &Issued) -> Result<Self, ControlError> {
        Ok(Self {
            issuer: issued.issuer,
            serial: issued.serial.clone(),
            not_after: issued.not_after,
            key: Some(ca::key_id(&issued.pem)?),
        })
    }
}

impl Operator {
    /// Tells the registry of its certificate, so that OCSP knows it, and of its key, which is no device's.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note(&self, fleet: &Fleet) -> Result<(), FleetError> {
        let Some(issued) = &self.issued else {
            return Ok(());
        };
        if let Some(key) = &issued.key {
            fleet.note_key(key, KeyOwner::Operator)?;
        }
        fleet.note_issued(
            &self.certificate,
            issued.issuer,
            &issued.serial,
            issued.not_after,
        )
    }
}

/// A new operator with what is handed out once.
pub struct NewOperator {
    /// The operator.
    pub operator: Arc<Operator>,
    /// Its certificate with the issuing one, PEM.
    pub certificate_pem: String,
    /// The certificate's key, PEM.
    pub private_key_pem: String,
    /// The AWS shared-credentials file.
    pub credentials: String,
}

/// What became of an operator whose keys were changed.
pub struct Rotated {
    /// The operator as it is now.
    pub made: NewOperator,
    /// As it was.
    pub before: Arc<Operator>,
    /// Whether its files lie beside the registry and were written anew.
    pub kept: bool,
}

/// The file's shape.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    version: u32,
    operators: Vec<Record>,
    /// Certificates that are refused here and that the lists do not have yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leaving: Vec<Leaving>,
}

/// A certificate that no operator has any more, until it is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Leaving {
    certificate_id: CertificateId,
    /// In RFC 5280's words.
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Record {
    name: OperatorName,
    role: Role,
    created: SystemTime,
    certificate_id: CertificateId,
    access_key_id: String,
    secret_access_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued: Option<IssuedCertificate>,
}

#[derive(Default)]
struct Snapshot {
    by_name: HashMap<OperatorName, Arc<Operator>>,
    by_access_key: HashMap<String, Arc<Operator>>,
    by_certificate: HashMap<CertificateId, Arc<Operator>>,
}

impl Snapshot {
    fn of(operators: impl IntoIterator<Item = Arc<Operator>>) -> Self {
        let mut snapshot = Self::default();
        for operator in operators {
            let key = operator.key.access_key_id().to_owned();
            snapshot.by_access_key.insert(key, operator.clone());
            snapshot
                .by_certificate
                .insert(operator.certificate, operator.clone());
            snapshot.by_name.insert(operator.name.clone(), operator);
        }
        snapshot
    }
}

struct Inner {
    dir: PathBuf,
    endpoint: String,
    snapshot: ArcSwap<Snapshot>,
    leaving: Mutex<Vec<Leaving>>,
    /// Held while the file and the snapshot change together.
    change: Mutex<()>,
}

/// The operators' registry. Clones share it.
#[derive(Clone)]
pub struct Operators {
    inner: Arc<Inner>,
}

impl Operators {
    /// Opens `data_dir/operators`; the first time, makes the operator `admin` with `admin.crt`,
    /// `admin.key` and `admin.credentials` (mode 0600 where secret). `endpoint` is where the API
    /// is reached, as `https://HOST:PORT`; a credentials file that is there is kept up to date
    /// with it.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is not what this program wrote.
    pub fn open_or_create(
        data_dir: &Path,
        authority: &Authority,
        endpoint: String,
        now: SystemTime,
    ) -> Result<Self, ControlError> {
        let dir = data_dir.join("operators");
        std::fs::create_dir_all(&dir).map_err(|source| ControlError::Read {
            path: dir.clone(),
            source,
        })?;
        let known = read_registry(&dir.join("operators.json"))?;
        let is_new = known.is_none();
        let (known, leaving) = known.unwrap_or_default();
        let operators = Self {
            inner: Arc::new(Inner {
                dir,
                endpoint,
                snapshot: ArcSwap::from_pointee(Snapshot::of(known)),
                leaving: Mutex::new(leaving),
                change: Mutex::new(()),
            }),
        };
        if is_new {
            let name: OperatorName = "admin".parse()?;
            // The registry is written last: a crash before that makes the admin anew.
            let made = operators.make(&name, Role::Admin, authority, now)?;
            operators.write_files(&made)?;
            operators.keep(|all| all.push(made.operator.clone()))?;
        } else {
            operators.finish_rotations()?;
            operators.refresh_credentials(authority)?;
        }
        Ok(operators)
    }

    /// Makes an operator. Its key and secret are in the answer and, of those, only the secret is
    /// kept (Signature Version 4 cannot do without). `note` writes down elsewhere what must be known of the certificate
    /// before it is used.
    ///
    /// # Errors
    /// [`ControlError::Exists`]; [`ControlError::TooMany`]; when `note`, the authority or the disk fails. There is no
    /// such operator then.
    pub fn add<E: From<ControlError>>(
        &self,
        name: &OperatorName,
        role: Role,
        authority: &Authority,
        now: SystemTime,
        note: impl FnOnce(&Operator) -> Result<(), E>,
    ) -> Result<NewOperator, E> {
        let _change = self.inner.change.lock();
        let known = self.inner.snapshot.load();
        if known.by_name.contains_key(name) {
            return Err(ControlError::Exists(name.clone()).into());
        }
        if known.by_name.len() >= MAX_OPERATORS {
            return Err(ControlError::TooMany(MAX_OPERATORS).into());
        }
        let made = self.make(name, role, authority, now)?;
        note(&made.operator)?;
        self.keep(|all| all.push(made.operator.clone()))?;
        Ok(made)
    }

    /// Removes an operator, with its files beside the registry, and returns it; its next request is
    /// refused.
    ///
    /// # Errors
    /// [`ControlError::Unknown`]; [`ControlError::LastAdmin`]; when the disk fails.
    pub fn remove(&self, name: &OperatorName) -> Result<Arc<Operator>, ControlError> {
        let _change = self.inner.change.lock();
        let known = self.inner.snapshot.load();
        let Some(operator) = known.by_name.get(name).cloned() else {
            return Err(ControlError::Unknown(name.clone()));
        };
        let admins = known.by_name.values().filter(|o| o.role == Role::Admin);
        if operator.role == Role::Admin && admins.count() == 1 {
            return Err(ControlError::LastAdmin(name.clone()));
        }
        self.keep_leaving(
            &operator.certificate,
            RevocationReason::CessationOfOperation,
            |all| all.retain(|one| one.name != *name),
        )?;
        for suffix in FILES {
            let path = self.file(name, suffix);
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a file of an operator that is gone stays");
            }
        }
        Ok(operator)
    }

    /// Has the lists say of certificates that no operator has any more what this registry says. Those of which that fails
    /// are tried again at the next start.
    ///
    /// # Errors
    /// When the store or the disk fails.
    pub fn revoke_left(&self, fleet: &Fleet, now: SystemTime) -> Result<(), ControlError> {
        let leaving = self.inner.leaving.lock().clone();
        for one in &leaving {
            let reason = one.reason.parse().unwrap_or(RevocationReason::Unspecified);
            fleet
                .revoke_issued(&one.certificate_id, reason, now)
                .map_err(ControlError::Fleet)?;
        }
        if leaving.is_empty() {
            return Ok(());
        }
        let _change = self.inner.change.lock();
        (self.inner.leaving.lock()).retain(|one| !leaving.contains(one));
        self.keep(|_| {})
    }

    /// As [`Self::keep`], with a certificate that is to be revoked then.
    fn keep_leaving(
        &self,
        certificate: &CertificateId,
        reason: RevocationReason,
        change: impl FnOnce(&mut Vec<Arc<Operator>>),
    ) -> Result<(), ControlError> {
        let one = Leaving {
            certificate_id: *certificate,
            reason: reason.name().to_owned(),
        };
        self.inner.leaving.lock().push(one.clone());
        self.keep(change).inspect_err(|_| {
            (self.inner.leaving.lock()).retain(|other| *other != one);
        })
    }

    /// Every operator, in order of name.
    pub fn list(&self) -> Vec<Arc<Operator>> {
        let mut all: Vec<_> = self
            .inner
            .snapshot
            .load()
            .by_name
            .values()
            .cloned()
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(crate) fn by_access_key(&self, id: &str) -> Option<Arc<Operator>> {
        self.inner.snapshot.load().by_access_key.get(id).cloned()
    }

    pub(crate) fn by_certificate(&self, id: &CertificateId) -> Option<Arc<Operator>> {
        self.inner.snapshot.load().by_certificate.get(id).cloned()
    }

    fn make(
        &self,
        name: &OperatorName,
        role: Role,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<NewOperator, ControlError> {
        let pair = KeyPair::generate()?;
        let subject = Subject {
            common_name: name.to_string(),
            names: Vec::new(),
        };
        let issued = authority.issue(Profile::Operator, &subject, pair.public(), now)?;
        let key = secrets::new_access_key()?;
        let credentials =
            secrets::credentials_file(&key, &self.inner.endpoint, &authority.root_der_of_issuing());
        Ok(NewOperator {
            operator: Arc::new(Operator {
                name: name.clone(),
                role,
                created: now,
                certificate: issued.id,
                key,
                issued: Some(IssuedCertificate::of(&issued)?),
            }),
            certificate_pem: issued.chain_pem,
            private_key_pem: pair.to_pem().to_string(),
            credentials,
        })
    }

    fn file(&self, name: &OperatorName, suffix: &str) -> PathBuf {
        self.inner.dir.join(format!("{name}{suffix}"))
    }

    fn write_files(&self, made: &NewOperator) -> Result<(), ControlError> {
        let file = |suffix: &str| self.file(&made.operator.name, suffix);
        store::files::write_private(&file(".key"), made.private_key_pem.as_bytes())?;
        store::files::write_public(&file(".crt"), made.certificate_pem.as_bytes())?;
        store::files::write_private(&file(".credentials"), made.credentials.as_bytes())?;
        Ok(())
    }

    /// Writes the registry changed by `change`, then shows it to requests.
    fn keep(&self, change: impl FnOnce(&mut Vec<Arc<Operator>>)) -> Result<(), ControlError> {
        let mut all = self.list();
        change(&mut all);
        let registry = Registry {
            version: REGISTRY_VERSION,
            operators: all.iter().map(|operator| record(operator)).collect(),
            leaving: self.inner.leaving.lock().clone(),
        };
        let path = self.inner.dir.join("operators.json");
        let text =
            serde_json::to_vec_pretty(&registry).map_err(|error| ControlError::Registry {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        store::files::write_private(&path, &text)?;
        self.inner.snapshot.store(Arc::new(Snapshot::of(all)));
        Ok(())
    }

    /// Another port, name or root, another credentials file; one that was moved away stays away.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn refresh_credentials(&self, authority: &Authority) -> Result<(), ControlError> {
        for operator in self.list() {
            let path = self.file(&operator.name, ".credentials");
            let Ok(found) = std::fs::read_to_string(&path) else {
                continue;
            };
            let text = secrets::credentials_file(
                &operator.key,
                &self.inner.endpoint,
                &authority.root_der_of_issuing(),
            );
            if found != text {
                store::files::write_private(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn record(operator: &Operator) -> Record {
    Record {
        name: operator.name.clone(),
        role: operator.role,
        created: operator.created,
        certificate_id: operator.certificate,
        access_key_id: operator.key.access_key_id().to_owned(),
        secret_access_key: operator.key.secret_access_key().to_owned(),
        issued: operator.issued.clone(),
    }
}

/// What stands in the file.
type Known = (Vec<Arc<Operator>>, Vec<Leaving>);

/// The operators of the file; `None` where there is no file yet.
fn read_registry(path: &Path) -> Result<Option<Known>, ControlError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ControlError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let refuse = |reason: String| ControlError::Registry {
        path: path.to_owned(),
        reason,
    };
    let registry: Registry =
        serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    if registry.version != REGISTRY_VERSION {
        return Err(refuse(format!("it is of version {}", registry.version)));
    }
    if !registry.operators.iter().any(|one| one.role == Role::Admin) {
        return Err(refuse("it has no admin".into()));
    }
    let operators = registry.operators.into_iter().map(|one| {
        Arc::new(Operator {
            name: one.name,
            role: one.role,
            created: one.created,
            certificate: one.certificate_id,
            key: secrets::access_key(one.access_key_id, one.secret_access_key),
            issued: one.issued,
        })
    });
    Ok(Some((operators.collect(), registry.leaving)))
}

#[cfg(test)]
mod tests;
