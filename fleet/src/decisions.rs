//! What principals were seen to do, and whether they were allowed: for simulations of a change and
//! for the least policy.
//!
//! A connection tells of a decision when it makes it anew, not of each message by it. What is told
//! is summed up in memory and written down by a thread of its own every few seconds; a crash loses
//! those. Of one principal so many different topics are kept; what lies beyond is summed up by the
//! first two levels.

use crate::{Fleet, FleetError, Standing};
use ca::CertificateId;
use parking_lot::Mutex;
use policy::Action;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use store::{Expect, Store, StoreError, Stored, Table, Write};

const TABLE: &str = "decisions";
/// How often what was told is written down.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Different decisions that wait in memory; what is told beyond is dropped and counted.
const WAITING_ITEMS: usize = 100_000;
/// Different topics kept of one principal before they are summed up.
const PER_PRINCIPAL_ITEMS: usize = 256;
/// Bytes of the longest topic kept.
const NAME_MAX_BYTES: usize = 512;
/// Rows written at once.
const BATCH_ITEMS: usize = 500;
/// Rows read at once.
const PAGE_ITEMS: usize = 5_000;

/// Decisions of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it was decided anew.
    pub count: u64,
    /// The first time, in seconds since 1970.
    pub first: u64,
    /// The last time, in seconds since 1970.
    pub last: u64,
    /// What was decided, the last time.
    pub allowed: bool,
}

impl Stored for Tally {}

/// What a principal was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What.
    pub action: Action,
    /// On which topic, with which filter or client id. A topic that ends in `/#` stands for those
    /// below it.
    pub name: String,
    /// How often and when.
    pub tally: Tally,
}

type Waiting = BTreeMap<(CertificateId, &'static str, Box<str>), Tally>;

pub(crate) struct Decisions {
    notes: Arc<Notes>,
    /// Its end ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Decisions {
    /// Returns when what waits is written and the store is let go of.
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been told by then.
            let _ = thread.join();
        }
    }
}

struct Notes {
    table: Table,
    on: AtomicBool,
    waiting: Mutex<Waiting>,
    /// One writes at a time.
    writing: Mutex<()>,
    dropped: AtomicU64,
}

