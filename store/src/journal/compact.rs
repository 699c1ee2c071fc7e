//! Compaction: the live records of the oldest segment are put again at the end, so that the oldest
//! can be deleted. It runs on the committer's thread a step per group, and each step is larger
//! than the group before it, so the dead bytes shrink while records are put.

use std::sync::Arc;

use super::record::{self, Body, Kind, Unsound};
use super::segment::{self, HEADER_BYTES};
use super::state::State;
use super::{Location, Shared};
use crate::error::StoreError;

/// Least bytes of the oldest segment looked at in one step; puts wait for one step at most.
const STEP_BYTES_MIN: usize = 1024 * 1024;
/// Bytes looked at for each byte of the group before.
const STEP_FACTOR: usize = 4;

/// How far compaction has come.
#[derive(Default)]
pub(super) struct Compaction {
    /// The segment and how much of it has been looked at.
    cursor: Option<(u32, u32)>,
    /// The oldest segment cannot be read: nothing is moved or deleted any more.
    halted: bool,
}

impl Compaction {
    pub(super) fn wanted(&self, state: &State) -> bool {
        !self.halted && state.compaction_due()
    }

    /// Looks at the next records of the oldest segment and puts those alive again.
    pub(super) fn step(&mut self, shared: &Shared, last_group_bytes: usize) {
        if let Err(error) = self.try_step(shared, last_group_bytes) {
            tracing::error!(%error, "compaction stops: the journal will grow until it is mended");
            self.halted = true;
        }
    }

    fn try_step(&mut self, shared: &Shared, last_group_bytes: usize) -> Result<(), StoreError> {
        let (number, mark, length, file) = {
            let state = shared.state.lock();
            if !self.wanted(&state) {
                return Ok(());
            }
            match state.segments.front() {
                Some(oldest) => match &oldest.file {
                    Some(file) => (oldest.number, oldest.mark, oldest.length, Arc::clone(file)),
                    None => return Ok(()),
                },
                None => return Ok(()),
            }
        };
        let path = segment::path(&shared.directory, number);
        let mut offset = match self.cursor {
            Some((at, offset)) if at == number => offset,
            _ => HEADER_BYTES,
        };
        let mut step = STEP_BYTES_MIN.max(last_group_bytes.saturating_mul(STEP_FACTOR));
        loop {
            let remaining = length.saturating_sub(offset) as usize;
            if remaining == 0 {
                // All was looked at and something is alive still: index and file disagree.
                let reason = "a live record is not where it was put";
                return Err(StoreError::Damaged {
                    file: path,
                    offset: u64::from(offset),
                    reason,
                });
            }
            let mut bytes = vec![0; step.min(remaining)];
            file.read_exact_at(&mut bytes, u64::from(offset))
                .map_err(|e| StoreError::io("read", &path, e))?;
            let mut rest = bytes.as_slice();
            let mut found = Vec::new();
            let mut at = offset;
            let stopped = loop {
                if rest.is_empty() {
                    break None;
                }
                match record::read(mark, rest) {
                    Ok(record) => {
                        let length = record.length();
                        if record.kind == Kind::Put {
                            found.push((at, record));
                        }
                        at = at.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
                        rest = rest.get(length..).unwrap_or_default();
                    }
                    Err(unsound) => break Some(unsound),
                }
            };
            match stopped {
                // A record longer than a step: look at it whole.
                Some(Unsound::Short { length }) if at == offset && length <= remaining => {
                    step = length;
                    continue;
                }
                Some(Unsound::Short { .. }) if at > offset && bytes.len() < remaining => {}
                None => {}
                Some(_) => {
                    let reason = "a record cannot be read any more";
                    return Err(StoreError::Damaged {
                        file: path,
                        offset: u64::from(at),
                        reason,
                    });
                }
            }
            move_alive(shared, number, &found);
            offset = at;
            self.cursor = Some((number, offset));
            return Ok(());
        }
    }
}

fn move_alive(shared: &Shared, segment: u32, found: &[(u32, record::Record<'_>)]) {
    let mut state = shared.state.lock();
    for (offset, record) in found {
        let value_length = u32::try_from(record.value.len()).unwrap_or(u32::MAX);
        let here = Location {
            segment,
            offset: *offset,
            value_length,
        };
        if state.index.get(record.key) != Some(&here) {
            continue;
        }
        if let Some(body) = Body::new(Kind::Put, record.key, &[record.value]) {
            state.append_batch(vec![body]);
        }
    }
}
