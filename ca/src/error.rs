//! What can go wrong in the authority, each with its mend.

use std::io;
use std::path::PathBuf;

use crate::authority::IssuerNumber;
use crate::blocked::BlockedKeysError;
use crate::crl::RevocationReason;
use crate::custody::CustodyError;

/// An authority that could not be opened, or something it refused to sign.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// One of the authority's files is gone while others are there.
    #[error(
        "{} is missing though other files of the authority are there: restore it from a backup \
         (it is not made anew, because devices would not trust a new authority)",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A key that is there and cannot be opened.
    #[error("the key of {} cannot be opened: {mend}", path.display())]
    Locked {
        /// The file that holds it or leads to it.
        path: PathBuf,
        /// Why, and what is to be set.
        mend: String,
    },
    /// One of the authority's files is truncated, foreign or does not fit the others.
    #[error("{} {problem}: restore the file from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, following the file's name in a sentence.
        problem: String,
    },
    /// A private key that others may read.
    #[error(
        "{} can be read by other users (mode {mode:04o}): run `chmod 600` on it; if someone may \
         have copied it, the key is lost and the authority must be replaced",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory holds an authority, and another was to be founded there.
    #[error("{} holds an authority already: name another data directory", path.display())]
    AlreadyFounded {
        /// The directory.
        path: PathBuf,
    },
    /// Another authority is being founded beside it.
    #[error(
        "an authority is being founded in {} at this moment: let that come to its end first",
        path.display()
    )]
    Founding {
        /// The directory that they are founded in.
        path: PathBuf,
    },
    /// The directory holds something that is not an authority.
    #[error(
        "{} holds {found:?} but no authority: name an empty or new directory, or move what is \
         in it away",
        path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// One of the entries found.
        found: String,
    },
    /// An argument that no certificate may carry.
    #[error("{field} {value:?} is refused: {reason}")]
    Invalid {
        /// The argument.
        field: &'static str,
        /// Its value, shortened where long.
        value: String,
        /// Why, and what is accepted.
        reason: String,
    },
    /// A request for a certificate over one of the authority's own keys.
    #[error(
        "the key in the request is the authority's own {which} key: make a key pair for this \
         certificate alone"
    )]
    AuthorityKey {
        /// `root` or `issuing`.
        which: &'static str,
    },
    /// A request for a certificate over a key that others have.
    #[error(
        "the key is one that is known to others ({} has it): make a new key pair, on a system \
         whose random numbers are good",
        list.display()
    )]
    BlockedKey {
        /// The list that has it.
        list: PathBuf,
    },
    /// A list of blocked keys that cannot be asked: nothing is signed meanwhile.
    #[error(transparent)]
    BlockedKeys(#[from] BlockedKeysError),
    /// Something failed, and a key that was made for it stays where nothing leads to it.
    #[error(
        "{failed}; the key that was made for it stays in the token and is used by nothing ({uri}): remove it there ({why})"
    )]
    Orphaned {
        /// What failed.
        failed: Box<CaError>,
        /// The key, as a PKCS #11 URI.
        uri: String,
        /// Why it could not be removed.
        why: String,
    },
    /// The root's key is not with the server.
    #[error(
        "the root's key was taken offline: bring it for this act (--root-key FILE), or have the \
         request signed where it is"
    )]
    RootOffline,
    /// The issuing certificate is on its root's revocation list.
    #[error(
        "issuing certificate {number} is revoked ({reason}) and signs nothing any more: muster ca rotate-issuing makes the \
         next one; where no server starts, start once with --rotate-issuing"
    )]
    IssuerRevoked {
        /// Which.
        number: IssuerNumber,
        /// Why.
        reason: RevocationReason,
    },
    /// The clock stands outside the issuing certificate's life.
    #[error(
        "the clock says {now}, but the issuing certificate is valid from {not_before} until \
         {not_after}: set the clock right; where the certificate has really ended, start once with --rotate-issuing"
    )]
    OutsideIssuer {
        /// The time given, RFC 3339-like, UTC.
        now: String,
        /// Begin of the issuing certificate.
        not_before: String,
        /// End of the issuing certificate.
        not_after: String,
    },
    /// A certificate or list that is not what was meant; it was not signed, or thrown away.
    #[error("a certificate or list was not handed out, because {rule}: this is a fault in muster")]
    Lint {
        /// The rule it breaks.
        rule: String,
    },
    /// A certificate that cannot be read.
    #[error("the certificate cannot be read: {reason}")]
    Unreadable {
        /// Where reading stopped.
        reason: String,
    },
    /// The key's custodian did not sign.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// The encoder refused.
    #[error("the certificate could not be encoded: {0}")]
    Encode(#[from] rcgen::Error),
    /// The cryptographic library gave no key or no random octets.
    #[error("the cryptographic library failed to {0}")]
    Cryptography(&'static str),
}

/// A value as an error shows it: at most 100 characters.
pub(crate) fn shorten(value: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    if value.chars().count() <= SHOWN_CHARS {
        return value.to_owned();
    }
    value.chars().take(SHOWN_CHARS).chain(['…']).collect()
}

impl CaError {
    pub(crate) fn invalid(field: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            value: shorten(value),
            reason: reason.into(),
        }
    }
}