impl Decisions {
    pub(crate) fn open(store: &Store) -> Result<Self, FleetError> {
        let notes = Arc::new(Notes {
            table: store.table(TABLE)?,
            on: AtomicBool::new(true),
            waiting: Mutex::default(),
            writing: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let (end, ended) = channel();
        let writer = Arc::clone(&notes);
        let thread = std::thread::Builder::new()
            .name("fleet-decisions".into())
            .spawn(move || write(&writer, &ended))
            .map_err(FleetError::Thread)?;
        Ok(Self {
            notes,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

fn write(notes: &Notes, ended: &Receiver<()>) {
    loop {
        let waited = ended.recv_timeout(FLUSH_EVERY);
        if let Err(error) = notes.flush() {
            tracing::debug!(%error, "decisions are not written down");
        }
        if waited != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

impl Notes {
    fn note(&self, id: &CertificateId, action: Action, name: &str, allowed: bool, now: u64) {
        if !self.on.load(Ordering::Relaxed) || name.len() > NAME_MAX_BYTES {
            return;
        }
        let mut waiting = self.waiting.lock();
        let full = waiting.len() >= WAITING_ITEMS;
        let key = (*id, action.name(), Box::from(name));
        match waiting.get_mut(&key) {
            Some(tally) => tally.again(1, now, allowed),
            None if full => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                let tally = Tally {
                    count: 1,
                    first: now,
                    last: now,
                    allowed,
                };
                waiting.insert(key, tally);
            }
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        let _one = self.writing.lock();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let mut rows: BTreeMap<String, Tally> = BTreeMap::new();
        let mut known: Option<(CertificateId, BTreeSet<String>)> = None;
        for ((id, action, name), tally) in waiting {
            let prefix = of_principal(&id);
            if known.as_ref().is_none_or(|(of, _)| *of != id) {
                let kept = self.table.scan(&prefix, None, 2 * PER_PRINCIPAL_ITEMS)?;
                known = Some((id, kept.into_iter().map(|(key, _)| key).collect()));
            }
            let Some((_, keys)) = &mut known else {
                continue;
            };
            let mut key = format!("{prefix}{action}/{name}");
            if keys.len() >= PER_PRINCIPAL_ITEMS && !keys.contains(&key) {
                let summed = action == "Subscribe" || action == "Connect";
                let Some(above) = above(&name).filter(|_| !summed) else {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                key = format!("{prefix}{action}/{above}");
                if keys.len() >= 2 * PER_PRINCIPAL_ITEMS && !keys.contains(&key) {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
            keys.insert(key.clone());
            match rows.get_mut(&key) {
                Some(known) => known.join(&tally),
                None => {
                    let kept = self.table.get_as::<Tally>(&key)?.map(|row| row.value);
                    let joined = match kept {
                        Some(mut kept) => {
                            kept.join(&tally);
                            kept
                        }
                        None => tally,
                    };
                    rows.insert(key, joined);
                }
            }
        }
        let rows: Vec<(String, Tally)> = rows.into_iter().collect();
        for rows in rows.chunks(BATCH_ITEMS) {
            let puts = rows
                .iter()
                .map(|(key, tally)| Write::put(key.clone(), tally, Expect::Any));
            self.table.batch(&puts.collect::<Result<Vec<_>, _>>()?)?;
        }
        Ok(())
    }
}

impl Tally {
    fn again(&mut self, times: u64, now: u64, allowed: bool) {
        self.count = self.count.saturating_add(times);
        self.last = self.last.max(now);
        self.allowed = allowed;
    }

    fn join(&mut self, later: &Self) {
        self.again(later.count, later.last, later.allowed);
        self.first = self.first.min(later.first);
    }
}

fn of_principal(id: &CertificateId) -> String {
    format!("decision/{id}/")
}

/// What a topic is summed up by.
fn above(name: &str) -> Option<String> {
    let mut levels = name.split('/');
    let (first, second) = (levels.next()?, levels.next()?);
    levels.next()?;
    Some(format!("{first}/{second}/#"))
}

impl Fleet {
    /// Notes a decision of a principal at `now` (seconds since 1970). Does not block for long.
    pub fn note_decision(
        &self,
        standing: &Standing,
        action: Action,
        name: &str,
        allowed: bool,
        now: u64,
    ) {
        if !allowed
            && let Some(sink) = self.inner.events.denied.get()
            && let Some(thing) = &standing.now().thing
        {
            sink(thing);
        }
        self.inner
            .decisions
            .notes
            .note(standing.id(), action, name, allowed, now);
    }

    /// Whether decisions are noted from now on.
    pub fn record_decisions(&self, on: bool) {
        self.inner.decisions.notes.on.store(on, Ordering::Relaxed);
    }

    /// Goes through what a principal was seen to do.
    ///
    /// # Errors
    /// When the store fails.
    pub fn decisions(&self, id: &CertificateId) -> Result<Vec<Recorded>, FleetError> {
        self.inner.decisions.notes.flush()?;
        let prefix = of_principal(id);
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let table = &self.inner.decisions.notes.table;
            let rows = table.scan_as::<Tally>(&prefix, after.as_deref(), PAGE_ITEMS)?;
            let whole = rows.len() == PAGE_ITEMS;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, row) in rows {
                let rest = key
                    .strip_prefix(&prefix)
                    .and_then(|rest| rest.split_once('/'));
                if let Some((action, name)) = rest
                    && let Ok(action) = action.parse()
                {
                    all.push(Recorded {
                        action,
                        name: name.to_owned(),
                        tally: row.value,
                    });
                }
            }
            if !whole {
                return Ok(all);
            }
        }
    }
}
