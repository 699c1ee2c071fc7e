//! Denials that the log has named, kept to be explained later: by the policies as they were then.
//!
//! Whoever is denied waits for nothing: a thread of its own writes them down, and past its bound
//! the oldest go. What comes faster than the disk is not kept, and gets no id.

use crate::{Fleet, FleetError, ThingName};
use ca::CertificateId;
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::SystemTime,
};
use store::{Expect, Store, Stored, Table, Write};

const TABLE: &str = "denials";
/// Denials kept.
const KEPT_ITEMS: usize = 5_000;
/// Denials that wait for the disk.
const WAITING_ITEMS: usize = 256;
/// Characters of the longest text in an explanation that is kept whole.
const TEXT_MAX_CHARS: usize = 1_024;

/// A denial as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// When it was.
    pub at: SystemTime,
    /// The certificate that was denied.
    pub certificate: CertificateId,
    /// Its thing.
    pub thing: Option<ThingName>,
    /// The client id it was connected with.
    pub client_id: String,
    /// The explanation as of that moment, as JSON.
    pub explanation: serde_json::Value,
}

impl Stored for Denial {}

pub(crate) struct Denials {
    table: Table,
    /// When this run began, in seconds since 1970: ids are in order and none comes twice.
    started: u64,
    next: AtomicU64,
    /// Gone when the registry is.
    writer: Option<SyncSender<(String, Denial)>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Denials {
    /// Returns when what waits is written and the store is let go of.
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been told by then.
            let _ = thread.join();
        }
    }
}

impl Denials {
    pub(crate) fn open(store: &Store, now: SystemTime) -> Result<Self, FleetError> {
        let table = store.table(TABLE)?;
        let kept = table.scan(crate::keys::DENIAL, None, usize::MAX)?;
        let kept: VecDeque<String> = kept.into_iter().map(|(key, _)| key).collect();
        let (writer, waiting) = sync_channel(WAITING_ITEMS);
        let to = table.clone();
        let thread = std::thread::Builder::new()
            .name("fleet-denials".into())
            .spawn(move || write(&to, kept, &waiting))
            .map_err(FleetError::Thread)?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            table,
            started: since.map_or(0, |since| since.as_secs()),
            next: AtomicU64::new(0),
            writer: Some(writer),
            thread: Some(thread),
        })
    }
}

fn write(table: &Table, mut kept: VecDeque<String>, waiting: &Receiver<(String, Denial)>) {
    while let Ok((id, denial)) = waiting.recv() {
        let key = format!("{}{id}", crate::keys::DENIAL);
        let mut writes = Vec::new();
        match Write::put(key.clone(), &denial, Expect::Any) {
            Ok(put) => writes.push(put),
            Err(error) => {
                tracing::error!(%error, "a denial cannot be written down");
                continue;
            }
        }
        kept.push_back(key);
        while kept.len() > KEPT_ITEMS
            && let Some(oldest) = kept.pop_front()
        {
            writes.push(Write::delete(oldest, Expect::Any));
        }
        if let Err(error) = table.batch(&writes) {
            tracing::debug!(%error, "a denial is not kept");
        }
    }
}

impl Fleet {
    /// Keeps a denial; its id, under which [`Fleet::denial`] soon finds it. Does not block.
    pub fn keep_denial(&self, mut denial: Denial) -> Option<String> {
        shorten(&mut denial.explanation);
        let denials = &self.inner.denials;
        let number = denials.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{number:08x}", denials.started);
        let writer = denials.writer.as_ref()?;
        writer.try_send((id.clone(), denial)).ok()?;
        Some(id)
    }

    /// A denial that was kept; `None` where it is not there any more, or was never.
    ///
    /// # Errors
    /// When the store fails.
    pub fn denial(&self, id: &str) -> Result<Option<Denial>, FleetError> {
        let key = format!("{}{id}", crate::keys::DENIAL);
        let found = self.inner.denials.table.get_as::<Denial>(&key)?;
        Ok(found.map(|row| row.value))
    }
}

/// Cuts texts that an attacker could make long.
fn shorten(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(TEXT_MAX_CHARS) {
                text.truncate(at);
                text.push('…');
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(shorten),
        serde_json::Value::Object(members) => members.values_mut().for_each(shorten),
        _ => {}
    }
}
