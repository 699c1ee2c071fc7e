//! Gives a device that has no certificate one of its own: by a claim certificate over MQTT (`claim`), as AWS IoT's
//! fleet provisioning has it, or by a one-time password over EST (`est`, RFC 7030).
//!
//! The key is made here and never leaves. What has come so far lies in one file beside the identity that is to be
//! (`place`), each step on disk before the next request leaves: whoever was cut short goes on where they were, so that
//! a certificate that the server has made and taken for this device is never lost with an answer.

mod claim;
mod est;
mod place;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::agent::check_server;
use crate::backoff::{self, Backoff};
use crate::files::Files;
use crate::https::{CertificateFault, HttpFault};
use crate::identity::life;
use crate::renewal::{RenewalError, chain_to, outlives};
use crate::{AgentError, Disk};
pub use est::Fingerprint;
use place::{Place, Taken};

/// First and longest wait between two attempts, where the server does not ask for more.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest wait a server may ask for (`Retry-After`).
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How a device is enrolled.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// Where its identity is to be, as `muster device create` would write it; made if it is not there.
    pub identity: PathBuf,
    /// The server's name.
    pub server: String,
    /// Its MQTT port.
    pub mqtt_port: u16,
    /// Its HTTPS port.
    pub https_port: u16,
    /// By what it is let in.
    pub way: Way,
    /// How long to try on while the server cannot be reached or is busy; `None`: for ever.
    pub patience: Option<Duration>,
}

/// By what a device is let in.
#[derive(Clone, Debug)]
pub enum Way {
    /// A claim certificate, and a template that says what becomes of it.
    Claim {
        /// What `muster claim create` wrote: claim.crt, claim.key, root.crt.
        dir: PathBuf,
        /// The template's name.
        template: String,
        /// What the device says of itself to the template.
        parameters: BTreeMap<String, String>,
    },
    /// A one-time password.
    Password {
        /// The thing that it is for.
        thing: String,
        /// The file it stands in, alone on its line.
        file: PathBuf,
        /// What the server is known by.
        trust: Trust,
    },
}

/// What a server is known by to a device that has nothing of it yet.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Its authority's root certificates, in PEM.
    Roots(PathBuf),
    /// What its root certificate's fingerprint is; the certificate is asked for.
    Root(Fingerprint),
}

/// Why a device has no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It has one.
    #[error("--identity {}: holds {name}.crt: this device is enrolled already, start the agent with it. To make another device of it, name another directory or move this one away; for a certificate in the place of one that is lost or revoked, `muster device replace {name}`", dir.display())]
    Enrolled {
        /// The identity directory.
        dir: PathBuf,
        /// What the certificate's file is called.
        name: String,
    },
    /// There is a key of somebody's who is not known.
    #[error("--identity {}: holds {name}.key without its certificate, which is not written over: put {name}.crt back beside it, or move the key away if it is of no use", dir.display())]
    LoneKey {
        /// The identity directory.
        dir: PathBuf,
        /// What the key's file is called.
        name: String,
    },
    /// Somebody else is at it.
    #[error("--identity {}: another muster-agent is enrolling this device at this moment: let it end", dir.display())]
    Busy {
        /// The identity directory.
        dir: PathBuf,
    },
    /// Something that was given cannot be used.
    #[error("{field} {value:?}: {what}")]
    Given {
        /// The option.
        field: &'static str,
        /// As given; never a secret.
        value: String,
        /// What is wrong with it, and how to mend it.
        what: String,
    },
    /// A file cannot be written or read.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the file system said.
        why: std::io::Error,
    },
    /// No key, or no request for it, could be made.
    #[error("a key and a request could not be made: {0}")]
    Key(String),
    /// The server said no, or is not the one that this device trusts.
    #[error("not enrolled: {0}")]
    Refused(String),
    /// The server could not be asked, or was busy, for as long as it was tried.
    #[error("not enrolled within {} s: {why}. Said again, it goes on where it was", patience.as_secs())]
    Unreachable {
        /// How long it was tried.
        patience: Duration,
        /// What was wrong last.
        why: String,
    },
}

/// What came of one attempt.
#[derive(Debug)]
enum Fault {
    /// Worth trying again, after this time at least.
    Passing(String, Duration),
    /// No repetition mends it.
    Final(EnrolError),
}

impl Fault {
    fn passing(words: impl Into<String>) -> Self {
        Self::Passing(words.into(), Duration::ZERO)
    }

    fn refused(words: impl Into<String>) -> Self {
        Self::Final(EnrolError::Refused(words.into()))
    }
}

impl From<EnrolError> for Fault {
    fn from(error: EnrolError) -> Self {
        Self::Final(error)
    }
}

impl From<RenewalError> for Fault {
    fn from(error: RenewalError) -> Self {
        Self::refused(error.to_string())
    }
}

/// Enrols a device: when this returns, its identity lies whole and durable in its directory. Blocks; not to be called
/// from within an asynchronous runtime. Returns the thing's name.
///
/// # Errors
/// [`AgentError::Enrol`]; [`EnrolError::Enrolled`] where there is an identity, which stays as it is. Nothing that an
/// agent would take for one is there after any error, nor after a power cut at any step.
pub fn enrol(asked: &Enrolment) -> Result<String, AgentError> {
    check_server(&asked.server)?;
    Ok(enrol_on(asked, &Disk)?)
}

