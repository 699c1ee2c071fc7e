//! The chunks that batches are about: read and held against what each expects, then changed and written.

use std::collections::{HashMap, hash_map::Entry};

use super::chunk::Chunk;
use super::head::Head;
use super::window::Edit;
use super::{Expect, HEAD_KEY, Opened, Write, read_revision};
use crate::error::StoreError;

/// Chunks as they are and as they are to be.
#[derive(Default)]
pub(super) struct Touched {
    chunks: Vec<TouchedChunk>,
    /// Where each is, by its key.
    places: HashMap<Vec<u8>, usize>,
}

struct TouchedChunk {
    /// Its key; the empty one, which no row has, for rows before the first chunk.
    place: Vec<u8>,
    /// Bytes of its key and its rows as they are.
    before: u64,
    changed: bool,
    chunk: Chunk,
}

/// A batch whose expectations hold: the chunk of each of its writes.
pub(super) struct Admitted(Vec<usize>);

impl Touched {
    /// Reads the chunks of a batch's writes and holds what they expect against them, as the batches before have left them.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where an expectation does not hold.
    pub(super) fn admit(
        &mut self,
        opened: &Opened,
        writes: &[Write],
    ) -> Result<Admitted, StoreError> {
        let mut numbers = Vec::with_capacity(writes.len());
        for write in writes {
            let number = self.chunk_of(opened, write.key())?;
            numbers.push(number);
            let touched = self.chunks.get(number);
            let found = touched.and_then(|touched| touched.chunk.get(write.key().as_bytes()));
            let found = found.and_then(read_revision);
            let holds = match write.expect() {
                Expect::Any => true,
                Expect::Absent => found.is_none(),
                Expect::Revision(expected) => found == Some(expected),
            };
            if !holds {
                return Err(StoreError::Conflict {
                    key: write.key().to_owned(),
                });
            }
        }
        Ok(Admitted(numbers))
    }

    fn chunk_of(&mut self, opened: &Opened, key: &str) -> Result<usize, StoreError> {
        let (place, bytes) = opened.chunk_of(key)?.unwrap_or_default();
        Ok(match self.places.entry(place.to_vec()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.chunks.push(TouchedChunk {
                    place: place.to_vec(),
                    before: (place.len() + bytes.len()) as u64,
                    changed: false,
                    chunk: Chunk::read(&bytes)?,
                });
                *new.insert(self.chunks.len() - 1)
            }
        })
    }

    /// Changes the chunks as the writes of a batch say.
    pub(super) fn change(&mut self, writes: &[Write], admitted: &Admitted, revision: u64) {
        for (write, number) in writes.iter().zip(&admitted.0) {
            let Some(touched) = self.chunks.get_mut(*number) else {
                continue;
            };
            match write {
                Write::Put { key, value, .. } => {
                    touched.changed = true;
                    let row = [&revision.to_be_bytes(), value.as_slice()].concat();
                    touched.chunk.put(key.as_bytes(), row);
                }
                Write::Check { .. } => {}
                Write::Delete { key, .. } => {
                    touched.changed = true;
                    touched.chunk.delete(key.as_bytes());
                }
            }
        }
    }

    /// What makes the database so, the head last; `head` becomes the table's.
    pub(super) fn edits(self, head: &mut Head) -> Vec<Edit> {
        let mut edits = Vec::with_capacity(self.chunks.len() + 1);
        for touched in self.chunks.iter().filter(|touched| touched.changed) {
            touched.write(head, &mut edits);
        }
        edits.push(Edit {
            key: HEAD_KEY.to_vec(),
            bytes: Some(head.to_bytes().to_vec()),
        });
        edits
    }
}

impl TouchedChunk {
    fn write(&self, head: &mut Head, edits: &mut Vec<Edit>) {
        head.live_bytes = head.live_bytes.saturating_sub(self.before);
        let pieces = self.chunk.pieces();
        if pieces.is_empty() && !self.place.is_empty() {
            edits.push(Edit {
                key: self.place.clone(),
                bytes: None,
            });
        }
        for (number, (first, bytes)) in pieces.into_iter().enumerate() {
            // A chunk's key never changes: whoever walks over them finds it again.
            let place = match (number, self.place.is_empty()) {
                (0, false) => self.place.as_slice(),
                _ => first,
            };
            head.live_bytes += (place.len() + bytes.len()) as u64;
            edits.push(Edit {
                key: place.to_vec(),
                bytes: Some(bytes),
            });
        }
    }
}
