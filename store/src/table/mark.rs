//! A lower bound of what was acknowledged, kept beside the database: sled takes a log that was emptied or cut
//! for one that was never written, and a registry that is silently empty forgets every revocation.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::files;

/// The file in the data directory: one revision, in decimal.
const FILE: &str = "tables.mark";

/// The highest revision known to be durable, as far as it was noted: at the first commit, whenever revisions have
/// doubled since, and when the database is closed.
pub(super) struct Mark {
    path: PathBuf,
    noted: u64,
}

impl Mark {
    /// Reads the mark of a data directory and holds the database against it.
    pub(super) fn check(
        directory: &Path,
        database: &Path,
        revision: u64,
    ) -> Result<Mark, StoreError> {
        let path = directory.join(FILE);
        let noted = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| StoreError::Damaged {
                file: path.clone(),
                offset: 0,
                reason: "it is not a revision",
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        if revision < noted {
            return Err(StoreError::Lost {
                database: database.to_path_buf(),
                found: revision,
                acknowledged: noted,
                mark: path,
            });
        }
        Ok(Mark { path, noted })
    }

    /// Notes `revision`, which is durable, where it is far enough past the last note.
    pub(super) fn reached(&mut self, revision: u64) -> Result<(), StoreError> {
        if self.noted == 0 || revision / 2 >= self.noted {
            return self.note(revision);
        }
        Ok(())
    }

    /// Notes `revision`, which is durable.
    pub(super) fn note(&mut self, revision: u64) -> Result<(), StoreError> {
        // A data directory that was removed meanwhile is not to come back with nothing but a mark.
        if revision > self.noted && self.path.parent().is_some_and(Path::is_dir) {
            files::write_private(&self.path, format!("{revision}\n").as_bytes())?;
            self.noted = revision;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Expect, Write};
    use crate::{Store, Table};

    fn put(table: &Table, key: &str) {
        let value = vec![0; 100];
        let write = Write::Put {
            key: key.into(),
            value,
            expect: Expect::Any,
        };
        table.batch(&[write]).unwrap();
    }

    fn filled(directory: &Path, rows: usize) {
        let store = Store::open(directory).unwrap();
        let table = store.table("t").unwrap();
        for row in 0..rows {
            put(&table, &row.to_string());
        }
    }

    #[test]
    fn a_directory_that_was_removed_is_not_made_again() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("store");
        let store = Store::open(&directory).unwrap();
        let table = store.table("t").unwrap();
        for row in 0..3 {
            put(&table, &row.to_string());
        }
        std::fs::remove_dir_all(&directory).unwrap();
        drop((table, store));
        assert!(!directory.exists());
    }

    fn refused(directory: &Path) -> StoreError {
        Store::open(directory).err().expect("it was opened")
    }

    #[test]
    fn an_emptied_zeroed_or_missing_database_is_not_taken_for_a_new_one() {
        for damage in ["empty", "zeroed", "no file", "no directory"] {
            let dir = tempfile::tempdir().unwrap();
            filled(dir.path(), 3);
            let database = dir.path().join("tables.1");
            let file = database.join("db");
            match damage {
                "empty" => fs::write(&file, b"").unwrap(),
                "zeroed" => fs::write(&file, vec![0; fs::read(&file).unwrap().len()]).unwrap(),
                "no file" => fs::remove_file(&file).unwrap(),
                _ => fs::remove_dir_all(&database).unwrap(),
            }
            let error = refused(dir.path());
            assert!(
                matches!(
                    error,
                    StoreError::Lost {
                        found: 0,
                        acknowledged: 3,
                        ..
                    }
                ),
                "{damage}: {error}"
            );
            let said = error.to_string();
            assert!(
                said.contains("backup") && said.contains("tables.1"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_database_cut_after_it_was_closed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 1);
        let file = dir.path().join("tables.1/db");
        let early = fs::read(&file).unwrap();
        filled(dir.path(), 40);
        fs::write(&file, early).unwrap();
        assert!(matches!(
            refused(dir.path()),
            StoreError::Lost {
                acknowledged: 41,
                ..
            }
        ));
    }

    #[test]
    fn the_first_commit_leaves_its_mark_without_a_close() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        put(&store.table("t").unwrap(), "k");
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "1\n");
    }

    #[test]
    fn a_mark_that_is_no_number_is_named() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 1);
        fs::write(dir.path().join(FILE), "many").unwrap();
        assert!(refused(dir.path()).to_string().contains(FILE));
    }
}
