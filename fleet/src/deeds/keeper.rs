//! Numbers entries, chains them, and deletes those past the bounds.

use super::{Deed, millis};
use crate::FleetError;
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use store::{Expect, StoreError, Stored, Table, Write};

/// Entries that came within this are chained together.
const CHAIN_EVERY: Duration = Duration::from_secs(1);
/// How often the bounds are looked at where nothing is written.
const BOUNDS_EVERY: Duration = Duration::from_secs(3600);
/// Entries past the bounds before they are looked at meanwhile.
const SLACK_ITEMS: u64 = 1_000;
/// Rows read or deleted at once.
pub(super) const PAGE_ITEMS: usize = 1_000;

pub(super) const DEED: &str = "deed/";
/// Up to where entries are chained.
pub(super) const HEAD: &str = "meta/deeds-head";
/// From where they are kept.
pub(super) const FROM: &str = "meta/deeds-from";

pub(super) fn key(number: u64) -> String {
    format!("{DEED}{number:016x}")
}

pub(super) fn number_of(key: &str) -> Option<u64> {
    u64::from_str_radix(key.strip_prefix(DEED)?, 16).ok()
}

/// How much of the record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeedBounds {
    /// For how long.
    pub age: Duration,
    /// Of these the newest.
    pub entries: u64,
}

impl Default for DeedBounds {
    /// Four hundred days, a million entries.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(400 * 24 * 3600),
            entries: 1_000_000,
        }
    }
}

/// A point of the chain: what all entries before a number come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    /// The number of the first entry that is not in it.
    pub(super) upto: u64,
    /// Lower-case hex SHA-256.
    pub(super) hash: String,
    /// How many entries are in it.
    pub(super) entries: u64,
}

impl Stored for Point {}

impl Default for Point {
    fn default() -> Self {
        Self {
            upto: 0,
            hash: HEXLOWER.encode(&[0; 32]),
            entries: 0,
        }
    }
}

impl Point {
    /// Adds an entry, as it lies in the store.
    pub(super) fn add(&mut self, number: u64, value: &[u8]) {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.hash.as_bytes());
        context.update(&number.to_be_bytes());
        context.update(value);
        self.hash = HEXLOWER.encode(context.finish().as_ref());
        self.upto = number.saturating_add(1);
        self.entries += 1;
    }
}

pub(super) fn point(table: &Table, key: &str) -> Result<Option<Point>, StoreError> {
    Ok(table.get_as::<Point>(key)?.map(|row| row.value))
}

/// Entries from a number on, below another, as they lie in the store.
pub(super) fn rows(
    table: &Table,
    from: u64,
    below: u64,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let after = from.checked_sub(1).map(key);
    let found = table.scan(DEED, after.as_deref(), PAGE_ITEMS)?;
    let numbered = found
        .into_iter()
        .filter_map(|(key, row)| Some((number_of(&key)?, row.value)));
    Ok(numbered.filter(|(number, _)| *number < below).collect())
}

struct Numbers {
    next: u64,
    /// First numbers of what is on its way to the disk.
    under_way: BTreeSet<u64>,
}

struct Shared {
    table: Table,
    numbers: Mutex<Numbers>,
    bounds: Mutex<DeedBounds>,
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    /// Gone when the registry is.
    nudge: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    /// Returns when all entries are chained and the store is let go of.
    fn drop(&mut self) {
        self.nudge = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been told by then.
            let _ = thread.join();
        }
    }
}

/// Numbers of entries that are being written. Given back when it is known whether they were.
pub(crate) struct Allotted<'k> {
    keeper: &'k Keeper,
    pub(crate) first: u64,
    count: usize,
}

impl Allotted<'_> {
    /// The writes of these entries; as many as were allotted.
    pub(crate) fn writes(&self, deeds: &[Deed]) -> Result<Vec<Write>, StoreError> {
        (self.first..)
            .zip(deeds)
            .map(|(number, deed)| Write::put(key(number), deed, Expect::Absent))
            .collect()
    }
}

impl Drop for Allotted<'_> {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        self.keeper
            .shared
            .numbers
            .lock()
            .under_way
            .remove(&self.first);
        if let Some(nudge) = &self.keeper.nudge {
            // Where it is full somebody else has nudged.
            let _ = nudge.try_send(());
        }
    }
}

impl Keeper {
    pub(crate) fn open(table: &Table) -> Result<Self, FleetError> {
        let mut next = point(table, HEAD)?.unwrap_or_default().upto;
        loop {
            let found = rows(table, next, u64::MAX)?;
            match found.last() {
                Some((number, _)) => next = number.saturating_add(1),
                None => break,
            }
        }
        let shared = Arc::new(Shared {
            table: table.clone(),
            numbers: Mutex::new(Numbers {
                next,
                under_way: BTreeSet::new(),
            }),
            bounds: Mutex::default(),
        });
        let (nudge, nudged) = sync_channel(1);
        let to = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fleet-record".into())
            .spawn(move || keep(&to, &nudged))
            .map_err(FleetError::Thread)?;
        Ok(Self {
            shared,
            nudge: Some(nudge),
            thread: Some(thread),
        })
    }

