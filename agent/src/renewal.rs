//! Renews the device's certificate by EST (RFC 7030) before two thirds of its life are over, with a new key each time.
//!
//! The new certificate and key lie on disk before they are used, and take the old ones' place in one rename: after a
//! power cut the device has a whole identity, the old one or the new one. When the new one has connected, the server
//! is asked for its certificates under it, which tells it that the old one has had its day.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use data_encoding::BASE64;
use der::{Decode as _, Encode as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::files::{self, Files};
use crate::https::Client;
use crate::identity::{self, Identity};
use crate::roots::{self, Known};

/// Where the certificates of the server's authority are (RFC 7030 §4.1).
pub(crate) const CA_CERTIFICATES: &str = "/.well-known/est/cacerts";
/// Certificates of the longest chain below the root.
const LONGEST_CHAIN: usize = 8;
/// A renewal begins when this much of the life is over at the earliest, in 1/1000.
const EARLIEST: u32 = 500;
/// And at the latest before this much: the random choice in between spreads a fleet that was enrolled in one hour.
const LATEST: u32 = 640;
/// After a failure it is tried again when this part of what is left of the life is over.
const AGAIN_PART: u32 = 10;
/// The longest and shortest wait between two attempts.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Looks at the authority's certificates in one life of the device's, at least.
const LOOKS_PER_LIFE: u32 = 8;
/// And the longest time between two.
const LOOK_EVERY: Duration = Duration::from_secs(86_400);

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewalError {
    /// The server did not give one.
    #[error("{0}")]
    Server(String),
    /// What it gave is not this device's certificate.
    #[error("the server's answer is not a certificate for this device: {0}")]
    Answer(&'static str),
    /// No key or request could be made.
    #[error("a key and a request could not be made: {0}")]
    Request(#[from] rcgen::Error),
    /// The new identity could not be kept.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        why: std::io::Error,
    },
}

/// When a certificate with this life is to be renewed; `random` is any number.
pub(crate) fn due(not_before: SystemTime, not_after: SystemTime, random: u32) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let part = EARLIEST + random % (LATEST - EARLIEST);
    not_before + life / 1000 * part
}

/// How long to wait after a failure: ever shorter towards the end of the life, and ever longer after it.
pub(crate) fn again(not_after: SystemTime, now: SystemTime) -> Duration {
    let distance = match not_after.duration_since(now) {
        Ok(left) => left,
        Err(over) => over.duration(),
    };
    (distance / AGAIN_PART).clamp(AGAIN.0, AGAIN.1)
}

/// Gets a new certificate for a new key and puts both in the old ones' place.
///
/// # Errors
/// [`RenewalError`]; the old identity stays as it is.
pub(crate) fn renew(
    identity: &Identity,
    client: &Client,
    files: &dyn Files,
) -> Result<(), RenewalError> {
    let key = KeyPair::generate()?;
    let request = request(&key, Some(identity.thing()))?;
    let answer = client
        .enrol(&BASE64.encode(request.der()))
        .map_err(|fault| RenewalError::Server(fault.words().to_owned()))?;
    let leaf = certificate(&answer)?;
    identity
        .accepts(&leaf, &key.subject_public_key_info())
        .map_err(RenewalError::Answer)?;
    let chain = match identity.chain_by_present_issuer(&leaf) {
        Some(chain) => chain,
        None => {
            let answer = client
                .document(CA_CERTIFICATES)
                .map_err(|fault| RenewalError::Server(fault.words().to_owned()))?;
            let known = certificates(&answer)?;
            // With a root that follows, the chain is the shorter one; it is kept once the new certificate is in use.
            let server = identity.server_chain();
            let beside = Known {
                own: identity.chain(),
                server: &server,
                now: identity.clock().now(),
            };
            let followed = roots::follow(identity.roots(), &known, beside);
            let roots = followed.as_deref().unwrap_or(identity.roots());
            chain_to(roots, &leaf, &known).ok_or(RenewalError::Answer(
                "neither the issuer of the present one nor another below this device's roots signed it",
            ))?
        }
    };
    if outlives(&chain, identity.roots()) {
        return Err(RenewalError::Answer(
            "it, or what signed it, ends after the certificate above it",
        ));
    }
    identity
        .succeed(&chain, &key.serialize_pem(), files)
        .map_err(|(path, why)| RenewalError::File { path, why })
}

/// A request for a certificate over a key, for a thing or, where its name is not known, for whosever it is.
///
/// # Errors
/// When none can be made of the key.
pub(crate) fn request(
    key: &KeyPair,
    thing: Option<&str>,
) -> Result<rcgen::CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(thing) = thing {
        params.distinguished_name.push(DnType::CommonName, thing);
    }
    params.serialize_request(key)
}

