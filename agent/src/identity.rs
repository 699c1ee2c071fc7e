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
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// A root, and a way to write a device's identity and a server's certificate below it.
    pub(crate) struct Ca {
        certificate: rcgen::Certificate,
        issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    }

    impl Ca {
        pub(crate) fn new() -> Self {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "test root");
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            Self {
                certificate,
                issuer: rcgen::Issuer::new(params, key),
            }
        }

        /// Certificate and key in PEM.
        pub(crate) fn issue(
            &self,
            common_name: &str,
            names: &[&str],
            from: SystemTime,
            until: SystemTime,
        ) -> (String, rcgen::KeyPair) {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, common_name);
            params.not_before = from.into();
            params.not_after = until.into();
            let key = rcgen::KeyPair::generate().unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
        }

        /// A certificate in PEM for a key that is there.
        pub(crate) fn certify(
            &self,
            common_name: &str,
            key: &rcgen::KeyPair,
            from: SystemTime,
            until: SystemTime,
        ) -> String {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, common_name);
            params.not_before = from.into();
            params.not_after = until.into();
            params.signed_by(key, &self.issuer).unwrap().pem()
        }

        pub(crate) fn write_identity(&self, dir: &Path, thing: &str) {
            let now = SystemTime::now();
            let (from, until) = (
                now - Duration::from_secs(3600),
                now + Duration::from_secs(3600),
            );
            let (pem, key) = self.issue(thing, &[], from, until);
            fs::write(dir.join("root.crt"), self.root_pem()).unwrap();
            fs::write(dir.join(format!("{thing}.crt")), pem).unwrap();
            fs::write(dir.join(format!("{thing}.key")), key.serialize_pem()).unwrap();
        }

        pub(crate) fn root_pem(&self) -> String {
            self.certificate.pem()
        }

        pub(crate) fn root_der(&self) -> CertificateDer<'static> {
            self.certificate.der().clone()
        }
    }

    fn written() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        Ca::new().write_identity(dir.path(), "lamp-1");
        dir
    }

    fn refusal(dir: &Path) -> String {
        Identity::open(dir).unwrap_err().to_string()
    }

    #[test]
    fn what_device_create_wrote_is_understood() {
        let dir = written();
        let identity = Identity::open(dir.path()).unwrap();
        assert_eq!(identity.thing(), "lamp-1");
        assert!(identity.firmware_root().is_none());
        fs::write(dir.path().join("firmware-root.json"), "{}").unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        assert!(identity.firmware_root().is_some());
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }

    #[test]
    fn each_missing_or_foreign_file_is_named_with_its_mend() {
        let dir = written();
        let other = written();
        fs::copy(
            other.path().join("lamp-1.key"),
            dir.path().join("lamp-1.key"),
        )
        .unwrap();
        let said = refusal(dir.path());
        assert!(said.contains("lamp-1.key is not the key of"), "{said}");
        assert!(said.contains("device replace"), "{said}");

        fs::write(dir.path().join("lamp-1.key"), "no key").unwrap();
        assert!(refusal(dir.path()).contains("holds no private key in PEM"));
        fs::remove_file(dir.path().join("lamp-1.key")).unwrap();
        let said = refusal(dir.path());
        assert!(
            said.contains("lamp-1.key") && said.contains("device create"),
            "{said}"
        );

        let dir = written();
        fs::remove_file(dir.path().join("root.crt")).unwrap();
        assert!(refusal(dir.path()).contains("root.crt"));

        let dir = written();
        fs::write(dir.path().join("lamp-2.crt"), "").unwrap();
        assert!(refusal(dir.path()).contains("several certificates (lamp-1.crt, lamp-2.crt)"));

        let empty = tempfile::tempdir().unwrap();
        assert!(refusal(empty.path()).contains("no device certificate"));
        assert!(refusal(&empty.path().join("nowhere")).contains("nowhere"));
    }

    #[test]
    fn the_time_is_not_before_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, now) = (Ca::new(), SystemTime::now());
        ca.write_identity(dir.path(), "lamp-1");
        let day = Duration::from_secs(86_400);
        let (pem, key) = ca.issue("lamp-1", &[], now + day, now + 2 * day);
        fs::write(dir.path().join("lamp-1.crt"), pem).unwrap();
        fs::write(dir.path().join("lamp-1.key"), key.serialize_pem()).unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        assert!(identity.clock().now() >= identity.life().0);
    }

    #[test]
    fn the_hybrid_group_is_negotiated() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        ca.write_identity(dir.path(), "lamp-1");
        let now = SystemTime::now();
        let identity = Identity::open(dir.path()).unwrap();
        let hour = Duration::from_secs(3600);
        let (pem, key) = ca.issue("localhost", &["localhost"], now - hour, now + hour);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(identity.tls(), name).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        let group = client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    }

    #[test]
    fn an_expired_identity_is_opened_and_due_at_once() {
        let dir = written();
        let later = SystemTime::now() + Duration::from_secs(86_400);
        let identity = Identity::open(dir.path()).unwrap();
        identity.clock().saw(later);
        let identity = identity.reopen().unwrap();
        let (from, until) = identity.life();
        assert!(renewal::due(from, until, 7) < later);
    }

    #[test]
    fn a_renewal_may_end_sooner_and_may_not_be_of_before() {
        const DAY: Duration = Duration::from_secs(86_400);
        let (ca, now) = (Ca::new(), SystemTime::now());
        let begins = now - 100 * DAY;
        let refused = |held_until, from, until| {
            let dir = tempfile::tempdir().unwrap();
            ca.write_identity(dir.path(), "lamp-1");
            let (pem, key) = ca.issue("lamp-1", &[], begins, held_until);
            fs::write(dir.path().join("lamp-1.crt"), pem).unwrap();
            fs::write(dir.path().join("lamp-1.key"), key.serialize_pem()).unwrap();
            let identity = Identity::open(dir.path()).unwrap();
            let (pem, key) = ca.issue("lamp-1", &[], from, until);
            let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let key = rcgen::PublicKeyData::subject_public_key_info(&key);
            identity.accepts(&leaf, &key).err()
        };
        let in_2199 = UNIX_EPOCH + Duration::from_secs(7_258_032_000);
        // What a thief left: an end that no renewal ever reaches.
        assert_eq!(refused(in_2199, now, now + 30 * DAY), None);
        // Lives were shortened.
        assert_eq!(refused(now + 265 * DAY, now, now + 7 * DAY), None);
        // Longer, and backdated further.
        assert_eq!(refused(begins + DAY, begins - DAY, now), None);
        let never = refused(now + DAY, in_2199, now + DAY);
        assert_eq!(never, Some("it ends before it begins"));
        // By a server that lives in the past.
        let of_before = refused(now + DAY, begins - DAY, now);
        assert!(of_before.unwrap().contains("the server's clock"));
    }

    #[test]
    fn a_certificate_that_is_no_devices_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        ca.write_identity(dir.path(), "x");
        let now = SystemTime::now();
        let (pem, _) = ca.issue("a/+/b", &[], now, now + Duration::from_secs(60));
        fs::write(dir.path().join("x.crt"), pem).unwrap();
        let said = Identity::open(dir.path()).unwrap_err();
        assert!(said.to_string().contains("is not a thing's name"), "{said}");
    }
}