    pub(crate) fn allot(&self, count: usize) -> Allotted<'_> {
        let mut numbers = self.shared.numbers.lock();
        let first = numbers.next;
        if count > 0 {
            numbers.next = first.saturating_add(count as u64);
            numbers.under_way.insert(first);
        }
        Allotted {
            keeper: self,
            first,
            count,
        }
    }

    /// Below this number no entry comes to be any more.
    pub(super) fn settled(&self) -> u64 {
        self.shared.settled()
    }

    pub(super) fn bound(&self, bounds: DeedBounds) {
        *self.shared.bounds.lock() = bounds;
    }
}

fn keep(shared: &Shared, nudged: &Receiver<()>) {
    // At once: what the last run has left, and what became too old meanwhile.
    let (mut ends, mut due) = (false, Instant::now());
    loop {
        let done = shared.chain().and_then(|head| {
            if due > Instant::now() && !shared.is_over(&head)? {
                return Ok(());
            }
            due = Instant::now() + BOUNDS_EVERY;
            shared.cut(&head, SystemTime::now())
        });
        if let Err(error) = done {
            tracing::error!(%error, "the record is not chained or bounded");
        }
        if ends {
            return;
        }
        ends = match nudged.recv_timeout(BOUNDS_EVERY) {
            Ok(()) => rest(nudged),
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
    }
}

/// Waits for what else comes within the time; whether the end came.
fn rest(nudged: &Receiver<()>) -> bool {
    let until = Instant::now() + CHAIN_EVERY;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match nudged.recv_timeout(left) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}

impl Shared {
    fn settled(&self) -> u64 {
        let numbers = self.numbers.lock();
        let first = numbers.under_way.first();
        first.copied().unwrap_or(numbers.next)
    }

    /// Chains all entries that are on the disk; the head then.
    fn chain(&self) -> Result<Point, StoreError> {
        let settled = self.settled();
        let mut head = match point(&self.table, HEAD)? {
            Some(head) => head,
            None => point(&self.table, FROM)?.unwrap_or_default(),
        };
        loop {
            let found = rows(&self.table, head.upto, settled)?;
            if found.is_empty() {
                return Ok(head);
            }
            for (number, value) in &found {
                head.add(*number, value);
            }
            self.table.batch(&[Write::put(HEAD, &head, Expect::Any)?])?;
        }
    }

    /// Whether there are clearly more entries than are to be kept.
    fn is_over(&self, head: &Point) -> Result<bool, StoreError> {
        let from = point(&self.table, FROM)?.unwrap_or_default();
        let kept = head.entries.saturating_sub(from.entries);
        Ok(kept > self.bounds.lock().entries.saturating_add(SLACK_ITEMS))
    }

    /// Deletes what is past the bounds, the oldest first, and nothing that is not chained.
    fn cut(&self, head: &Point, now: SystemTime) -> Result<(), StoreError> {
        let bounds = *self.bounds.lock();
        let oldest = millis(
            now.checked_sub(bounds.age)
                .unwrap_or(SystemTime::UNIX_EPOCH),
        );
        let mut from = point(&self.table, FROM)?.unwrap_or_default();
        let mut young = 0_u64;
        loop {
            let kept = head.entries.saturating_sub(from.entries);
            let too_many = kept.saturating_sub(bounds.entries);
            let mut writes = Vec::new();
            for (number, value) in rows(&self.table, from.upto, head.upto)? {
                let read = Write::Put {
                    key: key(number),
                    value: value.clone(),
                    expect: Expect::Any,
                };
                // One that cannot be read goes by number alone.
                let deed = read.value_as::<Deed>().ok().flatten();
                let is_old = deed.is_some_and(|deed| deed.at < oldest);
                if !is_old && writes.len() as u64 >= too_many {
                    break;
                }
                young += u64::from(!is_old);
                from.add(number, &value);
                writes.push(Write::delete(key(number), Expect::Any));
            }
            if writes.is_empty() {
                if young > 0 {
                    tracing::warn!(
                        entries = young,
                        keep_entries = bounds.entries,
                        "entries of the record went before their time, because there are more than are kept: raise keep_entries"
                    );
                }
                return Ok(());
            }
            writes.push(Write::put(FROM, &from, Expect::Any)?);
            self.table.batch(&writes)?;
        }
    }
}
