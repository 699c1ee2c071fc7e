//! The thread that makes records durable: it takes all that wait as one group, writes and syncs
//! them, then tells. Between groups it compacts, a step at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::compact::Compaction;
use super::mark::Mark;
use super::record::{Body, Kind};
use super::segment::{self, SegmentFile};
use super::state::{Chunk, Left, State};
use super::{Lsn, NEARLY_FULL, Shared};
use crate::error::StoreError;

/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Committer {
    shared: Arc<Shared>,
    compaction: Compaction,
    /// The next sequence number as of the recovery.
    opened_at: u64,
    last_group_bytes: usize,
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing waited.
    Nothing,
    /// It is on the disk.
    Durable,
    /// It is not, and waits to be tried again.
    Failed,
    /// The journal is closed; nothing more will come.
    Closed,
}

impl Committer {
    /// `dead` and `opened_at` (the next sequence number) are as of the recovery: what is put since
    /// may kill further segments, but they may go only once that is durable.
    pub(super) fn new(shared: Arc<Shared>, dead: usize, opened_at: u64) -> Self {
        remove(&shared, dead);
        Self {
            shared,
            compaction: Compaction::default(),
            opened_at,
            last_group_bytes: 0,
        }
    }

    /// Runs until the journal is closed and, unless the disk fails, all is written.
    pub(super) fn run(mut self) {
        self.look_for_room();
        loop {
            self.compact();
            self.wait();
            let outcome = self.commit();
            self.look_for_room();
            match outcome {
                Outcome::Nothing | Outcome::Durable => {}
                Outcome::Closed => return,
                Outcome::Failed => {
                    // Puts notify too; they must not make it try sooner. The end does, once.
                    let mut state = self.shared.state.lock();
                    self.shared
                        .work
                        .wait_while_for(&mut state, |state| !state.stop, RETRY);
                }
            }
        }
    }

    /// One step of compaction, where it is due.
    pub(super) fn compact(&mut self) {
        self.compaction.step(&self.shared, self.last_group_bytes);
    }

    fn wait(&self) {
        let mut state = self.shared.state.lock();
        while state.open.is_none()
            && state.waiting.is_empty()
            && !state.stop
            && !self.compaction.wanted(&state)
        {
            if state.low {
                // Nobody tells when there is room again.
                self.shared.work.wait_for(&mut state, RETRY);
                return;
            }
            self.shared.work.wait(&mut state);
        }
    }

    /// Whether the disk has room for what is new, and how much.
    fn look_for_room(&self) {
        let shared = &*self.shared;
        let room = shared.disk.room(&shared.directory);
        let mut state = shared.state.lock();
        let (was, had) = (state.low, state.left);
        state.low = room.is_some_and(|room| room.is_low(was));
        state.left = room.map_or(Left::UNKNOWN, |room| Left::of(room, state.backlog_bytes));
        if state.low && !was {
            tracing::error!("the journal takes nothing new: {NEARLY_FULL}");
        }
        if was && !state.low {
            tracing::info!("the journal takes what is new again: the disk has room");
        }
        // Whoever was told to come again waits for a commit: that of a record which means nothing.
        let suffices = |bytes: u64| state.left.bounded >= bytes && had.bounded < bytes;
        if (was && !state.low) || state.refused.is_some_and(suffices) {
            state.refused = None;
            if let Some(body) = Body::new(Kind::Delete, &[], &[]) {
                state.append(body);
            }
        }
    }

    /// Writes all that waits as one group.
    pub(super) fn commit(&mut self) -> Outcome {
        let shared = &*self.shared;
        let (group, dead, stop) = {
            let mut state = shared.state.lock();
            state.close_chunk();
            state.shrink();
            // Dead as of this group: they may go once it is durable, for it holds what outlived
            // their records.
            let group: Vec<Arc<Chunk>> = state.waiting.iter().map(Arc::clone).collect();
            (group, state.dead_segments(), state.stop)
        };
        if group.is_empty() {
            if stop && !close(shared, self.opened_at) {
                let newest = shared.state.lock().segments.back().map(|last| last.number);
                let whole = |mark: &mut Mark| {
                    mark.sequence = shared.durable.load(Ordering::Acquire);
                    mark.segment = newest.unwrap_or(0);
                };
                if shared.closed.load(Ordering::Acquire)
                    && let Err(error) = note(shared, whole)
                {
                    tracing::warn!(%error, "the journal's mark could not be brought up to date");
                }
                return Outcome::Closed;
            }
            return Outcome::Nothing;
        }
        self.last_group_bytes = group.iter().map(|chunk| chunk.bytes.len()).sum();
        match write(shared, &group) {
            Ok(()) => {
                publish(shared, &group);
                remove(shared, dead);
                Outcome::Durable
            }
            Err(error) => {
                fail(shared, &error);
                if stop {
                    let bytes = shared.state.lock().backlog_bytes;
                    tracing::error!(bytes, "closed with records that could not be written");
                    return Outcome::Closed;
                }
                Outcome::Failed
            }
        }
    }
}

/// Puts the record that says the journal was closed in order, whose `synced` vouches for all before
/// it; false where it, or nothing since the open, is there already.
fn close(shared: &Shared, opened_at: u64) -> bool {
    let mut state = shared.state.lock();
    if state.next_sequence == opened_at || shared.closed.swap(true, Ordering::AcqRel) {
        return false;
    }
    if let Some(body) = Body::new(Kind::Close, &[], &[]) {
        state.append(body);
    }
    true
}

