//! The detailed client workflow (TUF 1.0 §5). The numbers beside the code are the specification's steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::key::Keys;
use super::metadata::{Kind, Metadata, Root, Snapshot, Targets, Timestamp};
use super::{
    MAX_ROLES, MAX_ROOT_BYTES, MAX_ROOTS, MAX_SNAPSHOT_BYTES, MAX_TARGETS_BYTES,
    MAX_TIMESTAMP_BYTES, Target, TufError,
};

/// Where metadata comes from.
pub trait Repository {
    /// The metadata file of this name (already percent-encoded), of which at most `bound` bytes are read;
    /// `None` where the repository has none.
    ///
    /// # Errors
    /// [`TufError::Fetch`] where it cannot be asked, [`TufError::TooLarge`] where the file is longer.
    fn metadata(&mut self, file: &str, bound: u64) -> Result<Option<Vec<u8>>, TufError>;
}

/// Where trusted metadata is kept, byte for byte as it came, under names from [`file_name`].
pub trait Datastore {
    /// What is kept under a name, if anything is; at most `bound` bytes of it.
    ///
    /// # Errors
    /// [`TufError::Store`], [`TufError::TooLarge`].
    fn load(&mut self, file: &str, bound: u64) -> Result<Option<Vec<u8>>, TufError>;

    /// Keeps `bytes` in place of what was there, as a whole.
    ///
    /// # Errors
    /// [`TufError::Store`].
    fn keep(&mut self, file: &str, bytes: &[u8]) -> Result<(), TufError>;

    /// Removes what is kept; nothing there is fine.
    ///
    /// # Errors
    /// [`TufError::Store`].
    fn forget(&mut self, file: &str) -> Result<(), TufError>;
}

/// RFC 3986 §2.3's unreserved characters stay.
const ROLE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The file name of a role's metadata: the role percent-encoded, `.json`. No role can name a file outside
/// its directory.
#[must_use]
pub fn file_name(role: &str) -> String {
    format!("{}.json", utf8_percent_encode(role, ROLE))
}

/// Checks that `bytes` are root metadata that its own root role signed, as a first root must be, and says
/// its version. Whether it has expired does not matter yet.
///
/// # Errors
/// [`TufError`] saying what is wrong with it.
pub fn verify_root(bytes: &[u8]) -> Result<u64, TufError> {
    first_root(bytes).map(|root| root.version)
}

fn first_root(bytes: &[u8]) -> Result<Metadata<Root>, TufError> {
    let root = Metadata::<Root>::read("root", bytes)?;
    signed_by_root(&root, &root)?;
    Ok(root)
}

/// Checks metadata of a top-level role against the root's keys for it.
fn signed_by_root<T: Kind>(metadata: &Metadata<T>, root: &Metadata<Root>) -> Result<(), TufError> {
    metadata.signed_by(
        root.body.role(T::TYPE),
        root.body.keys(),
        &format!("root version {}", root.version),
    )
}

/// How a targets role was reached: `targets`, then each delegated role down to it.
type Way = Vec<String>;

/// Metadata that is kept, and its bytes.
struct Kept<T> {
    metadata: Metadata<T>,
    bytes: Vec<u8>,
}

/// One update cycle.
pub struct Client<R, D> {
    repository: R,
    datastore: D,
    now: SystemTime,
    root: Metadata<Root>,
    snapshot: Option<Metadata<Snapshot>>,
    /// Targets metadata loaded in this cycle: a role reached another way is judged anew, by the keys of
    /// that way.
    targets: BTreeMap<Way, Metadata<Targets>>,
}

