//! A view over the table that remembers what it read and wrote, and commits as one atomic batch. Several
//! requests may share one, so that a thousand devices that report at once cost one flush.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use store::{Expect, Stored, Table, Write};

use crate::Error;

struct Cell {
    /// What the row was when it was first looked at; `None` where it was only written.
    expect: Expect,
    /// The typed value as JSON; `None` where there is no row.
    value: Option<serde_json::Value>,
    write: Option<Write>,
}

pub(super) struct Transaction<'t> {
    table: &'t Table,
    cells: BTreeMap<String, Cell>,
}

fn shape(error: &serde_json::Error) -> Error {
    Error::Malformed {
        what: "stored row",
        why: error.to_string(),
    }
}

impl<'t> Transaction<'t> {
    pub(super) const fn new(table: &'t Table) -> Self {
        Self {
            table,
            cells: BTreeMap::new(),
        }
    }

    pub(super) fn get<T: Stored>(&mut self, key: &str) -> Result<Option<T>, Error> {
        let cell = match self.cells.entry(key.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(empty) => {
                let row = self.table.get_as::<T>(key)?;
                let expect = row
                    .as_ref()
                    .map_or(Expect::Absent, |row| Expect::Revision(row.revision));
                let value = row
                    .map(|row| serde_json::to_value(&row.value))
                    .transpose()
                    .map_err(|e| shape(&e))?;
                empty.insert(Cell {
                    expect,
                    value,
                    write: None,
                })
            }
        };
        cell.value
            .clone()
            .map(serde_json::from_value)
            .transpose()
            .map_err(|e| shape(&e))
    }

    pub(super) fn put<T: Stored>(&mut self, key: String, value: &T) -> Result<(), Error> {
        let expect = self.cells.get(&key).map_or(Expect::Any, |cell| cell.expect);
        let write = Write::put(key.clone(), value, expect)?;
        let value = serde_json::to_value(value).map_err(|e| shape(&e))?;
        self.cells.insert(
            key,
            Cell {
                expect,
                value: Some(value),
                write: Some(write),
            },
        );
        Ok(())
    }

    pub(super) fn delete(&mut self, key: String) {
        let expect = self.cells.get(&key).map_or(Expect::Any, |cell| cell.expect);
        let write = Some(Write::delete(key.clone(), expect));
        self.cells.insert(
            key,
            Cell {
                expect,
                value: None,
                write,
            },
        );
    }

    /// Whether this row was read or written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.cells.contains_key(key)
    }

    /// Keys under `prefix`, in order, at most `limit`, as they will be after this transaction.
    pub(super) fn keys(&self, prefix: &str, limit: usize) -> Result<Vec<String>, Error> {
        let pending = || {
            self.cells
                .range(prefix.to_owned()..)
                .take_while(|(key, _)| key.starts_with(prefix))
        };
        let gone = pending().filter(|(_, cell)| cell.value.is_none()).count();
        let mut keys: BTreeMap<String, ()> = self
            .table
            .scan(prefix, None, limit + gone)?
            .into_iter()
            .map(|(key, _)| (key, ()))
            .collect();
        for (key, cell) in pending() {
            if cell.value.is_some() {
                keys.insert(key.clone(), ());
            } else {
                keys.remove(key);
            }
        }
        Ok(keys.into_keys().take(limit).collect())
    }

    /// Makes everything written durable, or nothing.
    pub(super) fn commit(self) -> Result<(), Error> {
        let writes: Vec<Write> = self
            .cells
            .into_values()
            .filter_map(|cell| cell.write)
            .collect();
        if !writes.is_empty() {
            self.table.batch(&writes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use store::Store;

    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Number(u32);
    impl Stored for Number {}

    #[test]
    fn it_reads_what_it_wrote_and_commits_it_whole() {
        let dir = tempfile::tempdir().unwrap();
        let table = Store::open(dir.path()).unwrap().table("t").unwrap();
        let mut first = Transaction::new(&table);
        first.put("a/1".into(), &Number(1)).unwrap();
        first.put("a/2".into(), &Number(2)).unwrap();
        first.commit().unwrap();

        let mut second = Transaction::new(&table);
        assert_eq!(second.get::<Number>("a/1").unwrap(), Some(Number(1)));
        second.delete("a/1".into());
        second.put("a/3".into(), &Number(3)).unwrap();
        second.put("b".into(), &Number(9)).unwrap();
        assert_eq!(second.get::<Number>("a/1").unwrap(), None);
        assert_eq!(second.keys("a/", 1).unwrap(), ["a/2"]);
        assert_eq!(second.keys("a/", 9).unwrap(), ["a/2", "a/3"]);
        second.commit().unwrap();
        assert!(table.get("a/1").unwrap().is_none());
        assert!(table.get("a/3").unwrap().is_some());
    }

    #[test]
    fn a_row_that_changed_meanwhile_stops_it() {
        let dir = tempfile::tempdir().unwrap();
        let table = Store::open(dir.path()).unwrap().table("t").unwrap();
        let mut slow = Transaction::new(&table);
        assert_eq!(slow.get::<Number>("a").unwrap(), None);
        table
            .batch(&[Write::put("a", &Number(1), Expect::Any).unwrap()])
            .unwrap();
        slow.put("a".into(), &Number(2)).unwrap();
        assert!(slow.commit().is_err());
        assert_eq!(
            table.get_as::<Number>("a").unwrap().unwrap().value,
            Number(1)
        );
    }
}
