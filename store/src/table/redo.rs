//! A batch too large for one write of the database is written to a file first, then in parts; a start that finds the
//! file whole and the batch not finished does it again. So it happens whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use super::head::Head;
use super::spill::Spilled;
use super::window::{self, Edit, Window};
use crate::error::StoreError;
use crate::files::{patiently, sync_directory};

/// The file in the data directory; empty where no batch is under way.
const FILE: &str = "tables.redo";
/// How the file begins. Then: a CRC-32 of all that follows, the revision, the table's name, the edits; numbers big endian.
const MAGIC: &[u8; 4] = b"MRD1";
/// In the place of a length: the key goes.
const GONE: u32 = u32::MAX;

/// The file of the one batch that is written in parts.
pub(super) struct Redo {
    path: PathBuf,
}

/// A batch as the file has it.
#[derive(Debug, PartialEq, Eq)]
struct Unfinished {
    revision: u64,
    table: Vec<u8>,
    edits: Vec<Edit>,
}

impl Redo {
    /// Of the data directory.
    pub(super) fn new(directory: &Path) -> Redo {
        Redo {
            path: directory.join(FILE),
        }
    }

    /// Finishes what a crash left unfinished, durably; `database` is where it lies.
    pub(super) fn recover(&self, db: &sled::Db, database: &Path) -> Result<(), StoreError> {
        let mut content = Vec::new();
        match File::open(&self.path).and_then(|mut file| file.read_to_end(&mut content)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("read", &self.path, error)),
        }
        // One that is not whole was never begun: the file is durable before.
        let Some(batch) = Unfinished::decode(&content) else {
            return Ok(());
        };
        if !db.tree_names().iter().any(|name| *name == batch.table) {
            return Ok(());
        }
        let tree = db
            .open_tree(&batch.table)
            .map_err(StoreError::database("open a table"))?;
        // The head is a batch's last edit, so the first batch of a table that was cut short has left rows and none. Nothing
        // else looks like that here: only tables that have chunks are written in parts.
        if Head::of(&tree)?.is_none_or(|head| head.revision < batch.revision) {
            tracing::info!(
                revision = batch.revision,
                "finishing a change that was cut short"
            );
            let window = Window::default();
            for part in window::parts(&batch.edits) {
                window.apply(db, &tree, part)?;
            }
            window.flush(db)?;
            // For good, before another batch takes the file.
            Spilled::new(database).sync()?;
            File::open(database.join("db"))
                .and_then(|file| file.sync_data())
                .map_err(|e| StoreError::io("sync", database, e))?;
        }
        Ok(())
    }

    /// Makes the batch one that will be finished; its last edit is the head with `revision`.
    pub(super) fn begin(
        &self,
        tree: &sled::Tree,
        revision: u64,
        edits: &[Edit],
    ) -> Result<(), StoreError> {
        let new = !self.path.exists();
        let write = |e| StoreError::io("write", &self.path, e);
        let open = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&self.path)
        };
        let mut file = patiently(open).map_err(write)?;
        file.write_all(&encode(&tree.name(), revision, edits))
            .map_err(write)?;
        file.sync_all().map_err(write)?;
        match self.path.parent() {
            Some(directory) if new => sync_directory(directory),
            _ => Ok(()),
        }
    }

    /// Gives the room back, once the batch is durable.
    pub(super) fn end(&self) -> Result<(), StoreError> {
        patiently(|| File::create(&self.path))
            .map(drop)
            .map_err(|e| StoreError::io("empty", &self.path, e))
    }
}

fn encode(table: &[u8], revision: u64, edits: &[Edit]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u64(revision);
    put(&mut body, table);
    for edit in edits {
        put(&mut body, &edit.key);
        match &edit.bytes {
            Some(bytes) => put(&mut body, bytes),
            None => body.put_u32(GONE),
        }
    }
    let mut content = Vec::with_capacity(MAGIC.len() + 4 + body.len());
    content.put_slice(MAGIC);
    content.put_u32(crc32fast::hash(&body));
    content.append(&mut body);
    content
}

fn put(body: &mut Vec<u8>, bytes: &[u8]) {
    // Rows are bounded far below; one that were not could not be read again, so it must not look like another.
    body.put_u32(u32::try_from(bytes.len()).unwrap_or(GONE));
    body.put_slice(bytes);
}

impl Unfinished {
    /// `None` where the content is not whole.
    fn decode(content: &[u8]) -> Option<Unfinished> {
        let mut rest = content.strip_prefix(MAGIC)?;
        let crc = rest.try_get_u32().ok()?;
        if crc32fast::hash(rest) != crc {
            return None;
        }
        let revision = rest.try_get_u64().ok()?;
        let table = take(&mut rest)??;
        let mut edits = Vec::new();
        while !rest.is_empty() {
            let key = take(&mut rest)??;
            let bytes = take(&mut rest)?;
            edits.push(Edit { key, bytes });
        }
        Some(Unfinished {
            revision,
            table,
            edits,
        })
    }
}

