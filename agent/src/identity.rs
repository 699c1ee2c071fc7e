//! Who this device is: the directory that `muster device create` wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use crate::AgentError;
use crate::clock::{Clock, ServerVerifier};
use crate::files::{self, Disk, Files};
use crate::renewal;

/// The largest certificate or key file that is read.
const IDENTITY_BYTES_MAX: u64 = 64 * 1024;

/// The longest name of a thing.
const THING_NAME_BYTES_MAX: usize = 128;

/// What the server calls a certificate in its subject that was made for no thing yet.
const UNBOUND_NAME: &str = "Muster IoT Certificate";

/// A device's certificate chain and key, checked against each other, and the roots it trusts.
pub struct Identity {
    thing: String,
    /// Oldest first.
    roots: Vec<CertificateDer<'static>>,
    tls: Arc<ClientConfig>,
    firmware_root: Option<PathBuf>,
    dir: PathBuf,
    /// Of certificate and key, without their endings.
    file_name: String,
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    life: (SystemTime, SystemTime),
    clock: Arc<Clock>,
    verifier: Arc<ServerVerifier>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("thing", &self.thing)
            .finish_non_exhaustive()
    }
}

/// Whose certificate it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Device,
    Claim,
}

impl Identity {
    /// Reads `NAME.crt` (leaf, then issuing), `NAME.key`, `root.crt` and, where there is one,
    /// finds `firmware-root.json`.
    ///
    /// # Errors
    /// Each names the file and the mend: missing, not PEM, key of another certificate. One that
    /// has expired is opened: the server may renew it still.
    pub fn open(dir: &Path) -> Result<Self, AgentError> {
        Self::read(dir, None, Bearer::Device)
    }

