//! The next issuing certificate: made with the root's key, or signed elsewhere.
//!
//! Each has a directory of its own beside the first one's files, `issuing-2`, `issuing-3`, …; it
//! is filled under another name and renamed when all of it is on disk, so a crash leaves the one
//! before or the next. Those before keep their keys, for the revocation lists and OCSP answers of
//! what they issued.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, DnType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

use super::Authority;
use super::constraints::{Permitted, check_names};
use super::founding::{ISSUING, ISSUING_CERTIFICATE, sign_issuing};
use super::issuer::{Issuer, IssuerNumber, check_fresh, read_chain};
use super::plan::{ISSUING_VALIDITY, Made};
use super::root_key::remove;
use super::trust::{Change, State};
use crate::csr::Csr;
use crate::custody::{FileKey, Keyring, Signer, copy, find};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::public_key::{KeyKind, PublicKey};
use crate::secret_key::SecretKey;
use crate::{facts, pem};

const LATER: &str = "issuing-";
const STAGING: &str = ".issuing-";
/// The key of a request that has not been answered yet.
const REQUESTED: &str = "issuing-request";

/// The directories of the issuing certificates after the first, in order. What a crash left
/// unfinished is removed; where its key is in a token that is away, at a later start.
pub(super) fn later(
    dir: &Path,
    keyring: &Keyring,
) -> Result<Vec<(IssuerNumber, PathBuf)>, CaError> {
    let requested = find(dir, REQUESTED)?.unwrap_or_default();
    let read = durable::failed("read the directory", dir);
    let entries = fs::read_dir(dir).map_err(read)?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(durable::failed("read the directory", dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with(STAGING) {
            keyring.sweep(&path, &[ISSUING], &requested)?;
        } else if let Some(number) = name
            .strip_prefix(LATER)
            .and_then(|number| number.parse().ok())
            .and_then(IssuerNumber::new)
            .filter(|number| *number != IssuerNumber::FIRST)
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes the key of a request that was answered, where a crash left it behind.
pub(super) fn settle(
    dir: &Path,
    keyring: &Keyring,
    issuers: &[Arc<Issuer>],
) -> Result<(), CaError> {
    let Some(path) = find(dir, REQUESTED)? else {
        return Ok(());
    };
    let requested = keyring.open(dir, REQUESTED)?;
    let answered = |issuer: &Arc<Issuer>| issuer.public_key() == requested.public_key();
    if issuers.iter().any(answered) {
        remove(&path)?;
    }
    Ok(())
}

/// Where the key of the next issuing certificate comes from.
pub(super) enum NextKey {
    /// Made now; the root's key that is with the server signs.
    Made,
    /// Brought along.
    Brought(SecretKey),
    /// That of the request, whose file this is.
    Requested(PathBuf),
}

/// The next issuing certificate, whole in a directory that is not in its place yet.
pub(super) struct Prepared {
    staging: TempDir,
    issuer: Issuer,
}

impl Authority {
    /// Makes the next issuing certificate with the root's key that is with the server. What is
    /// issued from now on is signed by it; those before stay trusted.
    ///
    /// # Errors
    /// [`CaError::RootOffline`]; [`CaError::OutsideIssuer`]; [`CaError::Custody`];
    /// [`CaError::File`].
    pub fn rotate_issuing(&self, now: SystemTime) -> Result<IssuerNumber, CaError> {
        let mut change = self.change.lock();
        let root_key = self.root_key()?;
        self.adopt(&mut change, NextKey::Made, now, |state, key| {
            let made = Made {
                common_name: self.next_name(state)?,
                key: key.kind(),
                validity: ISSUING_VALIDITY,
            };
            let root = (&state.root.der, root_key.as_ref());
            let permitted = self.permitted_next(&state.signing(now))?;
            let list = self.root_list_url(state.root.number);
            let signed = sign_issuing(root, &made, &permitted, Some(&list), key, now)?;
            Ok(vec![signed])
        })
    }

    /// Whether the one that signs at this time has ended or is revoked, so that nothing can be issued.
    #[must_use]
    pub fn issuing_is_over(&self, now: SystemTime) -> bool {
        let issuer = self.issuer_now(now);
        issuer.facts.not_after < now || self.refuse_revoked(&issuer).is_err()
    }

    /// A request for the next issuing certificate, as PEM PKCS#10. Its key stays here, and is the
    /// same until a certificate for it has come.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Custody`]; [`CaError::Encode`].
    pub fn issuing_request(&self) -> Result<String, CaError> {
        let _change = self.change.lock();
        let key = match find(&self.dir, REQUESTED)? {
            Some(_) => self.keyring.open(&self.dir, REQUESTED)?,
            None => self.keyring.make(&self.dir, REQUESTED, KeyKind::P256)?,
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.next_name(&self.state.load())?);
        let signer = Signer::new(key.as_ref());
        let request = params
            .serialize_request(&signer)
            .map_err(|error| signer.explain(error))?;
        Ok(pem::encode("CERTIFICATE REQUEST", request.der())
            .as_str()
            .to_owned())
    }

    /// Takes an issuing certificate that was signed elsewhere: PEM, issuing first, then what stands
    /// between it and the root. Without `secret` it is one for [`Self::issuing_request`].
    ///
    /// # Errors
    /// [`CaError::Invalid`], naming what does not fit; then nothing has changed.
    pub fn adopt_issuing(
        &self,
        chain_pem: &str,
        secret: Option<SecretKey>,
        now: SystemTime,
    ) -> Result<IssuerNumber, CaError> {
        let mut change = self.change.lock();
        let chain = read_chain(chain_pem.as_bytes())?;
        let key = self.next_key(secret)?;
        let number = self.adopt(&mut change, key, now, |_, _| Ok(chain))?;
        self.settle_answered()?;
        Ok(number)
    }

    /// The key that came along, or that of the request.
    pub(super) fn next_key(&self, secret: Option<SecretKey>) -> Result<NextKey, CaError> {
        match (secret, find(&self.dir, REQUESTED)?) {
            (Some(secret), _) => Ok(NextKey::Brought(secret)),
            (None, Some(requested)) => Ok(NextKey::Requested(requested)),
            (None, None) => {
                let reason = "nothing was requested: make the request first, or bring the key too";
                Err(CaError::invalid(
                    "issuing certificate",
                    "(as given)",
                    reason,
                ))
            }
        }
    }

    /// The number of the next issuing certificate.
    fn next_number(&self, state: &State) -> IssuerNumber {
        state.newest.number.max(self.numbers_used).next()
    }

    /// The common name of the next issuing certificate: that of the first with its number behind.
    pub(super) fn next_name(&self, state: &State) -> Result<String, CaError> {
        let first = state
            .issuers
            .first()
            .map_or(&state.root.der, |issuer| &issuer.der);
        let certificate = facts::parse(first)?;
        let name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .unwrap_or("Issuing CA");
        Ok(format!("{name} {}", self.next_number(state)))
    }

    /// Removes the key of a request that was answered.
    pub(super) fn settle_answered(&self) -> Result<(), CaError> {
        settle(&self.dir, &self.keyring, &self.state.load().issuers)
    }

    fn adopt(
        &self,
        change: &mut Change,
        key: NextKey,
        now: SystemTime,
        chain: impl FnOnce(&State, &PublicKey) -> Result<Vec<CertificateDer<'static>>, CaError>,
    ) -> Result<IssuerNumber, CaError> {
        let state = self.state.load_full();
        let prepared = self.prepare(&state, key, now, chain)?;
        self.put(change, &state, prepared, now)
    }

    /// Puts the next issuing certificate together, below the newest root; nothing has changed yet.
    pub(super) fn prepare(
        &self,
        state: &State,
        key: NextKey,
        now: SystemTime,
        chain: impl FnOnce(&State, &PublicKey) -> Result<Vec<CertificateDer<'static>>, CaError>,
    ) -> Result<Prepared, CaError> {
        let number = self.next_number(state);
        let staging = tempfile::Builder::new()
            .prefix(&format!("{STAGING}{number}-"))
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&self.dir)
            .map_err(durable::failed("create a directory in", &self.dir))?;
        let prepared = self.fill(state, number, staging.path(), key, now, chain);
        match prepared {
            Ok(issuer) => Ok(Prepared { staging, issuer }),
            Err(failed) => Err(self.abandoned(&staging, failed)),
        }
    }

    /// An error, after the key that was made for nothing is gone.
    fn abandoned(&self, staging: &TempDir, failed: CaError) -> CaError {
        let requested = find(&self.dir, REQUESTED).ok().flatten();
        let requested = requested.unwrap_or_default();
        self.keyring
            .abandon(staging.path(), &[ISSUING], &requested, failed)
    }

    fn fill(
        &self,
        state: &State,
        number: IssuerNumber,
        place: &Path,
        key: NextKey,
        now: SystemTime,
        chain: impl FnOnce(&State, &PublicKey) -> Result<Vec<CertificateDer<'static>>, CaError>,
    ) -> Result<Issuer, CaError> {
        let custody = match key {
            NextKey::Made => self.keyring.make(place, ISSUING, KeyKind::P256)?,
            NextKey::Brought(secret) => self.keyring.keep(secret, place, ISSUING)?,
            NextKey::Requested(file) => {
                copy(&file, place, ISSUING)?;
                self.keyring.open(place, ISSUING)?
            }
        };
        let chain = chain(state, custody.public_key())?;
        let newest = std::slice::from_ref(&state.root);
        let issuer = Issuer::new(number, chain, newest, custody)?;
        check_fresh(&issuer, &state.issuers, &state.roots, now)?;
        // Or the server's own certificate could not be renewed.
        check_names(&issuer.der, &self.server_names.load())?;
        durable::write(
            &place.join(ISSUING_CERTIFICATE),
            issuer.chain_pem().as_bytes(),
            Readers::Everyone,
        )?;
        durable::sync_dir(place)?;
        Ok(issuer)
    }

    /// Puts it in its place, and goes over to it and to the roots of `state`.
    pub(super) fn put(
        &self,
        change: &Change,
        state: &State,
        Prepared { staging, issuer }: Prepared,
        now: SystemTime,
    ) -> Result<IssuerNumber, CaError> {
        let number = issuer.number;
        let target = self.dir.join(format!("{LATER}{number}"));
        fs::rename(staging.path(), &target)
            .map_err(durable::failed("put the issuing certificate into", &target))
            .map_err(|failed| self.abandoned(&staging, failed))?;
        let _ = staging.keep();
        durable::sync_dir(&self.dir)?;

        let mut issuers = state.issuers.clone();
        issuers.push(Arc::new(issuer));
        let next = State::new(state.roots.clone(), issuers, now)?;
        // Trusted before it signs.
        change.tell(&next);
        self.state.store(Arc::new(next));
        Ok(number)
    }
}

/// Signs a request for an issuing certificate where the root's key is: on a machine that has no
/// server. `permitted` is what [`Authority::permitted_names`] says, `list_url`
/// where the root's list is found. The certificate as PEM.
///
/// # Errors
/// [`CaError::Invalid`] for a root, key or request that is none or does not fit the others;
/// [`CaError::OutsideIssuer`].
pub fn sign_issuing_request(
    root_pem: &str,
    root_key: SecretKey,
    request_pem: &str,
    permitted: &[String],
    list_url: Option<&str>,
    now: SystemTime,
) -> Result<String, CaError> {
    let refused = |field, reason: &str| Err(CaError::invalid(field, "(as given)", reason));
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|_| CaError::invalid("root certificate", "(as given)", "it is not whole PEM"))?;
    let public = PublicKey::of_certificate(&root)
        .map_err(|error| CaError::invalid("root certificate", "(as given)", error.to_string()))?;
    if public != *root_key.public() {
        return refused("root key", "it is not the key of this server's root.crt");
    }
    let request = Csr::parse(request_pem.as_bytes())
        .map_err(|error| CaError::invalid("request", "(as given)", error.to_string()))?;
    let [name] = &request.requested_names().common_names[..] else {
        return refused("request", "it has one common name");
    };
    let key = request.public_key();
    let made = Made {
        common_name: name.clone(),
        key: key.kind(),
        validity: ISSUING_VALIDITY,
    };
    let permitted = Permitted::of_names(permitted)?;
    let root_key = FileKey::from(root_key);
    let der = sign_issuing((&root, &root_key), &made, &permitted, list_url, key, now)?;
    Ok(pem::certificate(&der))
}

#[cfg(test)]
mod tests;