fn enrol_on(asked: &Enrolment, files: &dyn Files) -> Result<String, EnrolError> {
    asked.way.check()?;
    let mut place = match Place::take(&asked.identity, files)? {
        Taken::Whole(thing) => return Ok(thing),
        Taken::Open(place) => place,
    };
    let (began, mut backoff) = (Instant::now(), Backoff::new(AGAIN.0, AGAIN.1));
    loop {
        let done = match &asked.way {
            Way::Claim {
                dir,
                template,
                parameters,
            } => claim::attempt(asked, (dir, template, parameters), &mut place),
            Way::Password { thing, file, trust } => {
                est::attempt(asked, (thing, file, trust), &mut place)
            }
        };
        let (words, least) = match done {
            Ok(()) => return place.finish(),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Passing(words, least)) => (words, least),
        };
        let wait = backoff.next(backoff::random()).max(least.min(WAIT_MAX));
        if let Some(patience) = asked.patience
            && began.elapsed() + wait > patience
        {
            return Err(EnrolError::Unreachable {
                patience,
                why: words,
            });
        }
        tracing::warn!("not enrolled yet: {words}; trying again in {wait:?}");
        std::thread::sleep(wait);
    }
}

impl Way {
    fn check(&self) -> Result<(), EnrolError> {
        let given = |field, value: &str, what: &str| {
            Err(EnrolError::Given {
                field,
                value: value.to_owned(),
                what: what.to_owned(),
            })
        };
        match self {
            // It becomes a topic level.
            Self::Claim { template, .. } if !crate::identity::is_thing_name(template) => given(
                "--template",
                template,
                "not a template's name: 1 to 36 letters, digits, `_` and `-`, as `muster template list` has it",
            ),
            Self::Password { thing, .. } if !crate::identity::is_thing_name(thing) => given(
                "--thing",
                thing,
                "not a thing's name: 1 to 128 letters, digits, `:`, `_` and `-`, as it was given to `muster device enrol-password`",
            ),
            _ => Ok(()),
        }
    }
}

/// The chain of a certificate that the server gave for a key of this device's, leaf first and without the root.
fn chain_of(
    leaf: &CertificateDer<'static>,
    (key, thing): (&[u8], Option<&str>),
    known: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<Vec<CertificateDer<'static>>, RenewalError> {
    let unreadable = |_| RenewalError::Answer("it cannot be read");
    let (_, read) = X509Certificate::from_der(leaf).map_err(unreadable)?;
    if read.public_key().raw != key {
        return Err(RenewalError::Answer("its key is another"));
    }
    let name = read.subject().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok());
    if thing.is_some_and(|thing| name != Some(thing)) {
        return Err(RenewalError::Answer("its name is another"));
    }
    let (begins, ends) = life(&read);
    if ends < begins {
        return Err(RenewalError::Answer("it ends before it begins"));
    }
    let chain = chain_to(roots, leaf, known).ok_or(RenewalError::Answer(
        "it does not lead to a root that this device trusts",
    ))?;
    if outlives(&chain, roots) {
        return Err(RenewalError::Answer(
            "it, or what signed it, ends after the certificate above it",
        ));
    }
    Ok(chain)
}

/// The moment from which on a device may believe it is: the latest that something it trusts was signed.
fn signed(certificates: &[CertificateDer<'static>]) -> SystemTime {
    certificates
        .iter()
        .filter_map(|one| X509Certificate::from_der(one).ok())
        .map(|(_, one)| life(&one).0)
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What a request for a certificate that came to nothing means; `None` where the server said no for good.
fn passing(fault: &CertificateFault) -> Option<Fault> {
    match fault {
        CertificateFault::Unanswered(HttpFault::Final(words)) => {
            Some(Fault::refused(words.clone()))
        }
        CertificateFault::Unanswered(fault) => Some(Fault::passing(fault.words())),
        // 202 is an operator's to decide still (RFC 7030 §4.2.3).
        CertificateFault::Answered {
            status: status @ (202 | 408 | 425 | 429 | 500..=599),
            retry_after,
            words,
        } => Some(Fault::Passing(
            format!("the server answered {status}: {words}"),
            retry_after.unwrap_or_default(),
        )),
        CertificateFault::Answered { .. } => None,
    }
}

/// Why a server is not believed, in words for a device that is to be enrolled.
fn stranger(fault: &rustls::Error, server: &str, known_by: &str) -> Fault {
    use rustls::CertificateError;
    Fault::refused(match fault {
        // Another authority's, which may be called the same.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => format!(
            "the certificate of {server} was not issued under {known_by}: is --server the server it is from?"
        ),
        other => crate::tls::explain(other, server),
    })
}

/// Reads a file of at most `most` bytes that was named on the command line.
fn read_given(field: &'static str, path: &Path, most: u64) -> Result<Vec<u8>, EnrolError> {
    use std::io::Read as _;
    let given = |what: String| EnrolError::Given {
        field,
        value: path.display().to_string(),
        what,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|why| given(why.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(given(format!("has more than {most} bytes")));
    }
    Ok(bytes)
}
