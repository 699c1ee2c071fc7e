//! Packs: files of many small values, each written once and whole, of which any value is found by one read. A table finds
//! a row by reading several pages and puts each together from what was written of it; what is asked for at every connect
//! is worth a shorter way.
//!
//! A pack is no truth: it is made from rows, a row says which one counts, and whoever reads one knows which of its values
//! are outdated. So it may be missing, and a damaged one is as good as missing.
//!
//! A file is a header, the values by their ids in buckets (the first bits of the id say which) with a checksum each, and
//! where each bucket begins. Numbers are big endian. Ids are digests, so the buckets are of about one size.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BufMut};

use crate::envelope::{self, Stored};
use crate::error::StoreError;
use crate::files::{self, create_directory, sync_directory};
use crate::lock::DirectoryLock;
use crate::room;

/// What a value is found by: a digest.
pub type PackId = [u8; 32];

/// How a file begins. Then: its label, how many values it has, the bits of a bucket's number, where the list of buckets
/// begins, the checksum of that list, and the checksum of all this.
const MAGIC: &[u8; 4] = b"MPK1";
const HEADER_BYTES: usize = 4 + LABEL_BYTES + 8 + 1 + 8 + 4 + 4;
const LABEL_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// Values of one bucket, about: all of them are read for one.
const BUCKET_ITEMS: u64 = 2;
/// The list of buckets lies in memory, eight bytes for each.
const BUCKET_BITS_MAX: u8 = 20;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// So much is written between two syncs: one long sync would hold up the commits of the tables.
const SYNC_EVERY_BYTES: u64 = 4 * 1024 * 1024;
/// Room that must be left for each value of a new pack, in bytes.
const ROOM_BYTES: u64 = 1024;

/// The packs of one kind, in a directory of their own.
#[derive(Clone)]
pub struct Packs {
    directory: PathBuf,
    _lock: Arc<DirectoryLock>,
}

impl Packs {
    pub(crate) fn at(directory: PathBuf, lock: Arc<DirectoryLock>) -> Packs {
        Packs {
            directory,
            _lock: lock,
        }
    }

    fn path(&self, label: &str) -> PathBuf {
        self.directory.join(format!("{label}.pack"))
    }

    /// The pack with this label; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where it is not what was written; [`StoreError::Io`].
    pub fn open(&self, label: &str) -> Result<Option<Pack>, StoreError> {
        if label.len() != 2 * LABEL_BYTES || !label.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let path = self.path(label);
        match File::open(&path) {
            Ok(file) => Pack::open(path, file, label).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", &path, error)),
        }
    }

    /// Begins a pack of about so many values. Nothing of it is seen before it is finished.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn create(&self, expected_items: u64) -> Result<PackWriter, StoreError> {
        create_directory(&self.directory, 0o700)?;
        // It can be done without; what is kept back of the disk is for changes.
        let kept = room::Room::of(&self.directory).map_or(0, room::Room::kept_bytes);
        let needed = expected_items.saturating_mul(ROOM_BYTES);
        room::check(&self.directory, needed, kept)?;
        let mut label = [0; LABEL_BYTES];
        aws_lc_rs::rand::fill(&mut label).map_err(|_| {
            let cause = std::io::Error::other("the random number generator failed");
            StoreError::io("name a new file in", &self.directory, cause)
        })?;
        let path = self.path(&data_encoding::HEXLOWER.encode(&label));
        let file = tempfile::Builder::new()
            .prefix(files::UNFINISHED)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.directory)
            .map_err(|e| StoreError::io("write", &path, e))?;
        let wanted = expected_items.div_ceil(BUCKET_ITEMS).max(1).ilog2();
        let mut writer = PackWriter {
            path,
            file,
            label,
            bits: u8::try_from(wanted).map_or(BUCKET_BITS_MAX, |bits| bits.min(BUCKET_BITS_MAX)),
            items: 0,
            newest: None,
            bucket: Vec::new(),
            buckets: Vec::new(),
            at: HEADER_BYTES as u64,
            pending: vec![0; HEADER_BYTES],
            unsynced: 0,
        };
        writer.pending.reserve(64 * 1024);
        Ok(writer)
    }

    /// Removes all packs but the one with this label, and what a crash left unfinished.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn keep_only(&self, label: Option<&str>) -> Result<(), StoreError> {
        if !self.directory.is_dir() {
            return Ok(());
        }
        files::sweep(&self.directory)?;
        let kept = label.map(|label| self.path(label));
        let list = |e| StoreError::io("list", &self.directory, e);
        for entry in fs::read_dir(&self.directory).map_err(list)? {
            let path = entry.map_err(list)?.path();
            if path.extension().is_some_and(|end| end == "pack") && Some(&path) != kept.as_ref() {
                fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
            }
        }
        Ok(())
    }
}

/// A pack that is being written.
pub struct PackWriter {
    path: PathBuf,
    file: tempfile::NamedTempFile,
    label: [u8; LABEL_BYTES],
    bits: u8,
    items: u64,
    newest: Option<PackId>,
    /// What the newest value's bucket has so far.
    bucket: Vec<u8>,
    /// Where each bucket begins that is whole or begun.
    buckets: Vec<u64>,
    /// Where the next bucket will begin.
    at: u64,
    /// Not written yet.
    pending: Vec<u8>,
    unsynced: u64,
}

