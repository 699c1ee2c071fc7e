//! Batches that wait for each other are applied together: each is held against what those before it leave, all are one
//! write of the database. So many callers cost little more than one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::commit::Commit;
use super::head::Head;
use super::touched::Touched;
use super::watch::Change;
use super::{Opened, Write};
use crate::error::StoreError;

/// No further batch is taken into a group with so many writes: it is to be one write of the database.
const GROUP_WRITES: usize = 96;

/// The batches of a table that wait for their turn, in the order in which they came.
#[derive(Default)]
pub(super) struct Waiting(Mutex<VecDeque<Arc<Request>>>);

struct Request {
    writes: Vec<Write>,
    /// Set by who applied or refused it.
    outcome: Mutex<Option<Outcome>>,
}

enum Outcome {
    /// Applied, as this revision.
    Applied(u64),
    /// Refused, as the table was at this revision.
    Refused { seen: u64, conflict: StoreError },
    /// Nobody knows what became of it.
    Broken,
}

impl Waiting {
    /// The next group; empty where none waits.
    fn take(&self) -> Vec<Arc<Request>> {
        let mut waiting = self.0.lock();
        let (mut group, mut writes) = (Vec::new(), 0);
        while writes < GROUP_WRITES
            && let Some(request) = waiting.pop_front()
        {
            writes += request.writes.len();
            group.push(request);
        }
        group
    }
}

/// Does all of `writes` or none; returns their revision once they are durable.
pub(super) fn batch(commit: &Commit, opened: &Opened, writes: &[Write]) -> Result<u64, StoreError> {
    let request = Arc::new(Request {
        writes: writes.to_vec(),
        outcome: Mutex::new(None),
    });
    opened.waiting.0.lock().push_back(Arc::clone(&request));
    let mut turn = commit.turn();
    let outcome = loop {
        if let Some(outcome) = request.outcome.lock().take() {
            break outcome;
        }
        // It waits still, so the queue is not empty, and each group makes it shorter.
        apply(commit, &mut turn, opened, &opened.waiting.take());
    };
    drop(turn);
    match outcome {
        Outcome::Applied(revision) => {
            commit.wait(revision)?;
            Ok(revision)
        }
        Outcome::Refused { seen, conflict } => {
            // Even a refusal speaks of durable state only, so that a caller that reads again meets the row it lost against.
            commit.wait(seen)?;
            Err(conflict)
        }
        Outcome::Broken => {
            commit.check()?;
            // The check fails once something broke.
            Err(StoreError::Failed {
                reason: "a change before this one failed".to_owned(),
            })
        }
    }
}

/// Applies a group whose turn it is, and tells each of it what became of it.
fn apply(commit: &Commit, turn: &mut u64, opened: &Opened, group: &[Arc<Request>]) {
    let outcomes = match try_apply(commit, turn, opened, group) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            commit.broken(&error);
            group.iter().map(|_| Outcome::Broken).collect()
        }
    };
    for (request, outcome) in group.iter().zip(outcomes) {
        *request.outcome.lock() = Some(outcome);
    }
}

fn try_apply(
    commit: &Commit,
    turn: &mut u64,
    opened: &Opened,
    group: &[Arc<Request>],
) -> Result<Vec<Outcome>, StoreError> {
    commit.check()?;
    let mut touched = Touched::default();
    let mut outcomes = Vec::with_capacity(group.len());
    let (mut revision, mut changes) = (*turn, Vec::new());
    let mut newest_deletion = None;
    for request in group {
        let writes = request.writes.as_slice();
        match touched.admit(opened, writes) {
            Ok(admitted) => {
                revision += 1;
                touched.change(writes, &admitted, revision);
                if writes.iter().any(|w| matches!(w, Write::Delete { .. })) {
                    newest_deletion = Some(revision);
                }
                let changed = writes.iter().filter(|w| !matches!(w, Write::Check { .. }));
                let keys: Vec<_> = changed.map(|write| write.key().to_owned()).collect();
                changes.push(Change {
                    revision,
                    keys: keys.into(),
                });
                outcomes.push(Outcome::Applied(revision));
            }
            Err(conflict @ StoreError::Conflict { .. }) => {
                let seen = revision;
                outcomes.push(Outcome::Refused { seen, conflict });
            }
            Err(error) => return Err(error),
        }
    }
    if revision == *turn {
        return Ok(outcomes);
    }
    if let Some(revision) = newest_deletion {
        opened.deleted.store(revision, Ordering::Release);
    }
    let mut head = Head {
        revision,
        live_bytes: opened.live.load(Ordering::Relaxed),
    };
    let edits = touched.edits(&mut head);
    let guard = opened.rows.write();
    commit.write(&opened.tree, revision, &edits)?;
    drop(guard);
    opened.live.store(head.live_bytes, Ordering::Relaxed);
    commit.applied(turn, &opened.hub, changes);
    Ok(outcomes)
}
