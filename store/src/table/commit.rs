//! Group commit. Batches are applied one after the other in the order of their revisions; sled
//! recovers a prefix of that order, so what is durable is always a prefix too. The first caller
//! that waits leads: it flushes for all that were applied before, while the next group gathers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::mark::Mark;
use super::redo::Redo;
use super::spill::Spilled;
use super::watch::{Change, Hub};
use super::window::{self, Edit, Window};
use crate::error::StoreError;

pub(super) struct Commit {
    /// One at a time checks expectations and applies; holds the applied revision.
    applying: Mutex<u64>,
    state: Mutex<State>,
    /// Tells of a change of `State::leading`, `durable` and `failed`.
    changed: Condvar,
    durable: AtomicU64,
    /// The database file itself, to sync it for real: sled's flush is `sync_file_range`, which
    /// does not empty the disk's cache nor write the file's length.
    file: File,
    path: PathBuf,
    /// Only the leader takes it.
    spilled: Mutex<Spilled>,
    /// Only the leader takes it, and who closes.
    mark: Mutex<Mark>,
    /// Who holds `applying` writes into it.
    window: Window,
    redo: Redo,
    db: sled::Db,
}

struct State {
    applied: u64,
    leading: bool,
    failed: Option<String>,
    /// Applied, not yet durable, in the order of revisions.
    changes: Vec<(Arc<Hub>, Change)>,
}

impl Commit {
    pub(super) fn new(
        db: sled::Db,
        database: &Path,
        revision: u64,
        mark: Mark,
        redo: Redo,
    ) -> Result<Commit, StoreError> {
        let path = database.join("db");
        let file = File::open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        Ok(Commit {
            applying: Mutex::new(revision),
            state: Mutex::new(State {
                applied: revision,
                leading: false,
                failed: None,
                changes: Vec::new(),
            }),
            changed: Condvar::new(),
            durable: AtomicU64::new(revision),
            spilled: Mutex::new(Spilled::new(database)),
            path,
            file,
            mark: Mutex::new(mark),
            window: Window::default(),
            redo,
            db,
        })
    }

    pub(super) fn tree(&self, name: &str) -> Result<sled::Tree, StoreError> {
        self.db
            .open_tree(name)
            .map_err(StoreError::database("open a table"))
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The turn to apply batches, with the newest revision applied. Nobody else applies any meanwhile.
    pub(super) fn turn(&self) -> MutexGuard<'_, u64> {
        self.applying.lock()
    }

    /// Says what a turn has applied: the changes of one table, in the order of their revisions.
    pub(super) fn applied(&self, turn: &mut u64, hub: &Arc<Hub>, changes: Vec<Change>) {
        let Some(newest) = changes.last().map(|change| change.revision) else {
            return;
        };
        *turn = newest;
        let mut state = self.state.lock();
        state.applied = newest;
        let changes = changes.into_iter();
        state
            .changes
            .extend(changes.map(|change| (Arc::clone(hub), change)));
    }

    /// What sled made of a write that failed is unknown: nothing may build on it.
    pub(super) fn broken(&self, error: &StoreError) {
        self.fail(&mut self.state.lock(), error);
    }

    /// Writes the edits of a turn, all or none whatever happens; the last is the head.
    pub(super) fn write(
        &self,
        tree: &sled::Tree,
        revision: u64,
        edits: &[Edit],
    ) -> Result<(), StoreError> {
        let parts = window::parts(edits);
        let [_, _, ..] = parts.as_slice() else {
            return self.window.apply(&self.db, tree, edits);
        };
        self.redo.begin(tree, revision, edits)?;
        for part in parts {
            self.window.apply(&self.db, tree, part)?;
        }
        self.flush()?;
        self.redo.end()
    }

    /// Returns once `revision` is durable; flushes where nobody else does.
    pub(super) fn wait(&self, revision: u64) -> Result<(), StoreError> {
        if self.durable() >= revision {
            return Ok(());
        }
        let mut state = self.state.lock();
        loop {
            if self.durable() >= revision {
                return Ok(());
            }
            if let Some(reason) = &state.failed {
                return Err(StoreError::Failed {
                    reason: reason.clone(),
                });
            }
            if state.applied < revision {
                // It is being applied, or a deletion was told before it is. After the turn it has been, or failed.
                drop(state);
                let applied = *self.applying.lock();
                state = self.state.lock();
                if applied < revision && state.failed.is_none() {
                    return Err(StoreError::Damaged {
                        file: self.path.clone(),
                        offset: 0,
                        reason: "a row has a revision that no change ever had",
                    });
                }
                continue;
            }
            if state.leading {
                self.changed.wait(&mut state);
                continue;
            }
            state.leading = true;
            let target = state.applied;
            let changes = std::mem::take(&mut state.changes);
            drop(state);
            let flushed = self.flush().and_then(|()| self.mark.lock().reached(target));
            state = self.state.lock();
            state.leading = false;
            match flushed {
                Ok(()) => {
                    self.durable.store(target, Ordering::Release);
                    for (hub, change) in changes {
                        hub.publish(change);
                    }
                }
                Err(error) => self.fail(&mut state, &error),
            }
            self.changed.notify_all();
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.window.flush(&self.db)?;
        self.spilled.lock().sync()?;
        self.file
            .sync_data()
            .map_err(|e| StoreError::io("sync", &self.path, e))
    }

    /// At the end: what is durable now is what the next start must find.
    pub(super) fn close(&self) {
        if let Err(error) = self.mark.lock().note(self.durable()) {
            tracing::warn!(%error, "the mark of the tables could not be brought up to date");
        }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        match &self.state.lock().failed {
            Some(reason) => Err(StoreError::Failed {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// For good: after a failed flush nobody can tell which pages the kernel dropped.
    fn fail(&self, state: &mut State, error: &StoreError) {
        tracing::error!(%error, "the tables accept no more changes until the next start");
        state.failed.get_or_insert_with(|| error.to_string());
        self.changed.notify_all();
    }
}
