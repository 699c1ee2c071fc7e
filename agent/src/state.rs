//! The state directory: one lock, one state file.
//!
//! ```text
//! STATE/lock              held while an agent runs
//! STATE/state.json        update::State
//! STATE/trust/root.json   the newest trust root believed
//! STATE/download/         the image being fetched
//! STATE/slots/a|b/        image, manifest.json, confirmed
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::AgentError;
use crate::files::{self, Files};
use crate::mark;
use crate::update::{Slot, State};

/// The version of the state file this agent writes.
const FORMAT: u32 = 1;

/// The largest state file that is read: 32 finished jobs with their reasons stay far below.
const STATE_BYTES_MAX: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    state: State,
}

/// What `muster-agent status --json` prints. All `None`/false before the first install.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Name of the image that runs (or is on trial).
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// The slot it lies in: `a` or `b`.
    pub slot: Option<Slot>,
    /// Whether it is on trial.
    pub trial: bool,
    /// Whether its health was confirmed, and it still is what was signed.
    pub confirmed: bool,
    /// What is wrong with a confirmed image that is not what was signed any more. Ordering its version again mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

impl Status {
    /// What the state says of the image that runs now.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let trial = state.on_trial();
        let image = trial.or(state.active.as_ref());
        Self {
            name: image.map(|image| image.name.clone()),
            version: image.map(|image| image.version.clone()),
            slot: image.map(|image| image.slot),
            trial: trial.is_some(),
            confirmed: trial.is_none() && image.is_some() && state.damage.is_none(),
            damage: state.damage.clone().filter(|_| trial.is_none()),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(name), Some(version), Some(slot)) = (&self.name, &self.version, self.slot) else {
            return f.write_str("no firmware installed yet");
        };
        write!(f, "{name} {version} in slot {}, ", slot.as_str())?;
        match &self.damage {
            Some(damage) => write!(f, "damaged: {damage}; order its version again"),
            None if self.trial => f.write_str("on trial"),
            None => f.write_str("confirmed"),
        }
    }
}

/// Reads the state of `dir` without taking its lock; an agent may be running on it.
///
/// # Errors
/// [`AgentError::State`] when it cannot be read or understood.
pub fn read(dir: &Path) -> Result<State, AgentError> {
    let path = dir.join("state.json");
    let fault = |what: String| fault(&path, what);
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(fault(error.to_string())),
        Ok(facts) if facts.len() > STATE_BYTES_MAX => {
            return Err(fault(format!(
                "it has {} bytes, more than {STATE_BYTES_MAX}",
                facts.len()
            )));
        }
        Ok(_) => {}
    }
    let bytes = std::fs::read(&path).map_err(|error| fault(error.to_string()))?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| AgentError::StateTorn {
        path: path.clone(),
        what: error.to_string(),
    })?;
    if stored.format > FORMAT {
        return Err(fault(format!(
            "it was written by a newer agent (format {}, this one knows {FORMAT}): run that one",
            stored.format
        )));
    }
    Ok(stored.state)
}

/// What is wrong with the state file.
pub(crate) fn fault(path: &Path, what: String) -> AgentError {
    AgentError::State {
        path: path.to_owned(),
        what,
    }
}

/// The state directory, held by this agent alone.
#[derive(Clone)]
pub struct StateDir {
    dir: PathBuf,
    files: Arc<dyn Files>,
    // The lock lives as long as the file is open.
    _lock: Arc<File>,
}

