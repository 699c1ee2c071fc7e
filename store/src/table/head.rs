//! What is known of a tree without going through it: kept in a row of its own, which every batch writes.

use super::HEAD_KEY;
use crate::error::StoreError;

/// What a tree says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Of its newest batch; 0 before the first.
    pub(super) revision: u64,
    /// Bytes of all its chunks and their keys.
    pub(super) live_bytes: u64,
}

/// How rows lie in the tree: in chunks. Before, each lay by itself and the row had nothing but the revision.
const IN_CHUNKS: u8 = 1;
/// The same, and there may be packs of what is in them (`packs.rs`): a release that does not know of packs would change
/// rows and leave packed values as they were, so it is to refuse this number.
const WITH_PACKS: u8 = 2;

impl Head {
    /// Reads it; `None` for a tree of before there were chunks.
    pub(super) fn of(tree: &sled::Tree) -> Result<Option<Head>, StoreError> {
        let read = tree.get(HEAD_KEY).map_err(StoreError::database("read"))?;
        let Some(bytes) = read else {
            return Ok(tree.is_empty().then(Head::default));
        };
        let mut parts = bytes
            .chunks(8)
            .map(|part| part.try_into().map(u64::from_be_bytes));
        let revision = parts.next().and_then(Result::ok);
        let live_bytes = parts.next().and_then(Result::ok);
        match (revision, live_bytes, bytes.get(16..)) {
            (Some(_), None, _) => Ok(None),
            (Some(revision), Some(live_bytes), Some([IN_CHUNKS | WITH_PACKS])) => Ok(Some(Head {
                revision,
                live_bytes,
            })),
            _ => Err(StoreError::Decode {
                key: "(the head of a table)".to_owned(),
                reason: "a newer release wrote it: start that one".to_owned(),
            }),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [WITH_PACKS; 17];
        let (revision, rest) = bytes.split_at_mut(8);
        revision.copy_from_slice(&self.revision.to_be_bytes());
        let (live_bytes, _) = rest.split_at_mut(8);
        live_bytes.copy_from_slice(&self.live_bytes.to_be_bytes());
        bytes
    }
}

/// The bytes of a tree's chunks and their keys, counted.
#[cfg(test)]
pub(super) fn count(tree: &sled::Tree) -> Result<u64, StoreError> {
    let mut bytes: u64 = 0;
    for row in tree {
        let (key, value) = row.map_err(StoreError::database("read"))?;
        if key != HEAD_KEY {
            bytes = bytes.saturating_add((key.len() + value.len()) as u64);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expect, Store, Table, Write};

    fn put(key: &str, bytes: usize) -> Write {
        Write::Put {
            key: key.to_owned(),
            value: vec![7; bytes],
            expect: Expect::Any,
        }
    }

    fn counted(table: &Table) -> u64 {
        let head = Head::of(&table.opened.tree).unwrap().unwrap();
        assert_eq!(head.live_bytes, count(&table.opened.tree).unwrap());
        head.live_bytes
    }

    #[test]
    fn bytes_are_counted_as_rows_come_change_and_go_and_are_known_again_after_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let table = store.table("t").unwrap();
        table.batch(&[put("a", 100), put("bb", 0)]).unwrap();
        let two = counted(&table);
        table.batch(&[put("a", 3)]).unwrap();
        assert_eq!(counted(&table), two - 97);
        let refused = Write::delete("bb", Expect::Absent);
        assert!(table.batch(&[put("d", 5), refused]).is_err());
        assert_eq!(counted(&table), two - 97);
        let many: Vec<_> = (0..500).map(|n| put(&format!("lamp/{n:04}"), n)).collect();
        table.batch(&many).unwrap();
        assert!(counted(&table) > 500 * 250);
        let gone: Vec<_> = many
            .iter()
            .map(|w| Write::delete(w.key(), Expect::Any))
            .collect();
        table.batch(&gone).unwrap();
        drop((table, store));
        let table = Store::open(directory.path()).unwrap().table("t").unwrap();
        let rest = [
            Write::delete("a", Expect::Any),
            Write::delete("bb", Expect::Any),
        ];
        table.batch(&rest).unwrap();
        assert_eq!(counted(&table), 0);
    }

    #[test]
    fn a_head_of_another_release_is_told_from_one_of_before_and_from_none() {
        let directory = tempfile::tempdir().unwrap();
        let db = sled::open(directory.path()).unwrap();
        let tree = db.open_tree("t").unwrap();
        assert_eq!(Head::of(&tree).unwrap(), Some(Head::default()));
        tree.insert("key", b"revision-and-value").unwrap();
        assert_eq!(Head::of(&tree).unwrap(), None);
        tree.insert(HEAD_KEY, &7_u64.to_be_bytes()).unwrap();
        assert_eq!(Head::of(&tree).unwrap(), None);
        let head = Head {
            revision: 7,
            live_bytes: 23,
        };
        tree.insert(HEAD_KEY, &head.to_bytes()).unwrap();
        assert_eq!(Head::of(&tree).unwrap(), Some(head));
        // Of before there were packs.
        let mut before = head.to_bytes();
        before[16] = IN_CHUNKS;
        tree.insert(HEAD_KEY, &before).unwrap();
        assert_eq!(Head::of(&tree).unwrap(), Some(head));
        tree.insert(HEAD_KEY, &[3; 17]).unwrap();
        assert!(Head::of(&tree).is_err());
    }
}
