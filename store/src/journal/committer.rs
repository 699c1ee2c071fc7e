//! The thread that makes records durable: it takes all that wait as one group, writes and syncs
//! them, then tells. Between groups it compacts, a step at a time.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::compact::Compaction;
use super::mark::Mark;
use super::record::{Body, Kind};
use super::segment;
use super::state::Chunk;
use super::{Lsn, Shared};
use crate::error::StoreError;
use crate::files::sync_directory;

/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until the journal is closed and, unless the disk fails, all is written. `dead` and
/// `opened_at` (the next sequence number) are as of the recovery: what is put since may kill
/// further segments, but they may go only once that is durable.
pub(super) fn run(shared: &Shared, dead: usize, opened_at: u64) {
    let mut compaction = Compaction::default();
    remove(shared, dead);
    let mut last_group_bytes = 0;
    loop {
        compaction.step(shared, last_group_bytes);
        let (group, dead, stop) = {
            let mut state = shared.state.lock();
            while state.open.is_none()
                && state.waiting.is_empty()
                && !state.stop
                && !compaction.wanted(&state)
            {
                shared.work.wait(&mut state);
            }
            state.close_chunk();
            state.shrink();
            // Dead as of this group: they may go once it is durable, for it holds what outlived
            // their records.
            let group: Vec<Arc<Chunk>> = state.waiting.iter().map(Arc::clone).collect();
            (group, state.dead_segments(), state.stop)
        };
        if group.is_empty() {
            if stop && !close(shared, opened_at) {
                let newest = shared.state.lock().segments.back().map(|last| last.number);
                let mark = Mark {
                    sequence: shared.durable.load(Ordering::Acquire),
                    segment: newest.unwrap_or(0),
                };
                if shared.closed.load(Ordering::Acquire)
                    && let Err(error) = mark.note(&shared.directory)
                {
                    tracing::warn!(%error, "the journal's mark could not be brought up to date");
                }
                return;
            }
            continue;
        }
        last_group_bytes = group.iter().map(|chunk| chunk.bytes.len()).sum();
        match write(shared, &group) {
            Ok(()) => {
                publish(shared, &group);
                remove(shared, dead);
            }
            Err(error) => {
                fail(shared, &error);
                let mut state = shared.state.lock();
                if stop {
                    let bytes = state.backlog_bytes;
                    tracing::error!(bytes, "closed with records that could not be written");
                    return;
                }
                // Puts notify too; they must not make it try sooner. The end does, once.
                shared
                    .work
                    .wait_while_for(&mut state, |state| !state.stop, RETRY);
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
    let mut current: Option<(u32, Arc<File>)> = None;
    for chunk in group {
        let file = match current.take() {
            Some((number, file)) if number == chunk.segment => file,
            other => {
                // A segment is durable as a whole before the next one is created.
                if let Some((number, file)) = other {
                    sync(shared, number, &file)?;
                }
                open(shared, chunk.segment)?
            }
        };
        let path = segment::path(&shared.directory, chunk.segment);
        shared
            .disk
            .write_at(&file, &chunk.bytes, u64::from(chunk.offset))
            .map_err(|e| StoreError::io("write", &path, e))?;
        current = Some((chunk.segment, file));
    }
    match current {
        Some((number, file)) => sync(shared, number, &file),
        None => Ok(()),
    }
}

fn sync(shared: &Shared, number: u32, file: &File) -> Result<(), StoreError> {
    let path = segment::path(&shared.directory, number);
    shared
        .disk
        .sync(file)
        .map_err(|e| StoreError::io("sync", &path, e))
}

/// The file of a segment, made with its header where it is not there yet.
fn open(shared: &Shared, number: u32) -> Result<Arc<File>, StoreError> {
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
    let file = Arc::new(file);
    shared
        .disk
        .write_at(&file, &header, 0)
        .map_err(|e| StoreError::io("write", &path, e))?;
    sync(shared, number, &file)?;
    sync_directory(&shared.directory)?;
    Mark {
        sequence: before,
        segment: number,
    }
    .note(&shared.directory)?;
    if let Some(segment) = shared.state.lock().segment_mut(number) {
        segment.file = Some(Arc::clone(&file));
    }
    Ok(file)
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
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "cannot delete a dead segment yet");
                return;
            }
            _ => {}
        }
        let synced = sync_directory(&shared.directory);
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
