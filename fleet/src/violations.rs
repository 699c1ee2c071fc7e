//! That a device has done what no sound device does: an operator's monitor says so, or the broker has seen it.
//!
//! Of what the broker sees one word is kept a minute for each thing, so that a device that misbehaves all the time costs
//! one row a minute. Whoever saw it waits for nothing: a thread of its own writes, and what comes faster than the disk is
//! not kept.

use crate::{
    Fleet, FleetError, Health, Kind, Standing, Thing, ThingName, keys, live::Live,
    records::Present, registry::CONFLICT_RETRIES,
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};
use store::{Expect, StoreError, Table, Write};

/// How long after a violation another that is seen is not written down.
pub const VIOLATION_EVERY: Duration = Duration::from_secs(60);
/// Violations that wait for the disk.
const WAITING_ITEMS: usize = 256;
/// Violations written at once.
const BATCH_ITEMS: usize = 64;

/// What a device did that no sound device does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When.
    pub at: SystemTime,
    /// What, in words.
    pub reason: String,
    /// Whether the broker has seen it itself; else an operator said so.
    pub seen: bool,
}

pub(crate) struct Violations {
    /// Gone when the registry is.
    writer: Option<SyncSender<(ThingName, Violation)>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Violations {
    /// Returns when what waits is written and the store is let go of.
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been told by then.
            let _ = thread.join();
        }
    }
}

impl Violations {
    /// Writes while whoever holds `structure` alone does not.
    pub(crate) fn open(
        table: &Table,
        live: &Arc<Live>,
        structure: &Arc<RwLock<()>>,
    ) -> Result<Self, FleetError> {
        let (writer, waiting) = sync_channel(WAITING_ITEMS);
        let (table, live, structure) = (table.clone(), Arc::clone(live), Arc::clone(structure));
        let thread = std::thread::Builder::new()
            .name("fleet-violations".into())
            .spawn(move || write((&table, &live, &structure), &waiting))
            .map_err(FleetError::Thread)?;
        Ok(Self {
            writer: Some(writer),
            thread: Some(thread),
        })
    }
}

fn write(
    (table, live, structure): (&Table, &Live, &RwLock<()>),
    waiting: &Receiver<(ThingName, Violation)>,
) {
    while let Ok(first) = waiting.recv() {
        let mut together = vec![first];
        together.extend(waiting.try_iter().take(BATCH_ITEMS - 1));
        let _shared = structure.read();
        if let Err(error) = keep(table, live, &together, &|| {}) {
            tracing::debug!(%error, "violations are not kept");
        }
    }
}

/// Writes down those that are not too soon after the one before; together, or one by one where another change of one's rows
/// comes between. `read` is called whenever rows have been read and nothing is written yet.
fn keep(
    table: &Table,
    live: &Live,
    seen: &[(ThingName, Violation)],
    read: &dyn Fn(),
) -> Result<(), StoreError> {
    match keep_together(table, live, seen, read) {
        Err(StoreError::Conflict { .. }) => {}
        done => return done,
    }
    for one in seen {
        let mut tries = 0;
        loop {
            match keep_together(table, live, std::slice::from_ref(one), read) {
                Err(StoreError::Conflict { .. }) if tries < CONFLICT_RETRIES => tries += 1,
                done => break done?,
            }
        }
    }
    Ok(())
}

fn keep_together(
    table: &Table,
    live: &Live,
    seen: &[(ThingName, Violation)],
    read: &dyn Fn(),
) -> Result<(), StoreError> {
    let mut writes: Vec<Write> = Vec::new();
    let mut told: Vec<&(ThingName, Violation)> = Vec::new();
    for one in seen {
        let (thing, violation) = one;
        if told.iter().any(|(known, _)| known == thing) {
            continue;
        }
        let Some(row) = table.get_as::<Thing>(&keys::thing(thing))? else {
            continue;
        };
        let key = keys::posture(thing);
        let before = table.get_as::<Health>(&key)?;
        let expect = before
            .as_ref()
            .map_or(Expect::Absent, |row| Expect::Revision(row.revision));
        let mut health = before.map(|row| row.value).unwrap_or_default();
        if !is_due(health.violation.as_ref().map(|last| last.at), violation.at) {
            continue;
        }
        health.violation = Some(violation.clone());
        writes.push(Write::put(key, &health, expect)?);
        writes.push(Write::Check {
            key: keys::thing(thing),
            expect: Expect::Revision(row.revision),
        });
        told.push(one);
    }
    if writes.is_empty() {
        return Ok(());
    }
    read();
    let written = || writes.iter().map(|write| write.key().to_owned()).collect();
    for mark in live.cards().marks_of(written, |_| false) {
        writes.push(Write::put(mark, &Present, Expect::Any)?);
    }
    live.wait_applied(table.batch(&writes)?);
    for (thing, violation) in told {
        tracing::warn!(%thing, "violation: {}", violation.reason);
    }
    Ok(())
}