    /// Reads a claim certificate in the same way, as `muster claim create` wrote it: many devices have it, and it is no
    /// thing's.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub(crate) fn of_claim(dir: &Path) -> Result<Self, AgentError> {
        Self::read(dir, None, Bearer::Claim)
    }

    /// With the clock of before, where there is one.
    fn read(dir: &Path, clock: Option<Arc<Clock>>, bearer: Bearer) -> Result<Self, AgentError> {
        let name = certificate_name(dir)?;
        let certificate = dir.join(format!("{name}.crt"));
        let key_path = dir.join(format!("{name}.key"));
        renewal::recover(&Disk, &certificate, &key_path)
            .map_err(|(path, why)| AgentError::IdentityFile { path, why })?;
        let root_path = dir.join("root.crt");

        let chain = certificates(&certificate)?;
        let trusted = certificates(&root_path)?;
        if trusted.is_empty() {
            let what = "holds no certificate; fetch the server's root.crt again";
            return Err(content(&root_path, what));
        }
        let leaf = chain
            .first()
            .ok_or_else(|| content(&certificate, "holds no certificate in PEM"))?;
        let thing = match bearer {
            Bearer::Device => thing_of(&certificate, &name, leaf)?,
            Bearer::Claim => name.clone(),
        };
        let life = life(&parse(&certificate, leaf)?);
        // It was signed when its life began.
        let clock = clock.unwrap_or_else(|| Arc::new(Clock::since(life.0)));
        clock.saw(life.0);
        say_validity(&certificate, leaf, clock.now())?;

        let key_pem = read(&key_path)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| {
            content(&key_path, &format!("holds no private key in PEM: {error}"))
        })?;
        warn_if_readable(&key_path);

        let (tls, verifier) = tls_side(&trusted, &clock, Some((chain.clone(), key))).map_err(
            |fault| match fault {
                TlsFault::Root(why) => content(&root_path, &format!("is not a usable root: {why}")),
                TlsFault::Own(rustls::Error::InconsistentKeys(_)) => AgentError::KeyMismatch {
                    key: key_path.clone(),
                    certificate: certificate.clone(),
                },
                TlsFault::Own(other) => content(&key_path, &format!("cannot be used: {other}")),
            },
        )?;

        let firmware_root = Some(dir.join("firmware-root.json")).filter(|path| path.exists());
        Ok(Self {
            thing,
            roots: trusted,
            tls,
            firmware_root,
            dir: dir.to_owned(),
            file_name: name,
            chain,
            life,
            clock,
            verifier,
        })
    }

    /// The same device's identity as it lies on disk now.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub(crate) fn reopen(&self) -> Result<Self, AgentError> {
        Self::read(&self.dir, Some(Arc::clone(&self.clock)), Bearer::Device)
    }

    /// What tells this device the time.
    pub(crate) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// The certificate and what stands above it.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What the server showed of itself in the last whole handshake, its own certificate first; nothing before one.
    pub(crate) fn server_chain(&self) -> Vec<CertificateDer<'static>> {
        self.verifier.shown()
    }

    /// Why the server that was dialled last is not believed.
    pub(crate) fn server_refused(&self) -> Option<rustls::Error> {
        self.verifier.refused()
    }

    /// First and last moment of the certificate's life.
    pub(crate) const fn life(&self) -> (SystemTime, SystemTime) {
        self.life
    }

    /// Whether a new certificate is this device's, its name and the key that was asked for, and none of before.
    ///
    /// Made for a key of this very minute, it was made now; only a server whose clock stands in the past makes one that
    /// both begins and ends before the present one. That it ends sooner alone is no reason: lives are shortened, and
    /// who had the authority's keys for a day may have given the present one an end that nothing of the true server's
    /// ever reaches.
    ///
    /// # Errors
    /// What it lacks.
    pub(crate) fn accepts(
        &self,
        leaf: &CertificateDer<'static>,
        key: &[u8],
    ) -> Result<(), &'static str> {
        let unreadable = "it cannot be read";
        let (_, fresh) = X509Certificate::from_der(leaf).map_err(|_| unreadable)?;
        let name = fresh.subject().iter_common_name().next();
        if name.and_then(|name| name.as_str().ok()) != Some(&self.thing) {
            return Err("its name is another");
        }
        if fresh.public_key().raw != key {
            return Err("its key is another");
        }
        let (begins, ends) = life(&fresh);
        if ends < begins {
            return Err("it ends before it begins");
        }
        if begins < self.life.0 && ends < self.life.1 {
            return Err("it begins and ends before the present one: is the server's clock right?");
        }
        Ok(())
    }

    /// A new certificate with what stands above the present one, if the same issuer signed it.
    pub(crate) fn chain_by_present_issuer(
        &self,
        leaf: &CertificateDer<'static>,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let same = match self.chain.get(1) {
            Some(issuer) => renewal::signed(issuer, leaf),
            // The handshake has proved the server; without an issuer beside it there is no more to hold it against.
            None => true,
        };
        let chain = std::iter::once(leaf).chain(self.chain.iter().skip(1));
        same.then(|| chain.cloned().collect())
    }

    /// Puts a new chain and its key in the old ones' place.
    ///
    /// # Errors
    /// The file and what the file system said.
    pub(crate) fn succeed(
        &self,
        chain: &[CertificateDer<'static>],
        key_pem: &str,
        files: &dyn Files,
    ) -> Result<(), (PathBuf, std::io::Error)> {
        let chain_pem = in_pem(chain);
        let file = |ending: &str| self.dir.join(format!("{}.{ending}", self.file_name));
        renewal::swap(files, &file("crt"), &file("key"), &chain_pem, key_pem)
    }

    /// Puts other roots into `root.crt`: the old file or the new one, whatever happens.
    ///
    /// # Errors
    /// The file and what the file system said.
    pub(crate) fn trust(
        &self,
        roots: &[CertificateDer<'static>],
        files: &dyn Files,
    ) -> Result<(), (PathBuf, std::io::Error)> {
        let path = self.dir.join("root.crt");
        files::replace(files, &path, in_pem(roots).as_bytes()).map_err(|why| (path, why))
    }

    /// The thing's name: the certificate's common name, and the MQTT client id.
    #[must_use]
    pub fn thing(&self) -> &str {
        &self.thing
    }

    /// The TLS side of this identity.
    #[must_use]
    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// The roots that a server's certificate may lead to, oldest first.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The firmware trust root that came with the identity.
    #[must_use]
    pub fn firmware_root(&self) -> Option<&Path> {
        self.firmware_root.as_deref()
    }
}

/// Why there is no TLS with these files.
#[derive(Debug)]
pub(crate) enum TlsFault {
    /// A root cannot be used.
    Root(String),
    /// The own certificate and key cannot.
    Own(rustls::Error),
}

/// One side of TLS and who judges the other: rustls' own verifier, at the time of a clock that knows what was signed.
/// Without `own` it shows no certificate.
pub(crate) fn tls_side(
    roots: &[CertificateDer<'static>],
    clock: &Arc<Clock>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<(Arc<ClientConfig>, Arc<ServerVerifier>), TlsFault> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|error| TlsFault::Root(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = ServerVerifier::new(store, Arc::clone(&provider), Arc::clone(clock))
        .map_err(|error| TlsFault::Root(error.to_string()))?;
    let verifier = Arc::new(verifier);
    let judge: Arc<dyn ServerCertVerifier> = verifier.clone();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsFault::Own)?
        .dangerous()
        .with_custom_certificate_verifier(judge);
    let tls = match own {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(TlsFault::Own)?,
        None => builder.with_no_client_auth(),
    };
    Ok((Arc::new(tls), verifier))
}

pub(crate) fn in_pem(certificates: &[CertificateDer<'static>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let text = |der: &CertificateDer<'static>| {
        pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), config)
    };
    certificates.iter().map(text).collect()
}

fn content(path: &Path, what: &str) -> AgentError {
    AgentError::IdentityContent {
        path: path.to_path_buf(),
        what: what.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AgentError> {
    let fault = |why| AgentError::IdentityFile {
        path: path.to_path_buf(),
        why,
    };
    let size = fs::metadata(path).map_err(fault)?.len();
    if size > IDENTITY_BYTES_MAX {
        return Err(content(
            path,
            &format!("has {size} bytes, more than {IDENTITY_BYTES_MAX}"),
        ));
    }
    fs::read(path).map_err(fault)
}

/// The names of all files of a directory that end so, without the ending and without `root`, in order.
///
/// # Errors
/// What the file system said.
pub(crate) fn names_with(dir: &Path, ending: &str) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name();
        if let Some(name) = file.to_str().and_then(|file| file.strip_suffix(ending))
            && name != "root"
        {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// The one `*.crt` that is not `root.crt`, without the ending.
fn certificate_name(dir: &Path) -> Result<String, AgentError> {
    let mut names = names_with(dir, ".crt").map_err(|why| AgentError::IdentityFile {
        path: dir.to_path_buf(),
        why,
    })?;
    let found = match names.len() {
        1 => return Ok(names.remove(0)),
        0 => "no device certificate".to_string(),
        _ => format!("several certificates ({})", names.join(".crt, ") + ".crt"),
    };
    Err(AgentError::IdentityNames {
        dir: dir.to_path_buf(),
        found,
    })
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AgentError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(path, &format!("is not a certificate in PEM: {error}")))
}

fn parse<'a>(
    path: &Path,
    der: &'a CertificateDer<'static>,
) -> Result<X509Certificate<'a>, AgentError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|error| content(path, &format!("is not an X.509 certificate: {error}")))
}

/// Whether a thing may be called so. The name becomes a topic level.
pub(crate) fn is_thing_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    !name.is_empty() && name.len() <= THING_NAME_BYTES_MAX && name.chars().all(fits)
}