/// Asks for the authority's certificates, which says that the certificate they are asked for under is in use, and takes
/// roots that follow those that are trusted. Whether the roots are others now.
///
/// # Errors
/// [`RenewalError`]; a certificate before this one then goes with the next renewal, and the roots stay as they are.
pub(crate) fn look(
    identity: &Identity,
    client: &Client,
    files: &dyn Files,
    now: SystemTime,
) -> Result<bool, RenewalError> {
    let answer = client
        .document(CA_CERTIFICATES)
        .map_err(|fault| RenewalError::Server(fault.words().to_owned()))?;
    let offered = certificates(&answer)?;
    let (trusted, server) = (identity.roots(), identity.server_chain());
    let known = Known {
        own: identity.chain(),
        server: &server,
        now,
    };
    let roots =
        roots::follow(trusted, &offered, known).or_else(|| roots::forget(trusted, &offered, known));
    let Some(roots) = roots else {
        return Ok(false);
    };
    identity
        .trust(&roots, files)
        .map_err(|(path, why)| RenewalError::File { path, why })?;
    Ok(true)
}

/// When the authority's certificates are looked at again: once a day, and several times in a short life. `random` is
/// any number, and spreads a fleet.
pub(crate) fn look_again(
    life: (SystemTime, SystemTime),
    now: SystemTime,
    random: u32,
) -> SystemTime {
    let life = life.1.duration_since(life.0).unwrap_or_default();
    let pause = (life / LOOKS_PER_LIFE).min(LOOK_EVERY);
    now + pause / 2 + pause / 1000 * (random % 500)
}

/// The certificates that lead from a leaf to one of the roots, leaf first and without the root, out of those that are
/// known.
pub(crate) fn chain_to(
    roots: &[CertificateDer<'static>],
    leaf: &CertificateDer<'static>,
    known: &[CertificateDer<'static>],
) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = vec![leaf.clone()];
    while chain.len() <= LONGEST_CHAIN {
        let top = chain.last()?;
        if roots.iter().any(|root| signed(root, top)) {
            return Some(chain);
        }
        let above = known
            .iter()
            .find(|one| !chain.contains(one) && !roots.contains(one) && signed(one, top))?;
        chain.push(above.clone());
    }
    None
}

/// Whether a certificate of a chain (leaf first, without the root) ends after the one above it, as none of a Muster
/// authority does. So whoever has the issuing key alone gives nothing that lasts beyond what the root has signed.
pub(crate) fn outlives(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> bool {
    let root = (chain.last()).and_then(|top| roots.iter().find(|root| signed(root, top)));
    let path: Vec<_> = chain.iter().chain(root).map(identity::ends).collect();
    // What cannot be read has no end that could be trusted.
    path.windows(2)
        .any(|two| !matches!(two, [Some(below), Some(above)] if below <= above))
}

/// Whether one certificate's key signed another, which names it as its issuer.
pub(crate) fn signed(issuer: &CertificateDer<'_>, certificate: &CertificateDer<'_>) -> bool {
    match (
        X509Certificate::from_der(issuer),
        X509Certificate::from_der(certificate),
    ) {
        (Ok((_, issuer)), Ok((_, certificate))) => {
            issuer.is_ca()
                && certificate.issuer().as_raw() == issuer.subject().as_raw()
                && certificate
                    .verify_signature(Some(issuer.public_key()))
                    .is_ok()
        }
        _ => false,
    }
}

/// The one certificate in an answer.
pub(crate) fn certificate(answer: &[u8]) -> Result<CertificateDer<'static>, RenewalError> {
    match &certificates(answer)?[..] {
        [one] => Ok(one.clone()),
        _ => Err(RenewalError::Answer("it does not hold one certificate")),
    }
}

/// The certificates in an answer.
pub(crate) fn certificates(answer: &[u8]) -> Result<Vec<CertificateDer<'static>>, RenewalError> {
    let text: Vec<u8> = answer
        .iter()
        .copied()
        .filter(|octet| !octet.is_ascii_whitespace())
        .collect();
    let der = BASE64
        .decode(&text)
        .map_err(|_| RenewalError::Answer("it is not base64"))?;
    let signed: SignedData = ContentInfo::from_der(&der)
        .and_then(|info| info.content.decode_as())
        .map_err(|_| RenewalError::Answer("it is not CMS"))?;
    let set = signed.certificates.map(|set| set.0.into_vec());
    let read = |one: &CertificateChoices| match one {
        CertificateChoices::Certificate(one) => one.to_der().ok().map(CertificateDer::from),
        CertificateChoices::Other(_) => None,
    };
    set.unwrap_or_default()
        .iter()
        .map(read)
        .collect::<Option<_>>()
        .ok_or(RenewalError::Answer("a certificate in it cannot be read"))
}