fn is_due(last: Option<SystemTime>, at: SystemTime) -> bool {
    last.is_none_or(|last| {
        at.duration_since(last)
            .is_ok_and(|since| since >= VIOLATION_EVERY)
    })
}

impl Fleet {
    /// Keeps that a device has done what no sound device does, where nothing later is known. Its live sessions are judged
    /// again before this returns. What is kept then is answered.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn set_violation(
        &self,
        thing: &ThingName,
        violation: &Violation,
    ) -> Result<Violation, FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let mut health: Health = t.get(&keys::posture(thing))?.unwrap_or_default();
            match &health.violation {
                Some(last) if last.at > violation.at => Ok(last.clone()),
                _ => {
                    health.violation = Some(violation.clone());
                    t.put(keys::posture(thing), &health)?;
                    Ok(violation.clone())
                }
            }
        })
    }

    /// Notes what the broker has seen a principal do, where it is a thing's and nothing was noted of that thing for
    /// [`VIOLATION_EVERY`]. Does not block; its live sessions are judged again soon.
    pub fn note_violation(&self, standing: &Standing, reason: &str, at: SystemTime) {
        let now = standing.now();
        let Some(thing) = &now.thing else { return };
        let last = now.posture.last_violation;
        let last = last.and_then(|second| u64::try_from(second).ok());
        let last = last.map(|second| SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        if !is_due(last, at) {
            return;
        }
        if let Some(writer) = &self.inner.violations.writer {
            let violation = Violation {
                at,
                reason: reason.to_owned(),
                seen: true,
            };
            // Where too many wait it is seen again, if it goes on.
            let _ = writer.try_send((thing.clone(), violation));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_kept_a_minute() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        for (last, now, due) in [
            (None, 100, true),
            (Some(100), 100, false),
            (Some(100), 159, false),
            (Some(100), 160, true),
            // The clock was put back.
            (Some(100), 40, false),
        ] {
            assert_eq!(is_due(last.map(at), at(now)), due, "{last:?} {now}");
        }
    }
    #[test]
    fn a_change_of_one_things_rows_turns_back_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let store = store::Store::open(&directory.path().join("store")).unwrap();
        let (name, public_url) = ("test".into(), "http://localhost".into());
        let config = ca::AuthorityConfig { name, public_url };
        let now = SystemTime::now();
        let authority =
            ca::Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
        let realm = policy::Realm::live("000000000000");
        let fleet = Fleet::open(&store, Arc::new(authority), realm, now).unwrap();
        let seen = ["changed", "same"].map(|name| {
            let thing: ThingName = name.parse().unwrap();
            fleet
                .create_thing(&thing, Default::default(), None, now)
                .unwrap();
            let violation = Violation {
                at: now,
                reason: "too loud".into(),
                seen: true,
            };
            (thing, violation)
        });
        // Both at once, then the changed one alone.
        let left = std::cell::Cell::new(2);
        let read = || {
            if left.get() > 0 {
                left.set(left.get() - 1);
                let firmware = Some(("lamp".to_owned(), left.get().to_string()));
                let change = |health: &mut Health| health.firmware = firmware.clone();
                fleet.set_health(&seen[0].0, change).unwrap();
            }
        };
        keep(&fleet.inner.table, &fleet.inner.live, &seen, &read).unwrap();
        assert_eq!(left.get(), 0);
        for (thing, violation) in &seen {
            let health = fleet.health(thing).unwrap();
            assert_eq!(health.violation.as_ref(), Some(violation), "{thing}");
        }
    }
}