/// Writes a group and makes it durable. Where it failed, the same bytes go to the same places
/// again: after a failed sync the kernel may have dropped what it had not written.
fn write(shared: &Shared, group: &[Arc<Chunk>]) -> Result<(), StoreError> {
    let mut current: Option<(u32, Arc<dyn SegmentFile>)> = None;
    for chunk in group {
        let file = match current.take() {
            Some((number, file)) if number == chunk.segment => file,
            other => {
                // A segment is durable as a whole before the next one is created.
                if let Some((number, file)) = other {
                    sync(shared, number, &*file)?;
                }
                open(shared, chunk.segment)?
            }
        };
        let path = segment::path(&shared.directory, chunk.segment);
        shared
            .disk
            .write_at(&*file, &chunk.bytes, u64::from(chunk.offset))
            .map_err(|e| StoreError::io("write", &path, e))?;
        current = Some((chunk.segment, file));
    }
    match current {
        Some((number, file)) => sync(shared, number, &*file),
        None => Ok(()),
    }
}

fn sync(shared: &Shared, number: u32, file: &dyn SegmentFile) -> Result<(), StoreError> {
    let path = segment::path(&shared.directory, number);
    shared
        .disk
        .sync(file)
        .map_err(|e| StoreError::io("sync", &path, e))
}

/// The file of a segment, made with its header where it is not there yet.
fn open(shared: &Shared, number: u32) -> Result<Arc<dyn SegmentFile>, StoreError> {
    let path = segment::path(&shared.directory, number);
    let (header, before) = match shared.state.lock().segment(number) {
        Some(segment) => match &segment.file {
            Some(file) => return Ok(Arc::clone(file)),
            None => (segment.header(), segment.first_sequence - 1),
        },
        None => {
            return Err(StoreError::io(
                "find",
                &path,
                std::io::ErrorKind::NotFound.into(),
            ));
        }
    };
    let file = shared
        .disk
        .create(&path)
        .map_err(|e| StoreError::io("create", &path, e))?;
    shared
        .disk
        .write_at(&*file, &header, 0)
        .map_err(|e| StoreError::io("write", &path, e))?;
    sync(shared, number, &*file)?;
    shared.disk.sync_directory(&shared.directory)?;
    note(shared, |mark| {
        mark.sequence = before;
        mark.segment = number;
    })?;
    if let Some(segment) = shared.state.lock().segment_mut(number) {
        segment.file = Some(Arc::clone(&file));
    }
    Ok(file)
}

/// Notes what `change` makes of the mark. Only the committer does.
fn note(shared: &Shared, change: impl FnOnce(&mut Mark)) -> Result<(), StoreError> {
    let mut mark = {
        let state = shared.state.lock();
        let oldest = state.segments.front().map_or(1, |oldest| oldest.number);
        let deleted = state.noted.deleted.unwrap_or(oldest.saturating_sub(1));
        Mark {
            deleted: Some(deleted),
            ..state.noted
        }
    };
    change(&mut mark);
    mark.note(&shared.directory, &*shared.disk)?;
    shared.state.lock().noted = mark;
    Ok(())
}

/// Tells everybody that the group is durable.
fn publish(shared: &Shared, group: &[Arc<Chunk>]) {
    let mut state = shared.state.lock();
    for chunk in group {
        state.waiting.pop_front();
        state.backlog_bytes -= chunk.bytes.len();
        if let Some(segment) = state.segment_mut(chunk.segment) {
            segment.durable = chunk.end();
        }
    }
    if state.failed.take().is_some() {
        tracing::info!("the journal can be written again");
    }
    if let Some(last) = group.last() {
        shared.durable.store(last.last_sequence, Ordering::Release);
    }
    drop(state);
    shared.committed.notify_all();
    shared
        .wakers
        .wake(Lsn(shared.durable.load(Ordering::Acquire)));
}

fn fail(shared: &Shared, error: &StoreError) {
    let reason = error.to_string();
    let mut state = shared.state.lock();
    // Said once, not with every try.
    if state.failed.as_deref() != Some(&reason) {
        tracing::error!(%error, "the journal cannot be written; nothing is acknowledged until it can");
        state.failed = Some(reason.into());
    }
    drop(state);
    shared.committed.notify_all();
    shared.wakers.wake(Lsn(u64::MAX));
}

/// Deletes the oldest `dead` segments, one after the other, each durably: were a later one gone
/// and an earlier one still there, its deleted keys would be back.
fn remove(shared: &Shared, dead: usize) {
    let newest = |state: &State| Some(state.segments.get(dead.checked_sub(1)?)?.number);
    let Some(newest) = newest(&shared.state.lock()) else {
        return;
    };
    if let Err(error) = note(shared, |mark| mark.deleted = Some(newest)) {
        tracing::warn!(%error, "cannot note that dead segments go, so they stay");
        return;
    }
    for _ in 0..dead {
        let Some(number) = shared
            .state
            .lock()
            .segments
            .front()
            .map(|oldest| oldest.number)
        else {
            return;
        };
        let path = segment::path(&shared.directory, number);
        match shared.disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "cannot delete a dead segment yet");
                return;
            }
            _ => {}
        }
        let synced = shared.disk.sync_directory(&shared.directory);
        let mut state = shared.state.lock();
        if let Some(segment) = state.segments.pop_front() {
            state.disk_bytes -= u64::from(segment.length);
        }
        if let Err(error) = synced {
            tracing::warn!(%error, "cannot sync the journal's directory");
            return;
        }
    }
}