impl PackWriter {
    /// Takes a value in its envelope. Ids come in order.
    ///
    /// # Errors
    /// [`StoreError::Encode`], [`StoreError::ValueTooLarge`], [`StoreError::PackOrder`], [`StoreError::Io`].
    pub fn put<T: Stored>(&mut self, id: &PackId, value: &T) -> Result<(), StoreError> {
        let bytes = envelope::encode(&name_of(id), value)?;
        self.put_bytes(id, &bytes)
    }

    /// As [`PackWriter::put`], of a value as another pack has it.
    ///
    /// # Errors
    /// As [`PackWriter::put`].
    pub fn put_bytes(&mut self, id: &PackId, value: &[u8]) -> Result<(), StoreError> {
        let length = match u32::try_from(value.len()) {
            Ok(length) if value.len() <= VALUE_BYTES_MAX => length,
            _ => {
                let (key, length, limit) = (name_of(id), value.len(), VALUE_BYTES_MAX);
                return Err(StoreError::ValueTooLarge { key, length, limit });
            }
        };
        if self.newest.is_some_and(|newest| newest >= *id) {
            return Err(StoreError::PackOrder { id: name_of(id) });
        }
        self.turn_to(bucket_of(id, self.bits))?;
        self.newest = Some(*id);
        self.bucket.put_slice(id);
        self.bucket.put_u32(length);
        self.bucket.put_slice(value);
        self.items += 1;
        Ok(())
    }

