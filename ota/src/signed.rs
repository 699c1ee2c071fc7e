//! Signed documents in TUF's frame, `{"signed": …, "signatures": […]}`, and the one place where signatures are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::SystemTime;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::canonical;
use crate::{Error, KeyId, PublicKey, ReleaseKey};

/// Most signatures a document may carry; each costs a verification.
pub const MAX_SIGNATURES: usize = 64;

#[derive(Clone, Serialize, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

/// A document as it came: nothing in it is believed before [`Document::check`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) signed: Value,
    signatures: Vec<Signature>,
}

/// Who may speak in a role and how many of them it takes.
#[derive(Clone, Debug)]
pub(crate) struct Quorum {
    pub(crate) keys: BTreeMap<KeyId, PublicKey>,
    pub(crate) threshold: NonZeroU32,
}

/// A key that can judge a signature. Two that compare equal are one key, whatever its ids.
pub(crate) trait Verifier: Ord {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool;
}

impl Verifier for PublicKey {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Self::verifies(self, message, signature)
    }
}

/// What the signatures of a document came to.
pub(crate) struct Tally {
    /// Distinct trusted keys whose signature verifies.
    pub(crate) have: u32,
    /// The id of a trusted key whose signature does not verify.
    altered: Option<String>,
    /// A key id that is none of the quorum's.
    stranger: Option<String>,
}

impl Document {
    /// Reads a document of at most `bound` bytes.
    pub(crate) fn parse(what: &'static str, bytes: &[u8], bound: usize) -> Result<Self, Error> {
        if bytes.len() > bound {
            return Err(Error::TooLarge {
                what,
                bytes: bytes.len() as u64,
                bound: bound as u64,
            });
        }
        let document: Self = serde_json::from_slice(bytes).map_err(|error| Error::Malformed {
            what,
            why: error.to_string(),
        })?;
        if document.signatures.len() > MAX_SIGNATURES {
            return Err(Error::Malformed {
                what,
                why: format!(
                    "it carries {} signatures; at most {MAX_SIGNATURES} are read",
                    document.signatures.len()
                ),
            });
        }
        Ok(document)
    }

    pub(crate) fn new(signed: Value) -> Self {
        Self {
            signed,
            signatures: Vec::new(),
        }
    }

    /// Adds a signature by each of `keys` that has none yet.
    pub(crate) fn sign<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k ReleaseKey>,
    ) -> Result<(), Error> {
        let message = canonical(&self.signed)?;
        for key in keys {
            let keyid = key.public().id()?.to_string();
            self.signatures.retain(|known| known.keyid != keyid);
            self.signatures.push(Signature {
                keyid,
                sig: HEXLOWER.encode(&key.sign(&message)?),
            });
        }
        Ok(())
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::Canonical {
            why: error.to_string(),
        })
    }

    /// Counts distinct keys of `quorum` that signed: a signature given twice, or one key under two ids,
    /// counts once; keys that are not the quorum's count nothing.
    pub(crate) fn tally(&self, quorum: &Quorum) -> Result<Tally, Error> {
        self.tally_by(|id| quorum.keys.get(&id.parse::<KeyId>().ok()?))
    }

    /// As [`Document::tally`], where `find` knows the trusted keys by their ids.
    pub(crate) fn tally_by<'k, K: Verifier + 'k>(
        &self,
        find: impl Fn(&str) -> Option<&'k K>,
    ) -> Result<Tally, Error> {
        let message = canonical(&self.signed)?;
        let mut signers = BTreeSet::new();
        let mut tally = Tally {
            have: 0,
            altered: None,
            stranger: None,
        };
        for signature in &self.signatures {
            let brief = || signature.keyid.chars().take(64).collect();
            let Some(key) = find(&signature.keyid) else {
                tally.stranger.get_or_insert_with(brief);
                continue;
            };
            let verifies = HEXLOWER_PERMISSIVE
                .decode(signature.sig.as_bytes())
                .is_ok_and(|sig| key.verifies(&message, &sig));
            if !verifies {
                tally.altered.get_or_insert_with(brief);
            } else if signers.insert(key) {
                tally.have += 1;
            }
        }
        Ok(tally)
    }

    /// The key ids of the signatures it carries, whatever they are worth.
    pub(crate) fn signers(&self) -> impl Iterator<Item = &str> {
        self.signatures
            .iter()
            .map(|signature| signature.keyid.as_str())
    }

    /// A key id that stands more than once among the signatures.
    pub(crate) fn repeated(&self) -> Option<&str> {
        let mut seen = BTreeSet::new();
        self.signatures
            .iter()
            .map(|signature| signature.keyid.as_str())
            .find(|id| !seen.insert(*id))
    }

    /// Refuses a document that `quorum` (of trust root version `root`) did not sign to its threshold, in
    /// the words that fit.
    pub(crate) fn check(&self, what: &str, quorum: &Quorum, root: u64) -> Result<(), Error> {
        let what = || what.to_owned();
        if self.signatures.is_empty() {
            return Err(Error::Unsigned { what: what() });
        }
        let need = quorum.threshold.get();
        let tally = self.tally(quorum)?;
        match tally {
            Tally { have, .. } if have >= need => Ok(()),
            Tally {
                altered: Some(key), ..
            } => Err(Error::Altered { what: what(), key }),
            Tally {
                have: 0, stranger, ..
            } => Err(Error::KeyNotTrusted {
                what: what(),
                key: stranger.unwrap_or_default(),
                root,
            }),
            Tally { have, .. } => Err(Error::Short {
                what: what(),
                have,
                need,
            }),
        }
    }
}

/// Adds signatures to a trust root or manifest that others have signed already, so that holders of the
/// release keys can sign one after the other, each on their own machine.
///
/// # Errors
/// [`Error::Malformed`] where `bytes` is no signed document.
pub fn co_sign(bytes: &[u8], keys: &[ReleaseKey]) -> Result<Vec<u8>, Error> {
    let mut document = Document::parse(
        "document to sign",
        bytes,
        crate::manifest::MAX_MANIFEST_BYTES,
    )?;
    document.sign(keys)?;
    document.to_bytes()
}

/// `YYYY-MM-DDTHH:MM:SSZ` (TUF 1.0 §4.2.1).
pub(crate) fn write_time(time: SystemTime) -> Result<String, Error> {
    let stamp = Timestamp::try_from(time).map_err(|error| Error::Time {
        why: error.to_string(),
    })?;
    let whole = Timestamp::from_second(stamp.as_second()).map_err(|error| Error::Time {
        why: error.to_string(),
    })?;
    Ok(whole.to_string())
}

pub(crate) fn read_time(what: &'static str, text: &str) -> Result<SystemTime, Error> {
    text.parse::<Timestamp>()
        .map(SystemTime::from)
        .map_err(|error| Error::Malformed {
            what,
            why: format!("`expires`: {error}"),
        })
}

/// Refuses what has expired. A document is good until, not at, its last second (TUF 1.0 §5.3.10).
pub(crate) fn fresh(what: &str, expires: SystemTime, now: SystemTime) -> Result<(), Error> {
    if now < expires {
        return Ok(());
    }
    Err(Error::Expired {
        what: what.to_owned(),
        expires: write_time(expires)?,
        now: write_time(now)?,
    })
}