fn take(rest: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let length = rest.try_get_u32().ok()?;
    if length == GONE {
        return Some(None);
    }
    let (taken, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(taken.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::table::HEAD_KEY;
    use crate::{Expect, Store, Write};

    const ROWS: usize = 3000;

    fn put(row: usize, value: u8) -> Write {
        Write::Put {
            key: format!("lamp/{row:05}"),
            value: vec![value; 100],
            expect: Expect::Any,
        }
    }

    fn all(value: u8) -> Vec<Write> {
        (0..ROWS).map(|row| put(row, value)).collect()
    }

    fn values(directory: &Path) -> (u64, Vec<u8>) {
        let store = Store::open(directory).unwrap();
        let rows = store.table("t").unwrap().scan("", None, usize::MAX);
        let values = rows.unwrap().iter().map(|(_, row)| row.value[0]).collect();
        (store.revision(), values)
    }

    /// What makes the tree as it is.
    fn edits_of(tree: &sled::Tree) -> Vec<Edit> {
        tree.iter()
            .map(|pair| pair.unwrap())
            .map(|(key, bytes)| Edit {
                key: key.to_vec(),
                bytes: Some(bytes.to_vec()),
            })
            .collect()
    }

    /// That of a data directory, and its one table.
    fn database(directory: &Path) -> (sled::Db, sled::Tree) {
        let config = sled::Config::new()
            .path(directory.join("tables.1"))
            .segment_size(window::SEGMENT_BYTES);
        let db = config.open().unwrap();
        let tree = db.open_tree("t").unwrap();
        (db, tree)
    }

    /// The edits of a batch that makes all rows 2, beside a directory in which they are 1.
    fn begun(directory: &Path) -> (Vec<Edit>, Vec<u8>) {
        let other = tempfile::tempdir().unwrap();
        for place in [directory, other.path()] {
            let store = Store::open(place).unwrap();
            store.table("t").unwrap().batch(&all(1)).unwrap();
        }
        let store = Store::open(other.path()).unwrap();
        let table = store.table("t").unwrap();
        table.batch(&all(2)).unwrap();
        let mut edits = edits_of(&table.opened.tree);
        assert_eq!(edits.last().unwrap().key, HEAD_KEY);
        // A key that is not there: removals are done again too.
        let gone = Edit {
            key: b"zzz".to_vec(),
            bytes: None,
        };
        edits.insert(7, gone);
        let content = encode(b"t", 2, &edits);
        (edits, content)
    }

    #[test]
    fn a_batch_cut_short_after_any_part_is_finished_and_one_not_begun_never_was() {
        let home = tempfile::tempdir().unwrap();
        let (edits, content) = begun(home.path());
        let parts = window::parts(&edits);
        assert!(parts.len() > 1);
        let (file, before) = (home.path().join(FILE), vec![1; ROWS]);
        // Torn, at any length, and with nothing of it in the database.
        for length in [0, 3, 4, 8, 9, 30, content.len() / 2, content.len() - 1] {
            fs::write(&file, &content[..length]).unwrap();
            assert_eq!(values(home.path()), (1, before.clone()));
        }
        for done in 0..parts.len() {
            fs::write(&file, &content).unwrap();
            let (db, tree) = database(home.path());
            let old = Head {
                revision: 1,
                ..Head::of(&tree).unwrap().unwrap()
            };
            tree.insert(HEAD_KEY, &old.to_bytes()).unwrap();
            let window = Window::default();
            for part in &parts[..done] {
                window.apply(&db, &tree, part).unwrap();
            }
            drop((tree, db));
            assert_eq!(values(home.path()), (2, vec![2; ROWS]), "{done} parts");
        }
    }

    #[test]
    fn the_first_batch_of_a_table_cut_short_after_any_part_is_finished() {
        let other = tempfile::tempdir().unwrap();
        let store = Store::open(other.path()).unwrap();
        let table = store.table("t").unwrap();
        table.batch(&all(1)).unwrap();
        let edits = edits_of(&table.opened.tree);
        let parts = window::parts(&edits);
        for done in 0..parts.len() {
            let home = tempfile::tempdir().unwrap();
            let (db, tree) = database(home.path());
            let window = Window::default();
            for part in &parts[..done] {
                window.apply(&db, &tree, part).unwrap();
            }
            drop((tree, db));
            fs::write(home.path().join(FILE), encode(b"t", 1, &edits)).unwrap();
            assert_eq!(values(home.path()), (1, vec![1; ROWS]), "{done} parts");
        }
    }

    #[test]
    fn one_that_is_done_is_not_done_again_over_what_came_later() {
        let home = tempfile::tempdir().unwrap();
        let (_, content) = begun(home.path());
        let store = Store::open(home.path()).unwrap();
        let table = store.table("t").unwrap();
        table.batch(&all(2)).unwrap();
        assert_eq!(fs::metadata(home.path().join(FILE)).unwrap().len(), 0);
        table.batch(&[put(5, 9)]).unwrap();
        drop((table, store));
        fs::write(home.path().join(FILE), content).unwrap();
        let (revision, values) = values(home.path());
        assert_eq!((revision, values[5], values[6]), (3, 9, 2));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_nothing_damaged_is(
            revision: u64,
            edits in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..20),
            at: prop::sample::Index,
            bit in 0..8u8,
        ) {
            let edits: Vec<_> = edits.into_iter().map(|(key, bytes)| Edit { key, bytes }).collect();
            let mut content = encode(b"name", revision, &edits);
            let whole = Unfinished { revision, table: b"name".to_vec(), edits };
            prop_assert_eq!(Unfinished::decode(&content), Some(whole));
            let at = at.index(content.len());
            prop_assert_eq!(Unfinished::decode(&content[..at]), None);
            content[at] ^= 1 << bit;
            prop_assert_eq!(Unfinished::decode(&content), None);
        }
    }
}