impl<R: Repository, D: Datastore> Client<R, D> {
    /// Begins an update cycle with the trusted root that is kept. `now` is the time the whole cycle is
    /// judged by (TUF 1.0 §5.1).
    ///
    /// # Errors
    /// [`TufError::NoRoot`] where none is kept, and what else is wrong with it.
    pub fn open(repository: R, mut datastore: D, now: SystemTime) -> Result<Self, TufError> {
        // 5.2: load the trusted root metadata.
        let bytes = datastore
            .load(&file_name("root"), MAX_ROOT_BYTES)?
            .ok_or(TufError::NoRoot)?;
        let root = first_root(&bytes)?;
        Ok(Self {
            repository,
            datastore,
            now,
            root,
            snapshot: None,
            targets: BTreeMap::new(),
        })
    }

    /// Brings root, timestamp, snapshot and the top-level targets metadata up to date.
    ///
    /// # Errors
    /// [`TufError`]; what was verified before stays kept and trusted.
    pub fn refresh(&mut self) -> Result<(), TufError> {
        self.update_root()?;
        let timestamp = self.update_timestamp()?;
        self.update_snapshot(&timestamp)?;
        self.load_targets(&vec!["targets".into()])?;
        Ok(())
    }

    /// Finds what trusted metadata says of the target at `path`. To be called after
    /// [`Client::refresh`], any number of times.
    ///
    /// # Errors
    /// [`TufError::NoTarget`], and those of the delegated roles on the way: one that cannot be validated
    /// ends the search.
    pub fn target(&mut self, path: &str) -> Result<Target, TufError> {
        // 5.6.7: pre-order depth-first, beginning with the top-level targets role.
        let mut visited = BTreeSet::new();
        let mut waiting: Vec<Way> = vec![vec!["targets".into()]];
        while let Some(way) = waiting.pop() {
            // 5.6.7.1: no role twice, and not more than so many.
            let role = way.last().cloned().unwrap_or_default();
            if visited.contains(&role) {
                continue;
            }
            if visited.len() > MAX_ROLES {
                return Err(TufError::TooManyRoles {
                    path: path.into(),
                    most: MAX_ROLES,
                });
            }
            let consistent = self.root.body.consistent();
            let targets = &self.load_targets(&way)?.body;
            if let Some(file) = targets.targets.get(path) {
                return Ok(Target {
                    path: path.into(),
                    file: file.clone(),
                    consistent,
                });
            }
            // 5.6.7.2: its delegations in order of appearance.
            let delegations = targets.delegations.iter();
            let mut children = Vec::new();
            for child in delegations.flat_map(|delegations| delegations.children(path)) {
                children.push(way.iter().cloned().chain([child.name]).collect());
                // 5.6.7.2.1: behind a terminating delegation nobody else is asked.
                if child.terminating {
                    waiting.clear();
                    break;
                }
            }
            waiting.extend(children.into_iter().rev());
            visited.insert(role);
        }
        // 5.7.2
        Err(TufError::NoTarget { path: path.into() })
    }

    /// 5.3: update the root role.
    fn update_root(&mut self) -> Result<(), TufError> {
        for _ in 0..MAX_ROOTS {
            // 5.3.2, 5.3.3: version N+1; where there is none, or after so many, go on with 5.3.10.
            let Some(wanted) = self.root.version.checked_add(1) else {
                break;
            };
            let file = format!("{wanted}.root.json");
            let Some(bytes) = self.repository.metadata(&file, MAX_ROOT_BYTES)? else {
                break;
            };
            let next = Metadata::<Root>::read("root", &bytes)?;
            // 5.3.4: signed by the threshold of version N and of its own.
            signed_by_root(&next, &self.root)?;
            signed_by_root(&next, &next)?;
            // 5.3.5: exactly one higher. 5.3.6: its expiry does not matter yet.
            next.is_version(wanted)?;
            // 5.3.11: where timestamp or snapshot keys were rotated, what they signed is no measure for
            // what the new ones sign. Done before the root is kept, so that a power cut between the two
            // cannot leave the new root beside what it was made to void.
            let rotated = |role| self.root.body.rotated(&next.body, role);
            if rotated("timestamp") || rotated("snapshot") {
                self.datastore.forget(&file_name("timestamp"))?;
                self.datastore.forget(&file_name("snapshot"))?;
            }
            // 5.3.7, 5.3.8: trusted and kept. 5.3.9: again.
            self.datastore.keep(&file_name("root"), &bytes)?;
            self.root = next;
        }
        // 5.3.10: freeze attack. 5.3.12 is read from the root wherever it matters.
        self.root.fresh(self.now)
    }