/// Whose a device's certificate is. One that was made before its thing had a name, by claim, says nothing of it: its
/// file is called as the thing.
fn thing_of(
    path: &Path,
    file_name: &str,
    der: &CertificateDer<'static>,
) -> Result<String, AgentError> {
    let certificate = parse(path, der)?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .unwrap_or_default();
    let name = match name {
        UNBOUND_NAME => file_name,
        bound => bound,
    };
    if !is_thing_name(name) {
        return Err(content(
            path,
            &format!(
                "its common name {name:?} is not a thing's name: is this a device certificate?"
            ),
        ));
    }
    Ok(name.to_string())
}

/// The last moment of a certificate's life; `None` where it cannot be read.
pub(crate) fn ends(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(life(&certificate).1)
}

pub(crate) fn life(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let at = |time: ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
        UNIX_EPOCH + std::time::Duration::from_secs(seconds)
    };
    let validity = certificate.validity();
    (at(validity.not_before), at(validity.not_after))
}

/// Says of a certificate that has expired that it has.
fn say_validity(
    path: &Path,
    der: &CertificateDer<'static>,
    now: SystemTime,
) -> Result<(), AgentError> {
    let certificate = parse(path, der)?;
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let clock = ASN1Time::from_timestamp(seconds).map_or_else(
        |_| format!("{seconds} seconds since 1970"),
        |time| time.to_string(),
    );
    let until = certificate.validity().not_after;
    if seconds > until.timestamp() {
        tracing::warn!(
            "{} was valid until {until}, and this device's clock says {clock}: the server is asked for another; if it gives none, set the clock, or, if it is right, give the device a new certificate with `muster device replace`",
            path.display()
        );
    }
    Ok(())
}

fn warn_if_readable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(facts) = fs::metadata(path) else {
        return;
    };
    if facts.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "{} can be read by other users of this device: chmod 600 it",
            path.display()
        );
    }
}

#[cfg(test)]
pub(crate) mod tests;