/// Puts a certificate and key in the place of others, as one: first the pair beside them, then the certificate, then
/// the key. [`recover`] ends what a power cut left half done.
pub(crate) fn swap(
    files: &dyn Files,
    certificate: &Path,
    key: &Path,
    chain_pem: &str,
    key_pem: &str,
) -> Result<(), (PathBuf, std::io::Error)> {
    let pair = pending(certificate);
    let both = format!("{key_pem}{chain_pem}");
    files::replace(files, &pair, both.as_bytes()).map_err(|why| (pair.clone(), why))?;
    finish(files, certificate, key, chain_pem, key_pem)
}

fn finish(
    files: &dyn Files,
    certificate: &Path,
    key: &Path,
    chain_pem: &str,
    key_pem: &str,
) -> Result<(), (PathBuf, std::io::Error)> {
    for (path, text) in [(key, key_pem), (certificate, chain_pem)] {
        files::replace(files, path, text.as_bytes()).map_err(|why| (path.to_owned(), why))?;
    }
    let pair = pending(certificate);
    files.remove(&pair).map_err(|why| (pair, why))
}

/// The pair on its way, in one file so that it is there whole or not at all.
fn pending(certificate: &Path) -> PathBuf {
    certificate.with_extension("renewed")
}

/// After a power cut: a pair that lies there whole takes its place.
///
/// # Errors
/// The file and what the file system said.
pub(crate) fn recover(
    files: &dyn Files,
    certificate: &Path,
    key: &Path,
) -> Result<(), (PathBuf, std::io::Error)> {
    const KEY_ENDS: &str = "-----END PRIVATE KEY-----\n";
    let pair = pending(certificate);
    let text = match std::fs::read_to_string(&pair) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err((pair, why)),
    };
    let Some(end) = text.find(KEY_ENDS).map(|at| at + KEY_ENDS.len()) else {
        let why = std::io::Error::other("holds no private key and certificate: remove it");
        return Err((pair, why));
    };
    let (key_pem, chain_pem) = text.split_at(end);
    tracing::info!("a renewal that was cut short is ended");
    finish(files, certificate, key, chain_pem, key_pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;
    use proptest::prelude::*;

    #[test]
    fn before_two_thirds_and_not_before_half() {
        let (from, until) = (
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + Duration::from_secs(3000),
        );
        let seconds = |random| {
            let at = due(from, until, random);
            at.duration_since(from).unwrap_or_default().as_secs()
        };
        for random in [0, 1, 139, 140, 12_345, u32::MAX] {
            assert!((1500..2000).contains(&seconds(random)), "{random}");
        }
        assert_ne!(seconds(0), seconds(139));
    }

    #[test]
    fn failures_are_tried_again_ever_sooner() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let after = |left| again(now + Duration::from_secs(left), now).as_secs();
        assert_eq!(after(10_000_000), 3600);
        assert_eq!(after(600), 60);
        assert_eq!(after(3), 1);
        let since = |over| again(now - Duration::from_secs(over), now).as_secs();
        assert_eq!((since(5), since(600), since(10_000_000)), (1, 60, 3600));
    }

    /// Fails from the operation with this number on, as a power cut does.
    struct Cut {
        left: std::sync::atomic::AtomicUsize,
    }

    impl Cut {
        fn spend(&self) -> std::io::Result<()> {
            use std::sync::atomic::Ordering;
            let before = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
            before
                .map(drop)
                .map_err(|_| std::io::Error::other("the power is gone"))
        }
    }

    impl Files for Cut {
        fn create_dir(&self, path: &Path) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.create_dir(path))
        }
        fn open(&self, path: &Path) -> std::io::Result<std::fs::File> {
            self.spend().and_then(|()| Disk.open(path))
        }
        fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            match self.spend() {
                Ok(()) => Disk.write(path, bytes),
                Err(gone) => Disk.write(path, half).and(Err(gone)),
            }
        }
        fn append(&self, file: &mut std::fs::File, bytes: &[u8]) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.append(file, bytes))
        }
        fn truncate(&self, file: &std::fs::File, len: u64) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.truncate(file, len))
        }
        fn sync(&self, path: &Path) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.sync(path))
        }
        fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.sync_dir(path))
        }
        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.rename(from, to))
        }
        fn remove(&self, path: &Path) -> std::io::Result<()> {
            self.spend().and_then(|()| Disk.remove(path))
        }
    }

    #[test]
    fn a_power_cut_at_any_step_leaves_a_whole_identity() {
        let key = |name: &str| {
            format!("-----BEGIN PRIVATE KEY-----\n{name}\n-----END PRIVATE KEY-----\n")
        };
        for step in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let (certificate, secret) = (dir.path().join("x.crt"), dir.path().join("x.key"));
            std::fs::write(&certificate, "old chain").unwrap();
            std::fs::write(&secret, key("old")).unwrap();
            let cut = Cut {
                left: std::sync::atomic::AtomicUsize::new(step),
            };
            let done = swap(&cut, &certificate, &secret, "new chain", &key("new")).is_ok();
            recover(&Disk, &certificate, &secret).unwrap();
            let found = (
                std::fs::read_to_string(&certificate).unwrap(),
                std::fs::read_to_string(&secret).unwrap(),
            );
            let (old, new) = (
                ("old chain".to_owned(), key("old")),
                ("new chain".to_owned(), key("new")),
            );
            assert!(found == new || (!done && found == old), "{step}: {found:?}");
            assert!(done || step < 13, "{step}");
            assert!(!pending(&certificate).exists());
        }
    }

    #[test]
    fn a_chain_leads_to_the_root_or_nowhere() {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let key = || KeyPair::generate().unwrap();
        let root = rcgen::CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
        let other = rcgen::CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
        let upper = rcgen::CertifiedIssuer::signed_by(authority("upper"), key(), &root).unwrap();
        let lower = rcgen::CertifiedIssuer::signed_by(authority("lower"), key(), &upper).unwrap();
        let leaf = CertificateParams::default()
            .signed_by(&key(), &lower)
            .unwrap();
        let known = [&other, &lower, &root, &upper].map(|one| one.der().clone());
        let only = |root: &rcgen::CertifiedIssuer<'_, KeyPair>| [root.der().clone()];
        let chain = chain_to(&only(&root), leaf.der(), &known).unwrap();
        let expected = [leaf.der(), lower.der(), upper.der()];
        assert!(chain.iter().eq(expected));
        assert_eq!(chain_to(&only(&other), leaf.der(), &known), None);
        assert_eq!(chain_to(&only(&root), leaf.der(), &known[..2]), None);
    }

    #[test]
    fn nothing_lasts_beyond_what_signed_it() {
        let until = |end: u64| (SystemTime::UNIX_EPOCH + Duration::from_secs(end)).into();
        let authority = |name: &str, end: u64| {
            let mut params = CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_after = until(end);
            params
        };
        let key = || KeyPair::generate().unwrap();
        let root =
            rcgen::CertifiedIssuer::self_signed(authority("root", 3_000_000_000), key()).unwrap();
        let chain = |issuing: u64, leaf: u64| {
            let params = authority("issuing", issuing);
            let issuing = rcgen::CertifiedIssuer::signed_by(params, key(), &root).unwrap();
            let mut params = CertificateParams::default();
            params.not_after = until(leaf);
            let leaf = params.signed_by(&key(), &issuing).unwrap();
            outlives(
                &[leaf.der().clone(), issuing.der().clone()],
                &[root.der().clone()],
            )
        };
        assert!(!chain(2_000_000_000, 2_000_000_000));
        assert!(chain(2_000_000_000, 2_000_000_001));
        assert!(chain(3_000_000_001, 2_000_000_000));
        assert!(!chain(3_000_000_000, 3_000_000_000));
    }

    proptest! {
        #[test]
        fn no_answer_makes_trouble(answer in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(certificate(&answer).is_err());
            prop_assert!(certificate(BASE64.encode(&answer).as_bytes()).is_err());
        }
    }
}
