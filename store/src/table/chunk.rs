//! Rows lie in the database in chunks of some hundred bytes. sled splits its pages by the number of what is in them
//! (sixteen), however small that is, and keeps some three hundred bytes in memory for each page for good: a registry's
//! many small rows would cost more than all else together.
//!
//! A chunk's key is at most its first row's and more than the last row's of the chunk before, and never changes. Its
//! bytes are the rows in order, each as: how many bytes of its key it shares with the row before, how many follow, how
//! many its value has (LEB128), and those.

use crate::error::StoreError;

/// A chunk with more bytes, and more than one row, is split. Larger ones would save more memory, and each change of a row
/// writes its whole chunk.
pub(super) const CHUNK_BYTES_MAX: usize = 512;

/// The rows of one chunk, to be changed.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Keys and values in order.
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// The newest change put a row behind all others: rows come in order, and a split leaves no room before them.
    appended: bool,
}

/// Walks over the rows of a chunk's bytes.
struct Reader<'a> {
    rest: &'a [u8],
}

/// One row as it lies there.
struct Entry<'a> {
    /// Bytes of the key that are those of the row before.
    shared: usize,
    /// The rest of the key.
    suffix: &'a [u8],
    value: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next row; `None` at the end.
    fn next(&mut self) -> Result<Option<Entry<'a>>, StoreError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (shared, suffix, value) = (self.length()?, self.length()?, self.length()?);
        Ok(Some(Entry {
            shared,
            suffix: self.take(suffix)?,
            value: self.take(value)?,
        }))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, StoreError> {
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let (byte, rest) = self.rest.split_first().ok_or_else(damaged)?;
            self.rest = rest;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            match byte & 0x80 {
                0 => return Ok(length),
                _ if shift > 28 => return Err(damaged()),
                _ => {}
            }
        }
    }
}

fn damaged() -> StoreError {
    StoreError::Decode {
        key: "(a chunk of rows)".to_owned(),
        reason: "it ends within a row".to_owned(),
    }
}

fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or_default();
        length >>= 7;
        if length == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The value of a row, found without putting any key together.
pub(super) fn find<'a>(bytes: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, StoreError> {
    let mut reader = Reader::new(bytes);
    // What the key has in common with the row before, which is less.
    let mut matched = 0;
    while let Some(entry) = reader.next()? {
        if entry.shared > matched {
            continue;
        }
        if entry.shared < matched {
            return Ok(None);
        }
        let wanted = key.get(matched..).unwrap_or_default();
        let same = common(entry.suffix, wanted);
        match (entry.suffix.get(same), wanted.get(same)) {
            (None, None) => return Ok(Some(entry.value)),
            (Some(_), None) => return Ok(None),
            (Some(have), Some(want)) if have > want => return Ok(None),
            (_, Some(_)) => matched += same,
        }
    }
    Ok(None)
}

