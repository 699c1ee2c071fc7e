//! What was alive when the journal was opened.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, Kind};
use super::segment::{self, SegmentFile};
use super::state::{Location, State};
use crate::error::StoreError;

/// Bytes read at once where records lie close to each other.
const READ_BYTES: usize = 256 * 1024;

/// Iterates over the (key, value) pairs that were alive when the journal was opened, in the order
/// in which they were put. What is put or deleted since does not show.
pub struct Replay {
    directory: PathBuf,
    segments: HashMap<u32, (u32, Arc<dyn SegmentFile>)>,
    /// Places and lengths of the records, the next one at the end.
    records: Vec<(u32, u32, u32)>,
    /// A stretch of a segment: its number, where it begins, its bytes.
    read: (u32, u32, Vec<u8>),
}

impl Replay {
    pub(super) fn new(directory: PathBuf, state: &State) -> Replay {
        let file = |segment: &segment::Segment| {
            let file = Arc::clone(segment.file.as_ref()?);
            Some((segment.number, (segment.mark, file)))
        };
        let place = |key: &[u8], location: &Location| {
            let length = record::length(key.len(), location.value_length);
            (
                location.segment,
                location.offset,
                u32::try_from(length).unwrap_or(u32::MAX),
            )
        };
        let mut records: Vec<_> = state.index.iter().map(|(key, at)| place(key, at)).collect();
        records.sort_unstable_by(|a, b| b.cmp(a));
        let segments = state.segments.iter().filter_map(file).collect();
        Replay {
            directory,
            segments,
            records,
            read: (0, 0, Vec::new()),
        }
    }

    fn load(&mut self, place: (u32, u32, u32)) -> Result<(Bytes, Bytes), StoreError> {
        let (number, offset, length) = place;
        let path = || segment::path(&self.directory, number);
        let damaged = |reason| StoreError::Damaged {
            file: path(),
            offset: u64::from(offset),
            reason,
        };
        let (mark, file) = self
            .segments
            .get(&number)
            .ok_or(damaged("the segment is missing"))?;
        let (have, start, bytes) = &mut self.read;
        let from = offset.checked_sub(*start).filter(|_| *have == number);
        let inside = from.is_some_and(|from| from as usize + length as usize <= bytes.len());
        if !inside {
            bytes.resize((length as usize).max(READ_BYTES), 0);
            let mut filled = 0;
            // Short only at the end of the file.
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, u64::from(offset) + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(StoreError::io("read", &path(), e)),
                }
            }
            bytes.truncate(filled);
            (*have, *start) = (number, offset);
        }
        let from = (offset - *start) as usize;
        let found = record::read(*mark, bytes.get(from..).unwrap_or_default());
        match found {
            Ok(record) if record.kind == Kind::Put => {
                let key = Bytes::copy_from_slice(record.key);
                Ok((key, Bytes::copy_from_slice(record.value)))
            }
            _ => Err(damaged("a record cannot be read any more")),
        }
    }
}

impl Iterator for Replay {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.records.pop()?;
        Some(self.load(place))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.records.len(), Some(self.records.len()))
    }
}

impl ExactSizeIterator for Replay {}