    /// Makes it whole and durable.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn finish(mut self) -> Result<Pack, StoreError> {
        self.turn_to(1 << self.bits)?;
        let mut list = Vec::with_capacity(self.buckets.len() * 8);
        self.buckets.iter().for_each(|at| list.put_u64(*at));
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put_slice(MAGIC);
        header.put_slice(&self.label);
        header.put_u64(self.items);
        header.put_u8(self.bits);
        header.put_u64(self.at);
        header.put_u32(crc32fast::hash(&list));
        header.put_u32(crc32fast::hash(&header));
        self.pending.append(&mut list);
        self.write_out()?;
        let failed = |e| StoreError::io("write", &self.path, e);
        let file = self.file.as_file();
        file.write_all_at(&header, 0).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let file = self
            .file
            .persist(&self.path)
            .map_err(|e| StoreError::io("write", &self.path, e.error))?;
        if let Some(directory) = self.path.parent() {
            sync_directory(directory)?;
        }
        Ok(Pack {
            path: self.path,
            file,
            label: data_encoding::HEXLOWER.encode(&self.label),
            items: self.items,
            bits: self.bits,
            buckets: self.buckets.into(),
        })
    }

    /// Ends the buckets before this one, and begins it.
    fn turn_to(&mut self, bucket: usize) -> Result<(), StoreError> {
        if self.buckets.len() > bucket {
            return Ok(());
        }
        if !self.bucket.is_empty() {
            let crc = crc32fast::hash(&self.bucket);
            self.bucket.put_u32(crc);
            self.at += self.bucket.len() as u64;
            self.pending.append(&mut self.bucket);
        }
        self.buckets.resize(bucket + 1, self.at);
        if self.pending.len() >= 64 * 1024 {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), StoreError> {
        let failed = |e| StoreError::io("write", &self.path, e);
        self.file.write_all(&self.pending).map_err(failed)?;
        self.unsynced += self.pending.len() as u64;
        self.pending.clear();
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.file.as_file().sync_data().map_err(failed)?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// A whole pack.
pub struct Pack {
    path: PathBuf,
    file: File,
    label: String,
    items: u64,
    bits: u8,
    /// Where each bucket begins, and where the last one ends.
    buckets: Box<[u64]>,
}

impl Pack {
    fn open(path: PathBuf, file: File, label: &str) -> Result<Pack, StoreError> {
        let damaged = |offset: u64, reason| StoreError::Damaged {
            file: path.clone(),
            offset,
            reason,
        };
        let read = |e| StoreError::io("read", &path, e);
        let file_bytes = file.metadata().map_err(read)?.len();
        let mut header = [0; HEADER_BYTES];
        if file_bytes < HEADER_BYTES as u64 {
            return Err(damaged(0, "it ends within its header"));
        }
        file.read_exact_at(&mut header, 0).map_err(read)?;
        let (said, mut crc) = header.split_at(HEADER_BYTES - CRC_BYTES);
        if crc.get_u32() != crc32fast::hash(said) {
            return Err(damaged(0, "its header's checksum is wrong"));
        }
        let (magic, rest) = said.split_at(MAGIC.len());
        let (known, mut rest) = rest.split_at(LABEL_BYTES);
        if magic != MAGIC || data_encoding::HEXLOWER.encode(known) != label {
            return Err(damaged(0, "it is another file"));
        }
        let (items, bits, at, crc) = (
            rest.get_u64(),
            rest.get_u8(),
            rest.get_u64(),
            rest.get_u32(),
        );
        let list_bytes = (1_usize << bits.min(BUCKET_BITS_MAX)) * 8 + 8;
        if bits > BUCKET_BITS_MAX || file_bytes != at.saturating_add(list_bytes as u64) {
            return Err(damaged(at, "its list of buckets is not whole"));
        }
        let mut list = vec![0; list_bytes];
        file.read_exact_at(&mut list, at).map_err(read)?;
        if crc32fast::hash(&list) != crc {
            return Err(damaged(at, "its list's checksum is wrong"));
        }
        let mut list = list.as_slice();
        let mut buckets = Vec::with_capacity(list_bytes / 8);
        while list.has_remaining() {
            buckets.push(list.get_u64());
        }
        if !buckets.is_sorted() || buckets.last() != Some(&at) {
            return Err(damaged(at, "its buckets are not in order"));
        }
        Ok(Pack {
            file,
            label: label.to_owned(),
            items,
            bits,
            buckets: buckets.into(),
            path,
        })
    }

    /// Its name among those of its kind.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How many values it has.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.items
    }

    /// The value with this id, out of its envelope.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`]; [`StoreError::Newer`] and [`StoreError::Decode`] where the value is none
    /// that this release can read.
    pub fn get_as<T: Stored>(&self, id: &PackId) -> Result<Option<T>, StoreError> {
        let (bytes, from) = self.bucket(bucket_of(id, self.bits))?;
        let mut rest = bytes.as_slice();
        while let Some((found, value)) = self.next(&mut rest, from)? {
            if found == id {
                return envelope::decode(&name_of(id), value).map(Some);
            }
        }
        Ok(None)
    }

    /// All values in the order of their ids, in their envelopes.
    #[must_use]
    pub fn values(self: &Arc<Self>) -> PackValues {
        PackValues {
            pack: Arc::clone(self),
            bucket: 0,
            ready: Vec::new().into_iter(),
        }
    }

    /// The values of a bucket, whole as they were written, and where it begins.
    fn bucket(&self, number: usize) -> Result<(Vec<u8>, u64), StoreError> {
        let (Some(from), Some(to)) = (self.buckets.get(number), self.buckets.get(number + 1))
        else {
            return Ok((Vec::new(), 0));
        };
        // Within the file: the list was held against its length.
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
        if bytes.is_empty() {
            return Ok((bytes, *from));
        }
        let read = |e| StoreError::io("read", &self.path, e);
        self.file.read_exact_at(&mut bytes, *from).map_err(read)?;
        let values = bytes.len().saturating_sub(CRC_BYTES);
        let (said, mut crc) = bytes.split_at(values);
        if crc.len() < CRC_BYTES || crc.get_u32() != crc32fast::hash(said) {
            return Err(self.damaged(*from, "a bucket's checksum is wrong"));
        }
        bytes.truncate(values);
        Ok((bytes, *from))
    }

    fn next<'a>(
        &self,
        rest: &mut &'a [u8],
        from: u64,
    ) -> Result<Option<(&'a PackId, &'a [u8])>, StoreError> {
        if rest.is_empty() {
            return Ok(None);
        }
        let cut = || self.damaged(from, "a bucket ends within a value");
        let (id, mut after) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = after.try_get_u32().map_err(|_| cut())?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (value, after) = after.split_at_checked(length).ok_or_else(cut)?;
        *rest = after;
        Ok(Some((id, value)))
    }

    fn damaged(&self, offset: u64, reason: &'static str) -> StoreError {
        StoreError::Damaged {
            file: self.path.clone(),
            offset,
            reason,
        }
    }
}

/// The values of a pack, one after the other. One bucket of them lies in memory.
pub struct PackValues {
    pack: Arc<Pack>,
    bucket: usize,
    ready: std::vec::IntoIter<(PackId, Vec<u8>)>,
}

impl Iterator for PackValues {
    type Item = Result<(PackId, Vec<u8>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(value) = self.ready.next() {
                return Some(Ok(value));
            }
            if self.bucket + 1 >= self.pack.buckets.len() {
                return None;
            }
            let read = read_bucket(&self.pack, self.bucket);
            self.bucket += 1;
            match read {
                Ok(values) => self.ready = values.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn read_bucket(pack: &Pack, number: usize) -> Result<Vec<(PackId, Vec<u8>)>, StoreError> {
    let (bytes, from) = pack.bucket(number)?;
    let (mut rest, mut values) = (bytes.as_slice(), Vec::new());
    while let Some((id, value)) = pack.next(&mut rest, from)? {
        values.push((*id, value.to_vec()));
    }
    Ok(values)
}

/// The bucket of an id: its first bits.
fn bucket_of(id: &PackId, bits: u8) -> usize {
    let [first, second, third, ..] = *id;
    let top = u32::from_be_bytes([0, first, second, third]);
    usize::try_from(top >> (24 - u32::from(bits.min(BUCKET_BITS_MAX)))).unwrap_or_default()
}

fn name_of(id: &PackId) -> String {
    data_encoding::HEXLOWER.encode(id)
}

#[cfg(test)]
mod tests;