/// Calls `take` with each row in order until it says no.
pub(super) fn each(
    bytes: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let (mut reader, mut key) = (Reader::new(bytes), Vec::new());
    while let Some(entry) = reader.next()? {
        key.truncate(entry.shared);
        key.extend_from_slice(entry.suffix);
        if !take(&key, entry.value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Chunk {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        each(bytes, |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })?;
        Ok(Chunk {
            rows,
            appended: false,
        })
    }

    fn place(&self, key: &[u8]) -> Result<usize, usize> {
        self.rows
            .binary_search_by(|(known, _)| known.as_slice().cmp(key))
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let place = self.place(key).ok()?;
        self.rows.get(place).map(|(_, value)| value.as_slice())
    }

    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        match self.place(key) {
            Ok(place) => {
                if let Some((_, known)) = self.rows.get_mut(place) {
                    *known = value;
                }
                self.appended = false;
            }
            Err(place) => {
                self.appended = place == self.rows.len();
                self.rows.insert(place, (key.to_vec(), value));
            }
        }
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        if let Ok(place) = self.place(key) {
            self.rows.remove(place);
        }
        self.appended = false;
    }

    /// What is to lie in the database: chunks with the keys of their first rows. None where no row is left.
    pub(super) fn pieces(&self) -> Vec<(&[u8], Vec<u8>)> {
        let whole = self.packed(usize::MAX);
        let bytes = whole.first().map_or(0, |(_, bytes)| bytes.len());
        match (bytes <= CHUNK_BYTES_MAX, self.appended) {
            (true, _) => whole,
            (false, true) => self.packed(CHUNK_BYTES_MAX),
            // Of one size, so that there is room in each for what comes between.
            (false, false) => self.packed(bytes / bytes.div_ceil(CHUNK_BYTES_MAX) + 1),
        }
    }

    fn packed(&self, target: usize) -> Vec<(&[u8], Vec<u8>)> {
        let mut pack = Pack::new(target);
        let mut pieces = Vec::new();
        for (key, value) in &self.rows {
            pieces.extend(pack.put(key, value));
        }
        pieces.extend(pack.end());
        pieces
    }

    /// Takes a row that comes after all others.
    pub(super) fn append(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.appended = true;
        self.rows.push((key, value));
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// At most what a row takes where it shares nothing.
fn row_bytes(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + 4
}

/// Puts rows that come in order into chunks.
struct Pack<'a> {
    target: usize,
    first: Option<&'a [u8]>,
    before: &'a [u8],
    bytes: Vec<u8>,
}

impl<'a> Pack<'a> {
    /// Chunks of about so many bytes.
    fn new(target: usize) -> Self {
        Pack {
            target,
            first: None,
            before: &[],
            bytes: Vec::new(),
        }
    }

    /// Takes a row; gives the chunk before it where that is full.
    fn put(&mut self, key: &'a [u8], value: &[u8]) -> Option<(&'a [u8], Vec<u8>)> {
        let full = self.bytes.len().saturating_add(row_bytes(key, value)) > self.target;
        let piece = if full { self.end() } else { None };
        self.first.get_or_insert(key);
        let shared = common(self.before, key);
        let suffix = key.get(shared..).unwrap_or_default();
        for length in [shared, suffix.len(), value.len()] {
            put_length(&mut self.bytes, length);
        }
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(value);
        self.before = key;
        piece
    }

    /// The chunk that is not full.
    fn end(&mut self) -> Option<(&'a [u8], Vec<u8>)> {
        self.before = &[];
        let first = self.first.take()?;
        Some((first, std::mem::take(&mut self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn chunk_of(model: &Model) -> Chunk {
        let mut chunk = Chunk::default();
        for (key, value) in model {
            chunk.put(key, value.clone());
        }
        chunk
    }

    fn rows(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        Chunk::read(bytes).unwrap().rows
    }

    #[test]
    fn rows_that_come_in_order_leave_full_chunks_behind() {
        let mut chunks: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for n in 0..500_u32 {
            let (place, bytes) = chunks.pop().unwrap_or_default();
            let mut chunk = Chunk::read(&bytes).unwrap();
            let key = format!("member/hall-0001/lamp-{n:06}").into_bytes();
            chunk.put(&key, vec![1; 10]);
            for (number, (first, bytes)) in chunk.pieces().into_iter().enumerate() {
                let first = if number == 0 && !place.is_empty() {
                    &place
                } else {
                    first
                };
                chunks.push((first.to_vec(), bytes));
            }
        }
        // Key and lengths are shared with the row before but for some bytes.
        assert!(
            chunks.len() <= 500 * 20 / CHUNK_BYTES_MAX + 1,
            "{}",
            chunks.len()
        );
        assert_eq!(
            chunks
                .iter()
                .map(|(_, bytes)| rows(bytes).len())
                .sum::<usize>(),
            500
        );
    }

    #[test]
    fn a_chunk_that_grew_in_its_middle_is_split_in_parts_with_room() {
        let mut model: Model = (0..12_u8)
            .map(|n| (vec![n], vec![n; CHUNK_BYTES_MAX / 10]))
            .collect();
        let chunk = chunk_of(&model);
        assert!(chunk.pieces().len() > 1);
        model.remove(&vec![6]);
        let mut chunk = chunk_of(&model);
        chunk.put(&[6], vec![6; CHUNK_BYTES_MAX / 10]);
        let pieces = chunk.pieces();
        assert_eq!(pieces.len(), 2);
        assert!(
            pieces
                .iter()
                .all(|(_, bytes)| bytes.len() < CHUNK_BYTES_MAX * 2 / 3)
        );
    }

    #[test]
    fn what_is_no_chunk_is_said_to_be_damaged() {
        for bytes in [&[0][..], &[0, 5, 0, b'a'], &[0xff; 9], &[0, 1, 0x80]] {
            assert!(Chunk::read(bytes).is_err(), "{bytes:?}");
            assert!(find(bytes, b"zz").is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn every_row_is_found_in_its_piece_and_no_other(
            model in proptest::collection::btree_map("[ab/]{1,6}", proptest::collection::vec(any::<u8>(), 0..400), 0..60),
            others in proptest::collection::vec("[ab/]{0,7}", 0..40),
        ) {
            let model: Model = model.into_iter().map(|(key, value)| (key.into_bytes(), value)).collect();
            let chunk = chunk_of(&model);
            let pieces = chunk.pieces();
            let all: Vec<_> = pieces.iter().flat_map(|(_, bytes)| rows(bytes)).collect();
            prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
            for (first, bytes) in &pieces {
                let rows = rows(bytes);
                prop_assert_eq!(Some(*first), rows.first().map(|(key, _)| key.as_slice()));
                prop_assert!(rows.len() == 1 || bytes.len() <= CHUNK_BYTES_MAX * 3 / 2);
                for (key, value) in &rows {
                    prop_assert_eq!(find(bytes, key).unwrap(), Some(value.as_slice()));
                }
                for key in others.iter().filter(|key| !rows.iter().any(|(known, _)| known == key.as_bytes())) {
                    prop_assert_eq!(find(bytes, key.as_bytes()).unwrap(), None);
                }
            }
        }
    }
}
