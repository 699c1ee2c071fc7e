//! A segment file: its name, its header, and the few system calls made on it.
//!
//! ```text
//! "MUSTERJL" | format u32 | mark u32 | number u32 | first sequence u64 | crc u32 | records
//! ```
//! The header is durable before the first record is written, and a segment is durable as a whole
//! before the next one is created. So only the last segment can be torn.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::StoreError;
use crate::files::{create_directory, sync_directory, write_private};
use crate::room::Room;

/// Bytes of a segment before its first record.
pub(super) const HEADER_BYTES: u32 = 32;
const MAGIC: &[u8; 8] = b"MUSTERJL";
/// The format this release writes, and the newest it reads.
const FORMAT: u32 = 1;

/// An open segment file.
pub(super) trait SegmentFile: Send + Sync {
    /// Reads what there is from `offset` on, at most `bytes`; tells how much it was.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills `bytes` from `offset` on.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// The whole of it.
    fn read_all(&self) -> io::Result<Vec<u8>>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when what was written is on the disk.
    fn sync(&self) -> io::Result<()>;
    /// Cuts it to `length` bytes, durably.
    fn cut(&self, length: u64) -> io::Result<()>;
}

impl SegmentFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut file = self;
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
    }
}

/// Where the segments are, and the system calls that can fail while records are made durable; a
/// seam for faults and for simulation.
pub(super) trait Disk: Send + Sync {
    /// What it has left; `None` where that cannot be told.
    fn room(&self, directory: &Path) -> Option<Room> {
        Room::of(directory)
    }

    /// Makes the directory where it is missing.
    fn prepare(&self, directory: &Path) -> Result<(), StoreError> {
        create_directory(directory, 0o700)
    }

    /// The paths of all files in the directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        // Not `create_new`: a try that failed half-way is tried again.
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// The whole text of a small file.
    fn read_note(&self, path: &Path) -> io::Result<String> {
        fs::read_to_string(path)
    }

    /// Writes a small file durably; a crash leaves the old one or the new one.
    fn write_note(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        write_private(path, text.as_bytes())
    }

    fn write_at(&self, file: &dyn SegmentFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_at(bytes, offset)
    }

    fn sync(&self, file: &dyn SegmentFile) -> io::Result<()> {
        file.sync()
    }

    /// Makes creations and removals durable.
    fn sync_directory(&self, directory: &Path) -> Result<(), StoreError> {
        sync_directory(directory)
    }
}

/// The machine's own.
pub(super) struct RealDisk;

impl Disk for RealDisk {}

/// What the journal knows of one segment.
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) mark: u32,
    pub(super) first_sequence: u64,
    /// Length with everything put, in bytes.
    pub(super) length: u32,
    /// How much of it is durable, in bytes.
    pub(super) durable: u32,
    pub(super) live_records: u64,
    /// Of them, in bytes.
    pub(super) live_bytes: u64,
    /// `None` until the committer has made the file.
    pub(super) file: Option<Arc<dyn SegmentFile>>,
}

impl Segment {
    /// A segment that is not on the disk yet.
    pub(super) fn new(number: u32, first_sequence: u64) -> Segment {
        // Keyed by the operating system's random numbers.
        let [a, b, c, d, ..] = RandomState::new().hash_one(number).to_le_bytes();
        Segment {
            number,
            mark: u32::from_le_bytes([a, b, c, d]),
            first_sequence,
            length: HEADER_BYTES,
            durable: HEADER_BYTES,
            live_records: 0,
            live_bytes: 0,
            file: None,
        }
    }

    pub(super) fn header(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.mark.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the file of segment `number`.
    pub(super) fn read(number: u32, path: &Path, bytes: &[u8]) -> Result<Segment, StoreError> {
        let damaged = |reason| StoreError::Damaged {
            file: path.to_path_buf(),
            offset: 0,
            reason,
        };
        let header = bytes
            .get(..HEADER_BYTES as usize)
            .ok_or(damaged("its header is cut"))?;
        let (covered, crc) = header
            .split_last_chunk::<4>()
            .ok_or(damaged("its header is cut"))?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            return Err(damaged("its header's checksum does not match"));
        }
        let field = |at: usize| {
            let bytes = covered.get(at..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        if !covered.starts_with(MAGIC) {
            return Err(damaged("it is not a journal's segment"));
        }
        let format = field(8);
        if format > FORMAT {
            let what = format!("the journal file {}", path.display());
            return Err(StoreError::Newer {
                what,
                found: format,
                known: FORMAT,
            });
        }
        if format != FORMAT || field(16) != number {
            return Err(damaged("its header names another segment"));
        }
        let first_sequence = u64::from(field(20)) | u64::from(field(24)) << 32;
        let mark = field(12);
        Ok(Segment {
            mark,
            ..Segment::new(number, first_sequence)
        })
    }
}

pub(super) fn path(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:08x}.log"))
}

/// The number in the name of a segment's file.
pub(super) fn number(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    if digits.len() == 8 {
        u32::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_no_flipped_bit_goes_unseen() {
        let segment = Segment::new(7, 0x0123_4567_89ab_cdef);
        let bytes = segment.header();
        assert_eq!(bytes.len(), HEADER_BYTES as usize);
        let path = Path::new("00000007.log");
        let read = Segment::read(7, path, &bytes).unwrap();
        assert_eq!(
            (read.mark, read.first_sequence),
            (segment.mark, segment.first_sequence)
        );
        assert!(Segment::read(8, path, &bytes).is_err());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(Segment::read(7, path, &flipped).is_err(), "byte {at}");
            assert!(Segment::read(7, path, &bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let mut bytes = Segment::new(7, 1).header();
        bytes[8] = 9;
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        let error = Segment::read(7, Path::new("00000007.log"), &bytes);
        assert!(matches!(
            error,
            Err(StoreError::Newer {
                found: 9,
                known: 1,
                ..
            })
        ));
    }

    #[test]
    fn names_carry_their_number() {
        assert_eq!(number(&path(Path::new("d"), 0xabc)), Some(0xabc));
        for other in [
            "d/lock",
            "d/abc.log",
            "d/0000000g.log",
            "d/00000001.log.old",
        ] {
            assert_eq!(number(Path::new(other)), None, "{other}");
        }
    }
}