impl StateDir {
    /// Takes the directory, making it if needed.
    ///
    /// # Errors
    /// [`AgentError::StateInUse`] when another agent holds it, [`AgentError::State`] when it
    /// cannot be made or written.
    pub fn open(dir: &Path, files: Arc<dyn Files>) -> Result<Self, AgentError> {
        let fault = |error: io::Error| AgentError::State {
            path: dir.to_path_buf(),
            what: format!("{error} (--state must name a directory this user can write to)"),
        };
        let is_new = !dir.is_dir();
        for part in ["download", "trust", "slots"] {
            files.create_dir(&dir.join(part)).map_err(fault)?;
        }
        // Nothing below is durable before the way to it is.
        files.sync_dir(dir).map_err(fault)?;
        if is_new {
            let parent = dir.parent().filter(|parent| *parent != Path::new(""));
            let parent = parent.unwrap_or(Path::new("."));
            files.sync_dir(parent).map_err(fault)?;
        }
        let lock = files.open(&dir.join("lock")).map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AgentError::StateInUse {
                    dir: dir.to_path_buf(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            files,
            _lock: Arc::new(lock),
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The disk it lies on.
    #[must_use]
    pub fn files(&self) -> &dyn Files {
        self.files.as_ref()
    }

    /// Where the image being fetched lies.
    #[must_use]
    pub fn download(&self) -> PathBuf {
        self.dir.join("download")
    }

    /// Where the trust root believed lies.
    #[must_use]
    pub fn trust_root(&self) -> PathBuf {
        self.dir.join("trust").join("root.json")
    }

    /// Where the newest delegations believed lie, if the release team has made any.
    #[must_use]
    pub fn delegations(&self) -> PathBuf {
        self.dir.join("trust").join("targets.json")
    }

    /// Loads the state; the default one when there is none yet.
    ///
    /// # Errors
    /// See [`read`].
    pub fn load(&self) -> Result<State, AgentError> {
        read(&self.dir)
    }

    /// Makes the state durable, as a whole or not at all.
    ///
    /// # Errors
    /// [`AgentError::State`]; the old state stands.
    pub fn save(&self, state: &State) -> Result<(), AgentError> {
        let path = self.dir.join("state.json");
        let fault = |what: String| AgentError::State {
            path: path.clone(),
            what: format!("could not write it: {what}"),
        };
        let bytes = serde_json::to_vec(&Stored {
            format: FORMAT,
            state: state.clone(),
        })
        .map_err(|error| fault(error.to_string()))?;
        // Before the state says so: it was healthy by then.
        self.mark(state);
        files::replace(self.files.as_ref(), &path, &bytes).map_err(|error| fault(error.to_string()))
    }

    /// Marks the confirmed image as such, unless it is. Where the disk says no the log has it, and the next save and the
    /// next start try again: the mark is for the day that the state is lost.
    pub(crate) fn mark(&self, state: &State) {
        let Some(active) = &state.active else { return };
        if let Err(error) = mark::write(self.files.as_ref(), &self.dir, active) {
            tracing::warn!(
                "{}: could not mark the image as confirmed: {error}",
                mark::path(&self.dir, active.slot).display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;
    use crate::files::tests::PowerCut;
    use crate::update::{Current, Installed, JobKey, Order, Phase, Slot};

    fn installed(slot: Slot, version: &str) -> Installed {
        Installed {
            slot,
            name: "lamp".into(),
            version: version.into(),
            counter: 7,
            sha256: "00".repeat(32),
        }
    }

    fn trial() -> State {
        State {
            counter: 7,
            active: Some(installed(Slot::A, "1.0.0")),
            current: Some(Current {
                job: JobKey {
                    id: "job".into(),
                    execution: 2,
                },
                order: Order::new(
                    "lamp".parse().unwrap(),
                    "1.1.0".parse().unwrap(),
                    "r-1".parse().unwrap(),
                    true,
                ),
                phase: Phase::Trial {
                    image: installed(Slot::B, "1.1.0"),
                    boots: 1,
                },
            }),
            ..State::default()
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_status_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(dir.path(), Arc::new(Disk)).unwrap();
        let empty = Status::of(&state_dir.load().unwrap());
        assert_eq!(
            serde_json::to_string(&empty).unwrap(),
            r#"{"name":null,"version":null,"slot":null,"trial":false,"confirmed":false}"#
        );
        let mut state = trial();
        state_dir.save(&state).unwrap();
        assert_eq!(state_dir.load().unwrap(), state);
        assert_eq!(
            serde_json::to_string(&Status::of(&state)).unwrap(),
            r#"{"name":"lamp","version":"1.1.0","slot":"b","trial":true,"confirmed":false}"#
        );
        state.current = None;
        assert_eq!(
            serde_json::to_string(&Status::of(&state)).unwrap(),
            r#"{"name":"lamp","version":"1.0.0","slot":"a","trial":false,"confirmed":true}"#
        );
        state.damage = Some("the image in slot a is gone".into());
        state_dir.save(&state).unwrap();
        assert_eq!(state_dir.load().unwrap(), state);
        let damaged = Status::of(&state);
        assert_eq!(
            serde_json::to_string(&damaged).unwrap(),
            r#"{"name":"lamp","version":"1.0.0","slot":"a","trial":false,"confirmed":false,"damage":"the image in slot a is gone"}"#
        );
        assert_eq!(
            damaged.to_string(),
            "lamp 1.0.0 in slot a, damaged: the image in slot a is gone; order its version again"
        );
    }

    #[test]
    fn a_second_agent_on_the_same_directory_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path(), Arc::new(Disk)).unwrap();
        let error = StateDir::open(dir.path(), Arc::new(Disk)).err().unwrap();
        assert!(matches!(error, AgentError::StateInUse { .. }), "{error}");
        assert!(
            read(dir.path()).is_ok(),
            "status can be asked while an agent runs"
        );
        drop(first);
        StateDir::open(dir.path(), Arc::new(Disk)).unwrap();
    }

    #[test]
    fn a_state_of_a_newer_agent_or_torn_by_hand_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        std::fs::write(&path, r#"{"format":2,"counter":0,"finished":[]}"#).unwrap();
        assert!(
            read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("newer agent")
        );
        std::fs::write(&path, "{").unwrap();
        assert!(
            read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("state.json")
        );
    }

    #[test]
    fn a_power_cut_while_saving_leaves_the_old_or_the_new_state() {
        let dir = tempfile::tempdir().unwrap();
        for operations in 0..12 {
            let disk = Arc::new(PowerCut::after(operations));
            let before = read(dir.path()).unwrap();
            let after = State {
                counter: before.counter + 1,
                ..trial()
            };
            let saved = StateDir::open(dir.path(), disk).and_then(|held| held.save(&after));
            let seen = read(dir.path()).unwrap();
            assert!(seen == before || seen == after);
            if saved.is_ok() {
                assert_eq!(seen, after);
            }
        }
    }
}