    /// 5.4: update the timestamp role.
    fn update_timestamp(&mut self) -> Result<Metadata<Timestamp>, TufError> {
        let file = file_name("timestamp");
        let trusted = self
            .kept::<Timestamp>(MAX_TIMESTAMP_BYTES)?
            .map(|kept| kept.metadata);
        // 5.4.1
        let bytes = self
            .repository
            .metadata("timestamp.json", MAX_TIMESTAMP_BYTES)?
            .ok_or_else(|| missing("timestamp.json"))?;
        let new = Metadata::<Timestamp>::read("timestamp", &bytes)?;
        // 5.4.2
        signed_by_root(&new, &self.root)?;
        if let Some(trusted) = trusted {
            // 5.4.3.1: a version below the trusted one is refused, an equal one discarded.
            no_rollback("timestamp metadata", new.version, trusted.version)?;
            if new.version == trusted.version {
                trusted.fresh(self.now)?;
                return Ok(trusted);
            }
            // 5.4.3.2: nor may the snapshot's version go back.
            if let (Some(new), Some(trusted)) = (new.body.snapshot(), trusted.body.snapshot()) {
                no_rollback("snapshot metadata", new.version, trusted.version)?;
            }
        }
        // 5.4.4
        new.fresh(self.now)?;
        // 5.4.5
        self.datastore.keep(&file, &bytes)?;
        Ok(new)
    }

    /// 5.5: update the snapshot role.
    fn update_snapshot(&mut self, timestamp: &Metadata<Timestamp>) -> Result<(), TufError> {
        let announced = timestamp
            .body
            .snapshot()
            .ok_or_else(|| missing("snapshot.json"))?;
        let trusted = self.kept::<Snapshot>(MAX_SNAPSHOT_BYTES)?;
        let trusted = match trusted {
            // What is kept already is the announced one: nothing to fetch.
            Some(Kept { metadata, bytes })
                if metadata.version == announced.version
                    && announced.fits("snapshot", &bytes).is_ok()
                    && metadata.fresh(self.now).is_ok() =>
            {
                self.snapshot = Some(metadata);
                return Ok(());
            }
            trusted => trusted.map(|kept| kept.metadata),
        };
        // 5.5.1
        let file = self.remote_name("snapshot", announced.version);
        let bound = bound("snapshot", announced.length, MAX_SNAPSHOT_BYTES)?;
        let bytes = self
            .repository
            .metadata(&file, bound)?
            .ok_or_else(|| missing(&file))?;
        // 5.5.2
        announced.fits("snapshot", &bytes)?;
        let new = Metadata::<Snapshot>::read("snapshot", &bytes)?;
        // 5.5.3
        signed_by_root(&new, &self.root)?;
        // 5.5.4
        new.is_version(announced.version)?;
        // 5.5.5: no targets role goes back, and none is withdrawn.
        for (file, trusted) in trusted.iter().flat_map(|trusted| &trusted.body.meta) {
            let new = new
                .body
                .meta
                .get(file)
                .ok_or_else(|| TufError::Withdrawn { file: file.clone() })?;
            no_rollback(&format!("`{file}`"), new.version, trusted.version)?;
        }
        // 5.5.6
        new.fresh(self.now)?;
        // 5.5.7
        self.datastore.keep(&file_name("snapshot"), &bytes)?;
        self.snapshot = Some(new);
        Ok(())
    }

    /// 5.6: targets metadata of the role at the end of `way`: from this cycle, from what is kept, or from
    /// the repository.
    fn load_targets(&mut self, way: &Way) -> Result<&Metadata<Targets>, TufError> {
        if !self.targets.contains_key(way) {
            let metadata = self.update_targets(way)?;
            self.targets.insert(way.clone(), metadata);
        }
        self.targets
            .get(way)
            .ok_or_else(|| TufError::NotInSnapshot { role: way.concat() })
    }

