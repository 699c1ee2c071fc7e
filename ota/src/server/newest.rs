//! The roles that the server's online key signs: which targets documents are the newest, and that this was
//! still so a short while ago. Signed when somebody asks, and kept until it is no longer so or half of its
//! time is over.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use store::Stored;

use super::records::key;
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::newest::{snapshot, timestamp};
use crate::{Error, ReleaseKey, Root, Targets};

/// How long a snapshot is good.
pub const SNAPSHOT_SECONDS: u64 = 7 * 24 * 60 * 60;
/// How long a timestamp is good: as long as a device can be kept from seeing what is newer by somebody
/// between it and the server.
pub const TIMESTAMP_SECONDS: u64 = 24 * 60 * 60;

/// What was signed last.
#[derive(Serialize, Deserialize)]
pub(super) struct NewestRow {
    /// The root whose keys it was signed for.
    root: u64,
    files: BTreeMap<String, u64>,
    snapshot: Signed,
    timestamp: Signed,
}
impl Stored for NewestRow {}

#[derive(Clone, Serialize, Deserialize)]
struct Signed {
    version: u64,
    /// Seconds since 1970.
    at: u64,
    json: String,
}

impl Signed {
    /// Whether less than half of its time is over. A clock that was set back makes a new one.
    fn holds(&self, now: u64, life: u64) -> bool {
        (self.at..self.at.saturating_add(life / 2)).contains(&now)
    }
}

/// Snapshot and timestamp, as they are served.
pub(super) struct Newest {
    snapshot: Signed,
    timestamp: Signed,
}

impl Newest {
    /// The document of one of the two roles.
    pub(super) fn document(self, role: &str) -> Option<String> {
        match role {
            "snapshot" => Some(self.snapshot.json),
            "timestamp" => Some(self.timestamp.json),
            _ => None,
        }
    }

    /// A role's version and when it expires.
    pub(super) fn stands(&self, role: &str) -> (u64, SystemTime) {
        let (signed, life) = match role {
            "snapshot" => (&self.snapshot, SNAPSHOT_SECONDS),
            _ => (&self.timestamp, TIMESTAMP_SECONDS),
        };
        let expires = UNIX_EPOCH + Duration::from_secs(signed.at.saturating_add(life));
        (signed.version, expires)
    }
}

/// Reads the online key, made at the first start.
pub(super) fn online(dir: &Path) -> Result<ReleaseKey, Error> {
    let pem = std::fs::read_to_string(dir.join("online.key")).map_err(|source| Error::Io {
        what: "reading firmware/online.key",
        source,
    })?;
    ReleaseKey::from_pem(&zeroize::Zeroizing::new(pem))
}

impl Ota {
    /// Why this server serves no snapshot and timestamp, in words; `None` where it does.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn serves_no_repository_because(&self) -> Result<Option<&'static str>, Error> {
        let Some((_, root)) = self.newest_root()? else {
            return Ok(Some(
                "no release keys are trusted yet: `muster firmware trust ROOT.json`",
            ));
        };
        if !root.leaves_newest_to(self.inner.online.public())? {
            return Ok(Some(
                "the trust root does not name this server's online key: make the next one with `muster firmware root --online DIR/firmware/online.pub`",
            ));
        }
        if self.delegations(&root)?.is_none() {
            return Ok(Some(
                "there is no targets document by the release keys: make one with `muster firmware index` and give it with `muster firmware trust`",
            ));
        }
        Ok(None)
    }

    /// Snapshot and timestamp of now; `None` where the trust root does not leave them to this server.
    pub(super) fn newest(
        &self,
        root: &Root,
        top: &Targets,
        now: SystemTime,
    ) -> Result<Option<Newest>, Error> {
        let online = &self.inner.online;
        if !root.leaves_newest_to(online.public())? {
            return Ok(None);
        }
        let _turn = self.turn();
        let mut files = BTreeMap::from([("targets.json".to_owned(), top.version())]);
        for delegate in top.delegates() {
            if let Some((_, listed)) = self.delegated(top, delegate.name())? {
                files.insert(format!("{}.json", delegate.name()), listed.version());
            }
        }
        let second = seconds(now);
        let mut rows = Transaction::new(&self.inner.table);
        let known = rows.get::<NewestRow>(key::NEWEST)?;
        let same = known
            .as_ref()
            .filter(|row| row.files == files && row.root == root.version());
        let until = |life| UNIX_EPOCH + Duration::from_secs(second.saturating_add(life));
        // From the clock, so that a server that was set back to an old copy of itself does not say
        // again what it has said.
        let next = |known: Option<&Signed>| {
            known.map_or(second.max(1), |known| {
                second.max(known.version.saturating_add(1))
            })
        };
        let kept = same
            .map(|row| &row.snapshot)
            .filter(|signed| signed.holds(second, SNAPSHOT_SECONDS));
        let snapshot = match kept {
            Some(signed) => signed.clone(),
            None => {
                let version = next(known.as_ref().map(|row| &row.snapshot));
                Signed {
                    version,
                    at: second,
                    json: snapshot(&files, version, until(SNAPSHOT_SECONDS), online)?,
                }
            }
        };
        let kept = same
            .map(|row| &row.timestamp)
            .filter(|signed| signed.holds(second, TIMESTAMP_SECONDS) && kept.is_some());
        if let Some(timestamp) = kept {
            return Ok(Some(Newest {
                timestamp: timestamp.clone(),
                snapshot,
            }));
        }
        let version = next(known.as_ref().map(|row| &row.timestamp));
        let timestamp = Signed {
            version,
            at: second,
            json: timestamp(snapshot.version, version, until(TIMESTAMP_SECONDS), online)?,
        };
        let row = NewestRow {
            root: root.version(),
            files,
            snapshot,
            timestamp,
        };
        rows.put(key::NEWEST.to_owned(), &row)?;
        rows.commit()?;
        Ok(Some(Newest {
            snapshot: row.snapshot,
            timestamp: row.timestamp,
        }))
    }
}
