//! The database's place on the disk, and its rewriting: sled does not give space back under churn,
//! so a database far larger than its rows is copied into a fresh one when it is opened.
//!
//! The database lives in `tables.N`. A copy is made as `tables.N+1.new` and takes over by one
//! rename to `tables.N+1`, once it is durable. The highest N without `.new` is the one that
//! counts; all else is what a crash left and goes. So there is no moment without a whole database.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CACHE_BYTES, StoreError};
use crate::files::{create_directory, sync_directory};

/// When a database is rewritten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Only past so many bytes on the disk for each byte of keys and values,
    pub(super) amplification_max: u64,
    /// and so many bytes more: small databases are let be.
    pub(super) slack_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            amplification_max: 4,
            slack_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Rows copied per batch.
const COPY_ROWS: usize = 1000;

/// Opens the database below `directory`, rewritten where it is due; also tells its path.
pub(super) fn open_current(
    directory: &Path,
    bounds: Bounds,
) -> Result<(sled::Db, PathBuf), StoreError> {
    let generation = settle(directory)?;
    let path = path_of(directory, generation);
    create_directory(&path, 0o700)?;
    let db = open(&path)?;
    let on_disk = db.size_on_disk().map_err(StoreError::database("measure"))?;
    if on_disk <= bounds.slack_bytes {
        return Ok((db, path));
    }
    let live = live_bytes(&db)?;
    if on_disk
        <= live
            .saturating_mul(bounds.amplification_max)
            .saturating_add(bounds.slack_bytes)
    {
        return Ok((db, path));
    }
    tracing::info!(on_disk, live, "rewriting the tables to give space back");
    let fresh = directory.join(format!("tables.{}.new", generation + 1));
    copy(&db, &fresh)?;
    drop(db);
    let path = path_of(directory, generation + 1);
    fs::rename(&fresh, &path).map_err(|e| StoreError::io("rename", &fresh, e))?;
    sync_directory(directory)?;
    settle(directory)?;
    let db = open(&path)?;
    Ok((db, path))
}

fn path_of(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("tables.{generation}"))
}

/// Finds the generation that counts (1 where there is none) and removes what a crash left.
fn settle(directory: &Path) -> Result<u64, StoreError> {
    let list = |e| StoreError::io("list", directory, e);
    let mut generations = Vec::new();
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let Some(rest) = name.strip_prefix("tables.") else {
            continue;
        };
        if let Some(number) = rest.strip_suffix(".new") {
            if number.parse::<u64>().is_ok() {
                leftovers.push(path);
            }
        } else if let Ok(generation) = rest.parse::<u64>() {
            generations.push(generation);
        }
    }
    generations.sort_unstable();
    let current = generations.pop().unwrap_or(1);
    leftovers.extend(generations.iter().map(|older| path_of(directory, *older)));
    for path in leftovers {
        fs::remove_dir_all(&path).map_err(|e| StoreError::io("remove", &path, e))?;
    }
    Ok(current)
}

fn open(path: &Path) -> Result<sled::Db, StoreError> {
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Every commit flushes; a timer would only flush what nobody waits for.
        .flush_every_ms(None)
        .open()
        .map_err(StoreError::database("open"))?;
    sync_directory(path)?;
    Ok(db)
}

fn live_bytes(db: &sled::Db) -> Result<u64, StoreError> {
    let mut bytes: u64 = 0;
    for name in db.tree_names() {
        let tree = db
            .open_tree(&name)
            .map_err(StoreError::database("open a table"))?;
        for row in &tree {
            let (key, value) = row.map_err(StoreError::database("read"))?;
            bytes = bytes.saturating_add((key.len() + value.len()) as u64);
        }
    }
    Ok(bytes)
}

/// Copies every table into a new database at `path` and makes it durable.
fn copy(from: &sled::Db, path: &Path) -> Result<(), StoreError> {
    create_directory(path, 0o700)?;
    let to = open(path)?;
    for name in from.tree_names() {
        let source = from
            .open_tree(&name)
            .map_err(StoreError::database("open a table"))?;
        let target = to
            .open_tree(&name)
            .map_err(StoreError::database("open a table"))?;
        let mut batch = sled::Batch::default();
        let mut rows = 0;
        for row in &source {
            let (key, value) = row.map_err(StoreError::database("read"))?;
            batch.insert(key, value);
            rows += 1;
            if rows == COPY_ROWS {
                let full = std::mem::take(&mut batch);
                target
                    .apply_batch(full)
                    .map_err(StoreError::database("copy"))?;
                rows = 0;
            }
        }
        target
            .apply_batch(batch)
            .map_err(StoreError::database("copy"))?;
    }
    to.flush().map_err(StoreError::database("flush"))?;
    drop(to);
    let file = path.join("db");
    fs::File::open(&file)
        .and_then(|file| file.sync_all())
        .map_err(|e| StoreError::io("sync", &file, e))?;
    sync_directory(path)
}
