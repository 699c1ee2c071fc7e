//! Reading a journal back. Every record of every segment is checked. A torn tail of the last
//! segment, which only holds what was never acknowledged, is cut; any other unsound place is
//! damage, and the journal refuses to open rather than forget what it had promised to keep. So is an
//! end before what is known to have been durable (`mark`).

use std::path::{Path, PathBuf};

use super::Options;
use super::mark::Mark;
use super::record::{self, Kind, Unsound};
use super::segment::{self, Disk, HEADER_BYTES, Segment};
use super::state::{Location, State};
use crate::error::StoreError;

/// Reads the segments in `directory`.
pub(super) fn recover(
    directory: &Path,
    options: Options,
    disk: &dyn Disk,
) -> Result<State, StoreError> {
    let mut state = State::new(options);
    let noted = Mark::read(directory, disk)?;
    state.noted = noted;
    let paths = list(directory, disk)?;
    let mut expected: Option<u32> = None;
    if let (Some((oldest, path)), Some(deleted)) = (paths.first(), noted.deleted)
        && *oldest > deleted.saturating_add(1)
    {
        return Err(StoreError::Damaged {
            file: path.clone(),
            offset: 0,
            reason: "the segment before it is missing",
        });
    }
    for (at, (number, path)) in paths.iter().enumerate() {
        let last = at + 1 == paths.len();
        if expected.is_some_and(|expected| expected != *number) {
            let reason = "the segment before it is missing";
            return Err(StoreError::Damaged {
                file: path.clone(),
                offset: 0,
                reason,
            });
        }
        expected = number.checked_add(1);
        let file = disk
            .create(path)
            .map_err(|e| StoreError::io("open", path, e))?;
        let bytes = file
            .read_all()
            .map_err(|e| StoreError::io("read", path, e))?;
        // Its header becomes durable before a record is written behind it.
        if last
            && *number > noted.segment
            && bytes.len() <= HEADER_BYTES as usize
            && Segment::read(*number, path, &bytes).is_err()
        {
            tracing::warn!(path = %path.display(), "removing a segment that a crash left unbegun");
            disk.remove(path)
                .map_err(|e| StoreError::io("remove", path, e))?;
            disk.sync_directory(directory)?;
            continue;
        }
        let mut segment = Segment::read(*number, path, &bytes)?;
        if state.segments.is_empty() {
            state.next_sequence = segment.first_sequence;
        } else if segment.first_sequence != state.next_sequence {
            let reason = "records before it are missing";
            return Err(StoreError::Damaged {
                file: path.clone(),
                offset: 0,
                reason,
            });
        }
        if last {
            // A process that was killed may have left what is only in the kernel's memory yet;
            // from here on it counts as durable.
            disk.sync(&*file)
                .map_err(|e| StoreError::io("sync", path, e))?;
            disk.sync_directory(directory)?;
        }
        segment.file = Some(file);
        state.add_segment(segment);
        let torn = last.then_some(noted.sequence);
        read(&mut state, *number, path, &bytes, torn)?;
    }
    let newest = state.segments.back().map_or(0, |last| last.number);
    if state.next_sequence <= noted.sequence || newest < noted.segment {
        return Err(StoreError::Damaged {
            file: directory.to_path_buf(),
            offset: 0,
            reason: "its newest records, which were durable, are missing",
        });
    }
    Ok(state)
}

/// The segments' files in the order of their numbers.
fn list(directory: &Path, disk: &dyn Disk) -> Result<Vec<(u32, PathBuf)>, StoreError> {
    let all = disk
        .list(directory)
        .map_err(|e| StoreError::io("list", directory, e))?;
    let numbered = |path: PathBuf| Some((segment::number(&path)?, path));
    let mut paths: Vec<_> = all.into_iter().filter_map(numbered).collect();
    paths.sort_unstable();
    Ok(paths)
}

/// Takes in the records of one segment. `torn`: for the last one, whose tail may be torn, up to where it must not be.
fn read(
    state: &mut State,
    number: u32,
    path: &Path,
    bytes: &[u8],
    torn: Option<u64>,
) -> Result<(), StoreError> {
    let Some(mark) = state.segment(number).map(|segment| segment.mark) else {
        return Ok(());
    };
    let mut offset = HEADER_BYTES;
    // A batch that is not whole yet, and where it begins.
    let mut batch: Vec<(record::Record<'_>, Location)> = Vec::new();
    let mut begin = (offset, state.next_sequence);
    loop {
        let (start, sequence) = begin;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        if rest.is_empty() && batch.is_empty() {
            return Ok(());
        }
        let damaged = |reason| StoreError::Damaged {
            file: path.to_path_buf(),
            offset: u64::from(offset),
            reason,
        };
        let record = match record::read(mark, rest) {
            Ok(record) => record,
            Err(unsound) => {
                let reason = match unsound {
                    _ if rest.is_empty() => "a batch is cut",
                    Unsound::Short { .. } => "a record is cut",
                    Unsound::Wrong(reason) => reason,
                };
                let next = sequence + batch.len() as u64;
                let durable = torn.is_none_or(|durable| sequence <= durable);
                if durable || vouched(mark, rest, offset, next) {
                    return Err(damaged(reason));
                }
                // With a batch goes all of it.
                return cut(state, number, path, start, bytes.len());
            }
        };
        if record.sequence != sequence + batch.len() as u64 {
            return Err(damaged("a record is out of its order"));
        }
        let (more, length) = (record.more, record.length());
        let location = Location {
            segment: number,
            offset,
            value_length: u32::try_from(record.value.len()).unwrap_or(u32::MAX),
        };
        batch.push((record, location));
        offset = offset.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        if !more {
            apply(state, number, &mut batch);
            begin = (offset, state.next_sequence);
        }
    }
}

/// Takes in records that are whole.
fn apply(state: &mut State, number: u32, batch: &mut Vec<(record::Record<'_>, Location)>) {
    for (record, location) in batch.drain(..) {
        state.next_sequence += 1;
        let length = u32::try_from(record.length()).unwrap_or(u32::MAX);
        // The segment must know its length so far: the index counts what is alive in it.
        state.disk_bytes += u64::from(length);
        if let Some(segment) = state.segment_mut(number) {
            segment.length = segment.length.saturating_add(length);
            segment.durable = segment.length;
        }
        match record.kind {
            Kind::Put => state.set(record.key, location),
            Kind::Delete => state.unset(record.key),
            Kind::Close => {}
        }
    }
}

/// Whether a sound record behind the unsound one at `offset` (where `rest` begins) says that the
/// place was durable when it was put.
fn vouched(mark: u32, rest: &[u8], offset: u32, sequence: u64) -> bool {
    let pattern = mark.to_le_bytes();
    let starts = rest.windows(pattern.len()).enumerate().skip(1);
    starts
        .filter(|(_, window)| **window == pattern)
        .any(|(at, _)| {
            let candidate = record::read(mark, rest.get(at..).unwrap_or_default());
            candidate.is_ok_and(|record| record.synced > offset && record.sequence >= sequence)
        })
}

/// Cuts the torn tail of the last segment.
fn cut(
    state: &State,
    number: u32,
    path: &Path,
    offset: u32,
    length: usize,
) -> Result<(), StoreError> {
    let bytes = (length as u64).saturating_sub(u64::from(offset));
    tracing::warn!(path = %path.display(), offset, bytes, "cutting a torn tail, which nobody was told is safe");
    let Some(file) = state
        .segment(number)
        .and_then(|segment| segment.file.as_deref())
    else {
        return Ok(());
    };
    file.cut(u64::from(offset))
        .map_err(|e| StoreError::io("cut", path, e))
}