    fn update_targets(&mut self, way: &Way) -> Result<Metadata<Targets>, TufError> {
        let role = way.last().map_or("", String::as_str);
        let announced = self
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.body.meta.get(&format!("{role}.json")))
            .cloned()
            .ok_or_else(|| TufError::NotInSnapshot { role: role.into() })?;
        let judge = |client: &Self, bytes: &[u8]| {
            // 5.6.2
            announced.fits(&format!("`{role}`"), bytes)?;
            let metadata = Metadata::<Targets>::read(role, bytes)?;
            // 5.6.3
            client.signed_by_delegator(&metadata, way)?;
            // 5.6.4
            metadata.is_version(announced.version)?;
            // 5.6.5
            metadata.fresh(client.now)?;
            Ok(metadata)
        };
        let name = file_name(role);
        if let Ok(Some(bytes)) = self.datastore.load(&name, MAX_TARGETS_BYTES)
            && let Ok(metadata) = judge(self, &bytes)
        {
            return Ok(metadata);
        }
        // 5.6.1
        let file = self.remote_name(role, announced.version);
        let bound = bound(role, announced.length, MAX_TARGETS_BYTES)?;
        let bytes = self
            .repository
            .metadata(&file, bound)?
            .ok_or_else(|| missing(&file))?;
        let metadata = judge(self, &bytes)?;
        // 5.6.6
        self.datastore.keep(&name, &bytes)?;
        Ok(metadata)
    }

    fn signed_by_delegator(&self, metadata: &Metadata<Targets>, way: &Way) -> Result<(), TufError> {
        let Some((role, [.., delegator])) = way.split_last() else {
            return signed_by_root(metadata, &self.root);
        };
        let delegations = way
            .get(..way.len() - 1)
            .and_then(|way| self.targets.get(way))
            .and_then(|delegator| delegator.body.delegations.as_ref());
        let nobody = Keys::default();
        metadata.signed_by(
            delegations.and_then(|delegations| delegations.role(role)),
            delegations.map_or(&nobody, |delegations| &delegations.keys),
            &format!("`{delegator}`"),
        )
    }

    /// Kept metadata of a top-level role. What the present root's keys do not verify is as good as not
    /// there; whether it has expired does not matter for what it is needed for.
    fn kept<T: Kind>(&mut self, bound: u64) -> Result<Option<Kept<T>>, TufError> {
        let bytes = match self.datastore.load(&file_name(T::TYPE), bound) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(TufError::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = Metadata::<T>::read(T::TYPE, &bytes)
            .and_then(|metadata| signed_by_root(&metadata, &self.root).map(|()| metadata));
        Ok(metadata.ok().map(|metadata| Kept { metadata, bytes }))
    }

    /// A role's file in the repository: with consistent snapshots its version stands before the name
    /// (TUF 1.0 §5.5.1, §5.6.1).
    fn remote_name(&self, role: &str, version: u64) -> String {
        if self.root.body.consistent() {
            format!("{version}.{}", file_name(role))
        } else {
            file_name(role)
        }
    }
}

fn missing(file: &str) -> TufError {
    TufError::Missing { file: file.into() }
}

fn no_rollback(what: &str, version: u64, trusted: u64) -> Result<(), TufError> {
    if version >= trusted {
        return Ok(());
    }
    Err(TufError::Rollback {
        what: what.into(),
        version,
        trusted,
    })
}

/// How much to read of a file that is announced with `length`. An online key must not make a client read
/// without end.
fn bound(role: &str, length: Option<u64>, most: u64) -> Result<u64, TufError> {
    match length {
        Some(length) if length > most => Err(TufError::TooLarge {
            what: format!("{role} metadata"),
            bound: most,
        }),
        Some(length) => Ok(length),
        None => Ok(most),
    }
}
