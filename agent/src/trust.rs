//! Which release keys this device believes.
//!
//! The first trust root comes with the identity or `--trust`; where neither has one, once from
//! the server. From then on only a successor that the known root's threshold signed is believed
//! (TUF 1.0 §5.3), and the newest one is kept in the state directory. A server can keep a
//! successor back, which ends when the root or the manifest expires; it cannot bring its own.

use std::path::Path;
use std::time::SystemTime;

use ota::{Root, Targets};

use crate::AgentError;
use crate::files;
use crate::https::{Client, HttpFault};
use crate::state::StateDir;

/// How many successors are followed at once (TUF 1.0 §5.3.3 asks for such a bound).
pub(crate) const SUCCESSORS_MAX: u32 = 64;

/// The largest trust root file given on the command line.
const ROOT_BYTES_MAX: u64 = 1 << 20;

/// Where the server has the release team's targets document.
const DELEGATIONS: &str = "/firmware/tuf/metadata/targets.json";

/// Why there is no root to judge by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrustFault {
    /// Worth trying again.
    Passing(String),
    /// The server has none, or the disk will not keep it.
    Unavailable(String),
    /// What the server offers as the next root is not one.
    Refused(String),
}

impl From<HttpFault> for TrustFault {
    fn from(fault: HttpFault) -> Self {
        match fault {
            HttpFault::Passing(words) => Self::Passing(words),
            HttpFault::NotFound(words) | HttpFault::Final(words) => Self::Unavailable(words),
        }
    }
}

/// Adopts the trust root given with the device, unless the device has one already. To be called
/// at start, so that a bad file is known before any job.
///
/// # Errors
/// [`AgentError::TrustRoot`] naming the file.
pub(crate) fn adopt(state: &StateDir, given: Option<&Path>) -> Result<(), AgentError> {
    let kept = kept(state)?;
    let Some(path) = given else { return Ok(()) };
    let fault = |what: String| AgentError::TrustRoot {
        path: path.to_path_buf(),
        what,
    };
    let size = std::fs::metadata(path)
        .map_err(|error| fault(error.to_string()))?
        .len();
    if size > ROOT_BYTES_MAX {
        return Err(fault(format!(
            "has {size} bytes, more than {ROOT_BYTES_MAX}"
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    let given = Root::read(&bytes).map_err(|error| fault(error.to_string()))?;
    match kept {
        None => keep(state, &bytes).map_err(fault),
        Some(kept) if given.version() <= kept.version() => Ok(()),
        Some(kept) => match kept.successor(&bytes) {
            Ok(_) => keep(state, &bytes).map_err(fault),
            Err(error) => Err(fault(format!(
                "{error}. This device already trusts version {}, kept in {}; only what that one signed is believed",
                kept.version(),
                state.trust_root().display()
            ))),
        },
    }
}

/// The newest root there is: the kept one, or the server's first, followed through all its
/// successors on the server.
///
/// # Errors
/// [`TrustFault`]; the roots believed up to there are kept.
pub(crate) fn newest(state: &StateDir, client: &Client) -> Result<Root, TrustFault> {
    let unavailable = |error: AgentError| TrustFault::Unavailable(error.to_string());
    let mut root = match kept(state).map_err(unavailable)? {
        Some(root) => root,
        None => first(state, client)?,
    };
    for _ in 0..SUCCESSORS_MAX {
        let bytes = match client.document(&path(root.version().saturating_add(1))) {
            Ok(bytes) => bytes,
            Err(HttpFault::NotFound(_)) => return Ok(root),
            Err(fault) => return Err(fault.into()),
        };
        let next = root
            .successor(&bytes)
            .map_err(|error| TrustFault::Refused(error.to_string()))?;
        keep(state, &bytes).map_err(TrustFault::Unavailable)?;
        tracing::info!(
            "trust root version {} follows version {}",
            next.version(),
            root.version()
        );
        root = next;
    }
    Ok(root)
}

/// The newest targets document of the release team, which says who else may sign what: the server's, where
/// it is no older than the kept one; the kept one where the server has none.
///
/// # Errors
/// [`TrustFault`].
pub(crate) fn delegations(
    state: &StateDir,
    client: &Client,
    root: &Root,
    now: SystemTime,
) -> Result<Option<Targets>, TrustFault> {
    let path = state.delegations();
    // One that the root no longer vouches for, or that a disk has spoilt, is no measure.
    let kept = match std::fs::read(&path) {
        Ok(bytes) => Targets::read(&bytes, root).ok(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(TrustFault::Unavailable(format!(
                "{}: {error}",
                path.display()
            )));
        }
    };
    let bytes = match client.document(DELEGATIONS) {
        Ok(bytes) => bytes,
        Err(HttpFault::NotFound(_)) => return Ok(kept),
        Err(fault) => return Err(fault.into()),
    };
    let refused = |error: ota::Error| TrustFault::Refused(error.to_string());
    let next = Targets::read(&bytes, root).map_err(refused)?;
    if let Some(kept) = kept {
        next.not_older_than(&kept).map_err(refused)?;
        if next.version() == kept.version() {
            return Ok(Some(kept));
        }
    }
    next.fresh(now).map_err(refused)?;
    files::replace(state.files(), &path, &bytes).map_err(|error| {
        TrustFault::Unavailable(format!("could not keep the delegations: {error}"))
    })?;
    Ok(Some(next))
}

fn first(state: &StateDir, client: &Client) -> Result<Root, TrustFault> {
    let bytes = client.document(&path(1))?;
    let root = Root::read(&bytes).map_err(|error| TrustFault::Refused(error.to_string()))?;
    keep(state, &bytes).map_err(TrustFault::Unavailable)?;
    tracing::warn!(
        "this device had no firmware trust root: took version {} from the server, this once. From now on only its successors are believed",
        root.version()
    );
    Ok(root)
}

fn path(version: u64) -> String {
    format!("/firmware/root/{version}.json")
}

/// The root that this device believes, where it has one.
///
/// # Errors
/// [`AgentError::TrustRoot`].
pub(crate) fn kept(state: &StateDir) -> Result<Option<Root>, AgentError> {
    let path = state.trust_root();
    let fault = |what: String| AgentError::TrustRoot {
        path: path.clone(),
        what,
    };
    match std::fs::read(&path) {
        Ok(bytes) => Root::read(&bytes)
            .map(Some)
            .map_err(|error| fault(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fault(error.to_string())),
    }
}

fn keep(state: &StateDir, bytes: &[u8]) -> Result<(), String> {
    files::replace(state.files(), &state.trust_root(), bytes)
        .map_err(|error| format!("could not keep the trust root: {error}"))
}
