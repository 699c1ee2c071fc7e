//! What was durable, noted beside the segments: where the newest segment was cut short, or is missing, it would
//! otherwise be taken for the torn tail of a crash, and where the oldest is missing, for one that was deleted. Noted
//! when a segment is begun, before one is deleted, and when the journal is closed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::segment::Disk;
use crate::error::StoreError;

/// A lower bound of what a journal must hold; all zero where nothing was noted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// The sequence number up to which records were durable.
    pub(super) sequence: u64,
    /// The newest segment whose header was durable.
    pub(super) segment: u32,
    /// The newest segment that may have been deleted; `None` where an older program noted the rest.
    pub(super) deleted: Option<u32>,
}

/// `NAME.mark` beside the journal's directory: its numbers, in decimal.
fn path(directory: &Path) -> PathBuf {
    let mut name = OsString::from(directory);
    name.push(".mark");
    name.into()
}

impl Mark {
    pub(super) fn read(directory: &Path, disk: &dyn Disk) -> Result<Mark, StoreError> {
        let path = path(directory);
        let text = match disk.read_note(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Mark::default());
            }
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        parse(&text).ok_or(StoreError::Damaged {
            file: path,
            offset: 0,
            reason: "it is not a sequence number, a segment's, and the newest deleted one's",
        })
    }

    pub(super) fn note(self, directory: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
        let deleted = self.deleted.map(|deleted| format!(" {deleted}"));
        let deleted = deleted.unwrap_or_default();
        let text = format!("{} {}{deleted}\n", self.sequence, self.segment);
        disk.write_note(&path(directory), &text)
    }
}

fn parse(text: &str) -> Option<Mark> {
    let mut numbers = text.trim().split(' ');
    let mark = Mark {
        sequence: numbers.next()?.parse().ok()?,
        segment: numbers.next()?.parse().ok()?,
        deleted: match numbers.next() {
            Some(deleted) => Some(deleted.parse().ok()?),
            None => None,
        },
    };
    numbers.next().is_none().then_some(mark)
}
