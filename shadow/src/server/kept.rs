//! Rows as a batch of requests sees them: what was read, and what it has changed and not committed yet.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use store::{Expect, Stored, Table, Write};

use super::ShadowError;
use super::records::{NamesRow, ShadowRow};

/// A row under its key, as it is to be; `None` where there is none.
struct Cell<T> {
    value: Option<T>,
    changed: bool,
}

/// See the module. Nobody else writes meanwhile.
pub(super) struct Kept<'t> {
    table: &'t Table,
    shadows: BTreeMap<String, Cell<ShadowRow>>,
    names: BTreeMap<String, Cell<NamesRow>>,
}

fn find<'c, T: Stored>(
    cells: &'c mut BTreeMap<String, Cell<T>>,
    table: &Table,
    key: &str,
) -> Result<&'c Cell<T>, ShadowError> {
    Ok(match cells.entry(key.to_owned()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(unknown) => unknown.insert(Cell {
            value: table.get_as::<T>(key)?.map(|row| row.value),
            changed: false,
        }),
    })
}

fn add_writes<T: Stored>(
    cells: &BTreeMap<String, Cell<T>>,
    batch: &mut Vec<Write>,
) -> Result<(), ShadowError> {
    for (key, cell) in cells.iter().filter(|(_, cell)| cell.changed) {
        batch.push(match &cell.value {
            Some(value) => Write::put(key.clone(), value, Expect::Any)?,
            None => Write::delete(key.clone(), Expect::Any),
        });
    }
    Ok(())
}

impl<'t> Kept<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self {
            table,
            shadows: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// A shadow's row, if it is of this very thing.
    pub(super) fn shadow(
        &mut self,
        key: &str,
        thing: &str,
    ) -> Result<Option<ShadowRow>, ShadowError> {
        let cell = find(&mut self.shadows, self.table, key)?;
        Ok(cell.value.clone().filter(|row| row.thing == thing))
    }

    pub(super) fn put_shadow(&mut self, key: String, row: ShadowRow) {
        let value = Some(row);
        let changed = true;
        self.shadows.insert(key, Cell { value, changed });
    }

    /// Forgets a shadow for good.
    pub(super) fn forget_shadow(&mut self, key: String) {
        let (value, changed) = (None, true);
        self.shadows.insert(key, Cell { value, changed });
    }

    /// The names of this very thing's shadows.
    pub(super) fn names(&mut self, key: &str, thing: &str) -> Result<NamesRow, ShadowError> {
        let cell = find(&mut self.names, self.table, key)?;
        let row = cell.value.clone().filter(|row| row.thing == thing);
        Ok(row.unwrap_or_else(|| NamesRow::new(thing)))
    }

    pub(super) fn put_names(&mut self, key: String, row: NamesRow) {
        let value = Some(row);
        let changed = true;
        self.names.insert(key, Cell { value, changed });
    }

    /// Makes all of it durable, or nothing.
    pub(super) fn commit(self) -> Result<(), ShadowError> {
        let mut batch = Vec::new();
        add_writes(&self.shadows, &mut batch)?;
        add_writes(&self.names, &mut batch)?;
        if !batch.is_empty() {
            self.table.batch(&batch)?;
        }
        Ok(())
    }
}
